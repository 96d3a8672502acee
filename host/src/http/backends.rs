//! The backends over HTTP: where their events are, and letting go of what waits
//! for one that will not come back.

use axum::Router;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{delete, get};
use serde_json::json;

use super::guard::guarded;
use super::problem::Problem;
use crate::journal::ForgetError;
use crate::plugins::PluginHost;

pub(super) fn routes<S: Clone + Send + Sync + 'static>(host: PluginHost) -> Router<S> {
    let routes = Router::new()
        .route("/api/backends", get(list))
        .route("/api/backends/{name}", delete(forget));
    guarded(routes).with_state(host)
}

async fn list(State(host): State<PluginHost>) -> Response {
    Json(host.backends()).into_response()
}

async fn forget(State(host): State<PluginHost>, Path(name): Path<String>) -> Response {
    match host.forget(&name) {
        Ok(forgotten) => Json(json!({ "forgotten": forgotten })).into_response(),
        Err(error) => {
            let status = match error {
                ForgetError::Unknown(_) => StatusCode::NOT_FOUND,
                ForgetError::InUse(_) => StatusCode::CONFLICT,
            };
            Problem::new(status, error.to_string()).into_response()
        }
    }
}
