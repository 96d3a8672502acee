//! The plugins over HTTP: what they are and do, and releasing one that was set
//! aside.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde_json::json;

use super::guard::guarded;
use super::problem::Problem;
use crate::plugins::PluginHost;

pub(super) fn routes<S: Clone + Send + Sync + 'static>(host: PluginHost) -> Router<S> {
    let routes = Router::new()
        .route("/api/plugins", get(list))
        .route("/api/plugins/{name}", get(show))
        .route("/api/plugins/{name}/release", post(release));
    guarded(routes).with_state(host)
}

async fn list(State(host): State<PluginHost>) -> Response {
    Json(host.status()).into_response()
}

async fn show(State(host): State<PluginHost>, Path(name): Path<String>) -> Response {
    match host.plugin(&name) {
        Some(plugin) => Json(plugin.status()).into_response(),
        None => unknown(&name).into_response(),
    }
}

async fn release(State(host): State<PluginHost>, Path(name): Path<String>) -> Response {
    match host.plugin(&name) {
        Some(plugin) => Json(json!({ "released": plugin.release() })).into_response(),
        None => unknown(&name).into_response(),
    }
}

fn unknown(name: &str) -> Problem {
    let detail = format!("no plugin is called {name:?}; GET /api/plugins lists them");
    Problem::new(StatusCode::NOT_FOUND, detail)
}
