//! How the program talks to a running host.

use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

/// The host that is meant unless another is named.
pub(super) const DEFAULT_HOST: &str = "http://127.0.0.1:7070";

/// How long the host may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// A client that reads answers of every status.
pub(super) fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(TIMEOUT))
        .proxy(None)
        .build();
    ureq::Agent::new_with_config(config)
}

/// Says that nobody answers at `url`.
pub(super) fn no_answer(url: &str) -> String {
    format!("{url} does not answer; is `backhaul serve` running there?")
}

/// The body of an answer, or what the host says is wrong.
pub(super) fn answer(mut response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Value> {
    let status = response.status();
    let body = response.body_mut().read_to_string();
    let body = body.with_context(|| format!("the answer ({status}) cannot be read"))?;
    let json: Option<Value> = serde_json::from_str(&body).ok();
    if status.is_success() {
        return json.with_context(|| format!("the answer is not JSON: {body}"));
    }
    let detail = json.as_ref().and_then(|problem| problem["detail"].as_str());
    bail!("({status}): {}", detail.unwrap_or(&body))
}

/// `path` at the host `to`.
pub(super) fn url(to: &str, path: &str) -> anyhow::Result<String> {
    if to.starts_with("https://") {
        bail!("{to}: plain HTTP is spoken here, to a host beside it; use curl for https");
    }
    let Some(rest) = to.strip_prefix("http://") else {
        bail!("{to:?} is not a URL; write for instance {DEFAULT_HOST}");
    };
    match rest.trim_end_matches('/').contains('/') {
        true => bail!("{to} has a path; name only the host, for instance {DEFAULT_HOST}"),
        false => Ok(format!("{}{path}", to.trim_end_matches('/'))),
    }
}
