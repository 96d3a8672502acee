//! The figures for a monitoring system, in the text format of OpenMetrics.
//!
//! Nothing is counted here: each answer is made of one look at the host, so that
//! the books of every backend balance in it. `figures` says what there is. Whoever
//! reaches the address is answered: those who collect figures ask by all kinds of
//! names, and there is nothing here but numbers and names.

mod figures;
#[cfg(test)]
mod tests;

use std::fmt;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text;
use prometheus_client::registry::Registry;

use super::problem::Problem;
use crate::journal::JournalStatus;
use crate::plugins::{BackendStatus, PluginHost, PluginStatus};

const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

pub(super) fn routes<S: Clone + Send + Sync + 'static>(host: PluginHost) -> Router<S> {
    Router::new()
        .route("/metrics", get(metrics))
        .with_state(host)
}

async fn metrics(State(host): State<PluginHost>) -> Response {
    match Snapshot::of(&host).into_text() {
        Ok(text) => ([(header::CONTENT_TYPE, CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            let detail = format!("the figures cannot be written: {error}");
            Problem::new(StatusCode::INTERNAL_SERVER_ERROR, detail).into_response()
        }
    }
}

/// What a host says of itself at one moment.
#[derive(Debug)]
struct Snapshot {
    backends: Vec<BackendStatus>,
    journal: Option<JournalStatus>,
    plugins: Vec<PluginStatus>,
}

impl Snapshot {
    fn of(host: &PluginHost) -> Snapshot {
        let backends = host.backends();
        Snapshot {
            backends: backends.backends,
            journal: backends.journal,
            plugins: host.status().plugins,
        }
    }

    fn into_text(self) -> Result<String, fmt::Error> {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(self));
        let mut text = String::new();
        text::encode(&mut text, &registry)?;
        Ok(text)
    }
}
