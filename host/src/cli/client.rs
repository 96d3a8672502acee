//! How the program talks to a running host.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::wasm::printable;

/// The host that is meant unless another is named.
pub(super) const DEFAULT_HOST: &str = "http://127.0.0.1:7070";

/// How long the host may take to answer.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer that is read, in bytes. A page of dead letters has some
/// 16 MiB of events, or a single one of 32 MiB; in JSON a byte can take six.
const MAX_ANSWER: u64 = 512 << 20;

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
pub(super) fn answer(response: ureq::http::Response<ureq::Body>) -> anyhow::Result<Value> {
    read(response)
}

/// The same, as a type of one's own.
pub(super) fn read<T: DeserializeOwned>(
    mut response: ureq::http::Response<ureq::Body>,
) -> anyhow::Result<T> {
    let status = response.status();
    let body = response.body_mut().with_config().limit(MAX_ANSWER);
    let body = body.read_to_string();
    let body = body.with_context(|| format!("the answer ({status}) cannot be read"))?;
    let start = || printable(&body, 1000);
    if status.is_success() {
        return serde_json::from_str(&body)
            .with_context(|| format!("the answer is not what was asked for: {}", start()));
    }
    let problem: Value = serde_json::from_str(&body).unwrap_or_default();
    let detail = problem["detail"].as_str();
    bail!("{} ({status})", detail.map_or_else(start, str::to_owned))
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
