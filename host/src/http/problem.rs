//! The answer to a request that was refused: a problem document (RFC 9457).

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::json;

/// Why a request was refused; as a response, a problem document.
#[derive(Debug, thiserror::Error)]
#[error("{detail}")]
pub struct Problem {
    status: StatusCode,
    detail: String,
    /// Which event of a batch, counted from 0.
    index: Option<usize>,
    /// Seconds after which it is worth trying again.
    retry_after: Option<u32>,
}

impl Problem {
    pub(super) fn new(status: StatusCode, detail: String) -> Problem {
        Problem {
            status,
            detail,
            index: None,
            retry_after: None,
        }
    }

    /// The status a request refused for it is answered with.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn at(mut self, index: usize) -> Problem {
        self.detail = format!(
            "event {index} of the batch (counted from 0): {}; none of the batch was taken",
            self.detail
        );
        self.index = Some(index);
        self
    }

    pub(super) fn retry_after(mut self, seconds: u32) -> Problem {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut document = json!({
            "title": self.status.canonical_reason(),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Some(index) = self.index {
            document["index"] = index.into();
        }
        let content_type = [(header::CONTENT_TYPE, "application/problem+json")];
        let mut response = (self.status, content_type, document.to_string()).into_response();
        if let Some(seconds) = self.retry_after {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}
