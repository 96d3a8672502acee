//! The dead letters over HTTP: listed and looked at, tried again, dropped.
//!
//! `query` reads which of them a request is about.

mod query;

use axum::Router;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::cloudevents::InJson;
use super::guard::guarded;
use super::problem::Problem;
use crate::backend::PublishError;
use crate::dead_letters::{DeadFilter, DeadLetter};
use crate::plugins::PluginHost;
use query::Listing;

pub(super) fn routes<S: Clone + Send + Sync + 'static>(host: PluginHost) -> Router<S> {
    let routes = Router::new()
        .route("/api/dead", get(list).delete(drop_fitting))
        .route("/api/dead/retry", post(retry_fitting))
        .route("/api/dead/{id}", get(show).delete(drop_one))
        .route("/api/dead/{id}/retry", post(retry_one));
    guarded(routes).with_state(host)
}

/// A dead letter as it is shown.
#[derive(Serialize)]
struct Letter<'a> {
    id: u64,
    backend: &'a str,
    error: &'a str,
    attempts: u32,
    first_try: Timestamp,
    last_try: Timestamp,
    event: InJson<'a>,
}

#[derive(Serialize)]
struct Page<'a> {
    letters: Vec<Letter<'a>>,
    total: u64,
    next: Option<u64>,
}

async fn list(
    State(host): State<PluginHost>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let Listing {
        filter,
        after,
        limit,
    } = query::listing(&query.unwrap_or_default(), Timestamp::now())?;
    let page = host.dead_letters(&filter, after, limit).await;
    let page = page.map_err(|error| unreadable(&error))?;
    let shown = Page {
        letters: page.letters.iter().map(Letter::from).collect(),
        total: page.total,
        next: page.next,
    };
    Ok(Json(shown).into_response())
}

async fn show(State(host): State<PluginHost>, Path(id): Path<String>) -> Result<Response, Problem> {
    let page = host.dead_letters(&only(&id)?, 0, 1).await;
    let page = page.map_err(|error| unreadable(&error))?;
    let letter = page.letters.first().ok_or_else(|| unknown(&id))?;
    Ok(Json(Letter::from(letter)).into_response())
}

async fn retry_one(
    State(host): State<PluginHost>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    match retry(host, only(&id)?).await? {
        0 => Err(unknown(&id)),
        retried => Ok(Json(json!({ "retried": retried }))),
    }
}

async fn drop_one(
    State(host): State<PluginHost>,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    match drop_dead(host, only(&id)?).await? {
        0 => Err(unknown(&id)),
        dropped => Ok(Json(json!({ "dropped": dropped }))),
    }
}

async fn retry_fitting(
    State(host): State<PluginHost>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let filter = query::some_or_all(&query.unwrap_or_default(), Timestamp::now())?;
    let retried = retry(host, filter).await?;
    Ok(Json(json!({ "retried": retried })))
}

async fn drop_fitting(
    State(host): State<PluginHost>,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    let filter = query::some_or_all(&query.unwrap_or_default(), Timestamp::now())?;
    let dropped = drop_dead(host, filter).await?;
    Ok(Json(json!({ "dropped": dropped })))
}

async fn retry(host: PluginHost, filter: DeadFilter) -> Result<u64, Problem> {
    let retried = to_its_end(async move { host.retry_dead(&filter).await }).await?;
    retried.map_err(|error| not_retried(&error))
}

async fn drop_dead(host: PluginHost, filter: DeadFilter) -> Result<u64, Problem> {
    let dropped = to_its_end(async move { host.drop_dead(&filter).await }).await?;
    dropped.map_err(|error| {
        let detail = format!("not all of the dead letters could be dropped: {error}");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1)
    })
}

/// Goes on with `work` also when the client has gone away.
async fn to_its_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, Problem> {
    tokio::spawn(work).await.map_err(|error| {
        let detail = format!("the request ended early ({error}); see the host's log");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
    })
}

/// The letter of that id, as it stands in a path.
fn only(id: &str) -> Result<DeadFilter, Problem> {
    let parsed = id.parse().map_err(|_| {
        let detail = format!("{id:?} is not the id of a dead letter, which is a number");
        Problem::new(StatusCode::BAD_REQUEST, detail)
    })?;
    Ok(DeadFilter {
        ids: vec![parsed],
        ..DeadFilter::default()
    })
}

fn unknown(id: &str) -> Problem {
    let detail = format!(
        "there is no dead letter {id} (any more); one that fails again has a new id; GET /api/dead lists them"
    );
    Problem::new(StatusCode::NOT_FOUND, detail)
}

fn unreadable(error: &std::io::Error) -> Problem {
    let detail = format!("the dead letters cannot be read: {error}");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1)
}

fn not_retried(error: &PublishError) -> Problem {
    let detail = format!("not all of the dead letters could be put back: {error}");
    match error {
        PublishError::QueueFull { .. } => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(1)
        }
        PublishError::Retryable(_) | PublishError::Closed => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1)
        }
        _ => Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail),
    }
}

impl<'a> From<&'a DeadLetter> for Letter<'a> {
    fn from(letter: &'a DeadLetter) -> Letter<'a> {
        Letter {
            id: letter.id,
            backend: &letter.backend,
            error: &letter.error,
            attempts: letter.attempts,
            first_try: letter.first_try,
            last_try: letter.last_try,
            event: InJson(&letter.event),
        }
    }
}
