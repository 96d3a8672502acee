//! How the process is: whether it lives, and whether it takes events.
//!
//! A backend that takes nothing is named and does not make the host unready: its
//! events are kept, and those of the others go on.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use serde_json::{Value, json};

use super::HttpServer;

/// After how many seconds it is worth asking again.
const RETRY_AFTER: &str = "1";

pub(super) async fn live() -> Response {
    Json(json!({ "status": "live" })).into_response()
}

pub(super) async fn ready(State(server): State<HttpServer>) -> Response {
    match (server.readiness)() {
        Ok(()) => Json(server.with_backends(json!({ "status": "ready" }))).into_response(),
        Err(reason) => {
            let body = json!({ "status": "not ready", "reason": reason });
            let retry_after = [(header::RETRY_AFTER, RETRY_AFTER)];
            let body = Json(server.with_backends(body));
            (StatusCode::SERVICE_UNAVAILABLE, retry_after, body).into_response()
        }
    }
}

impl HttpServer {
    #[cfg(feature = "plugins")]
    fn with_backends(&self, mut body: Value) -> Value {
        if let Some(host) = &self.plugins {
            body["backends"] = json!(host.backend_states());
        }
        body
    }

    #[cfg(not(feature = "plugins"))]
    fn with_backends(&self, body: Value) -> Value {
        body
    }
}
