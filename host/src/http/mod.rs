//! CloudEvents over HTTP, into a bus.
//!
//! `POST /events` takes the three content modes of the CloudEvents 1.0 HTTP
//! binding (`cloudevents`); `GET /health/live` and `/health/ready` say how
//! the process is (`health`), `/api/plugins` what the plugins do (`plugins`),
//! `/api/backends` where the events are (`backends`), `/api/dead` what was given up
//! (`dead`), and `/metrics` all of it in numbers (`metrics`). What is under `/api` is
//! closed to other sites (`guard`). Every refusal is a problem document (RFC 9457)
//! that says what was wrong. Of backends the way of an event knows only what the bus
//! tells it.

#[cfg(feature = "plugins")]
mod backends;
mod cloudevents;
#[cfg(feature = "plugins")]
mod dead;
#[cfg(feature = "plugins")]
mod guard;
mod health;
#[cfg(feature = "plugins")]
mod metrics;
#[cfg(feature = "plugins")]
mod plugins;
mod problem;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Request, StatusCode, Uri};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::json;
use tokio::net::TcpListener;

use crate::backend::{Failure, PublishError};
use crate::bus::{EmitError, EventBus};
use crate::event::Event;
pub use cloudevents::decode;
#[cfg(feature = "cli")]
pub(crate) use cloudevents::is_json;
pub use problem::Problem;

/// How long a client may take to send a body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Whether the process is ready for events, or why not.
pub type Readiness = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;

/// The HTTP server of one bus.
#[derive(Clone)]
pub struct HttpServer {
    bus: EventBus,
    max_body: usize,
    readiness: Readiness,
    #[cfg(feature = "plugins")]
    plugins: Option<crate::plugins::PluginHost>,
}

impl HttpServer {
    /// A server that emits what is posted to `bus`; a request body may have
    /// `max_body` bytes. `/health/ready` answers what `readiness` says.
    pub fn new(bus: EventBus, max_body: usize, readiness: Readiness) -> HttpServer {
        HttpServer {
            bus,
            max_body,
            readiness,
            #[cfg(feature = "plugins")]
            plugins: None,
        }
    }

    /// Shows the plugins of `host` at `/api/plugins`, where those that were set
    /// aside can be released, their events at `/api/backends`, where those of a
    /// plugin that is gone can be given up, their dead letters at `/api/dead`, where
    /// they can be tried again and dropped, and the figures at `/metrics`.
    #[cfg(feature = "plugins")]
    #[must_use]
    pub fn with_plugins(mut self, host: crate::plugins::PluginHost) -> HttpServer {
        self.plugins = Some(host);
        self
    }

    /// Answers requests on `listener` until `stop` is done; then takes no new
    /// connection, answers the requests under way, and returns. A client that
    /// takes its time is waited for: drop the future to end it anyway.
    ///
    /// # Errors
    ///
    /// If the listener fails for good.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        axum::serve(listener, self.router())
            .with_graceful_shutdown(stop)
            .await
    }

    fn router(self) -> Router {
        self.api()
            .route("/events", post(events))
            .route("/health/live", get(health::live))
            .route("/health/ready", get(health::ready))
            .method_not_allowed_fallback(wrong_method)
            .fallback(not_found)
            .with_state(self)
    }

    /// What is there for operators.
    fn api(&self) -> Router<HttpServer> {
        #[cfg(feature = "plugins")]
        if let Some(host) = &self.plugins {
            return plugins::routes(host.clone())
                .merge(backends::routes(host.clone()))
                .merge(dead::routes(host.clone()))
                .merge(metrics::routes(host.clone()));
        }
        Router::new()
    }
}

/// Binds `address`; the error says what to do.
///
/// # Errors
///
/// If the address is taken or not one of this machine's.
pub async fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        let hint = match error.kind() {
            std::io::ErrorKind::AddrInUse => {
                "; another process listens there: stop it or choose another port"
            }
            std::io::ErrorKind::PermissionDenied => "; ports below 1024 need privileges",
            _ => "",
        };
        std::io::Error::new(
            error.kind(),
            format!("cannot listen on {address}: {error}{hint}"),
        )
    })
}

async fn events(State(server): State<HttpServer>, request: Request<Body>) -> Response {
    match receive(&server, request).await {
        Ok(ids) => (StatusCode::ACCEPTED, Json(json!({ "ids": ids }))).into_response(),
        Err(problem) => problem.into_response(),
    }
}

/// Reads, decodes and emits; returns the ids.
async fn receive(server: &HttpServer, request: Request<Body>) -> Result<Vec<String>, Problem> {
    let (head, body) = request.into_parts();
    let body = read(&head.headers, body, server.max_body).await?;
    let events = decode(&head.headers, body)?;
    if !events.is_empty() {
        server
            .bus
            .emit_batch(&events)
            .await
            .map_err(|error| refused(error, &events))?;
    }
    Ok(events.iter().map(|event| event.id().to_owned()).collect())
}

async fn read(headers: &HeaderMap, body: Body, max: usize) -> Result<bytes::Bytes, Problem> {
    let too_large = || {
        let detail = format!(
            "the body is larger than {max} bytes; send smaller batches, or raise `max_body` of the host"
        );
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    // Refused before it is sent, where the client says how large it is.
    let length = headers
        .get("content-length")
        .and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > max as u64) {
        return Err(too_large());
    }
    let collected = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, max).collect()).await;
    match collected {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Problem::new(
            StatusCode::BAD_REQUEST,
            format!("the body ended early: {error}"),
        )),
        Err(_) => {
            let detail = format!("the body was not there after {BODY_TIMEOUT:?}");
            Err(Problem::new(StatusCode::REQUEST_TIMEOUT, detail))
        }
    }
}

/// What an emit that failed is answered with.
fn refused(error: EmitError, events: &[Event]) -> Problem {
    match &error {
        EmitError::Refused { index, .. } => {
            let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, error.to_string());
            if events.len() > 1 {
                problem.at(*index)
            } else {
                problem
            }
        }
        EmitError::QueueFull { .. } => {
            Problem::new(StatusCode::TOO_MANY_REQUESTS, error.to_string()).retry_after(1)
        }
        EmitError::Backend { failures, .. } => {
            let permanent = failures
                .iter()
                .find(|failure| !failure.error.is_retryable());
            let detail = permanent.unwrap_or(&failures[0]).error.to_string();
            match permanent {
                None => Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(1),
                Some(Failure {
                    error: PublishError::BatchTooLarge { .. },
                    ..
                }) => Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail),
                Some(Failure { index, .. }) => {
                    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, detail);
                    if events.len() > 1 {
                        problem.at(*index)
                    } else {
                        problem
                    }
                }
            }
        }
        EmitError::Closed => {
            let detail = "the host is shutting down; send the events to another, or later";
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail.to_owned()).retry_after(5)
        }
    }
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    let path = uri.path();
    let allowed = match path.strip_prefix("/api/dead") {
        Some(rest) if rest.ends_with("/retry") => "POST",
        Some(_) => "GET and DELETE",
        None if path == "/events" || path.ends_with("/release") => "POST",
        None if path.starts_with("/api/backends/") => "DELETE",
        None => "GET",
    };
    let detail = format!("{path} takes {allowed}, not {method}");
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail)
}

async fn not_found(uri: Uri) -> Problem {
    let detail = format!(
        "there is nothing at {}; events are posted to /events; /health/live, /health/ready, /metrics, \
         /api/plugins, /api/backends and /api/dead answer GET",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, detail)
}
