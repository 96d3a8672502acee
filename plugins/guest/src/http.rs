//! HTTP for backends that send requests with `wstd`: one request and its answer,
//! of which no more is read than is sane, and the texts that say what went wrong.
//!
//! Needs the feature `http`. Connections, TLS and pooling are the host's.

use http::header::{HeaderMap, RETRY_AFTER};
use http::{Request, Response, StatusCode};
use std::future::Future;
use std::time::{Duration, SystemTime};
use wstd::future::FutureExt;
use wstd::http::{Body, BodyExt, Client};

/// The longest pause [`retry_after`] gives: a mistaken header must not stop the
/// events for good.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

/// What a server answered.
#[derive(Debug)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, or its beginning: see `end`.
    pub body: Vec<u8>,
    /// How the body ended.
    pub end: End,
}

/// How reading a body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With its last byte.
    Whole,
    /// With more of it than was to be read, or kept.
    TooLong,
    /// With the connection.
    BrokenOff,
}

/// How much of a body is taken.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes that are kept. The rest is read and dropped, so that the connection
    /// can be used again.
    pub keep: usize,
    /// Bytes that are read before the connection is given up.
    pub read: usize,
}

/// Sends a request to `origin` (scheme, host and port, as grants have it) and reads the answer.
///
/// # Errors
///
/// If no answer has come, for instance because the origin is not granted. The
/// text says what to look at, and shows nothing of the request.
pub async fn send(
    request: Request<Vec<u8>>,
    origin: &str,
    bounds: Bounds,
) -> Result<Answer, String> {
    let response = Client::new().send(request).await.map_err(|error| {
        format!(
            "no answer from {origin}; does it run, and is http = [\"{origin}\"] granted? {error:#}"
        )
    })?;
    Ok(read(response, bounds).await)
}

async fn read(response: Response<Body>, bounds: Bounds) -> Answer {
    let (head, body) = response.into_parts();
    let (mut body, mut kept, mut taken) = (body.into_boxed_body(), Vec::new(), 0);
    let end = loop {
        match body.frame().await {
            None if taken > kept.len() => break End::TooLong,
            None => break End::Whole,
            Some(Err(_)) => break End::BrokenOff,
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(&[][..], |data| data);
                let room = bounds.keep.saturating_sub(kept.len()).min(data.len());
                kept.extend_from_slice(&data[..room]);
                taken += data.len();
            }
        }
        if taken > bounds.read {
            break End::TooLong;
        }
    };
    Answer {
        status: head.status,
        headers: head.headers,
        body: kept,
        end,
    }
}

/// Runs `future` for at most this long; `None` if it was not done then, and is dropped.
pub async fn within<T>(time: Duration, future: impl Future<Output = T>) -> Option<T> {
    let limit = wstd::time::Duration::from(time);
    future.timeout(limit).await.ok()
}

/// The first `bytes` of a text from outside as one line of printable characters,
/// to be shown in an error.
pub fn one_line(text: &[u8], bytes: usize) -> String {
    let text = String::from_utf8_lossy(&text[..text.len().min(bytes)]);
    let words = text.split(|c: char| c.is_control() || c.is_whitespace());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

/// How long an answer asks to be left alone: seconds, or a date. At most an hour.
pub fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = httpdate::parse_http_date(value).ok()?;
            date.duration_since(now).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_PAUSE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn wait(value: &'static str) -> Option<u64> {
        let value = HeaderValue::from_static(value);
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value)]);
        // Sun, 06 Nov 1994 08:49:37 GMT
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        retry_after(&headers, now).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_at_most_an_hour() {
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Sun, 06 Nov 1994 08:50:00 GMT"), Some(23));
        assert_eq!(wait("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0));
        assert_eq!(wait("99999999"), Some(3600));
        assert_eq!(wait("Thu, 06 Nov 2994 08:00:00 GMT"), Some(3600));
        for bad in ["", "soon", "-1", "99999999999999999999999"] {
            assert_eq!(wait(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_text_from_outside_is_shown_on_one_line_and_cut_off() {
        assert_eq!(one_line(b" a\r\n\x1b[31mb\0c ", 200), "a [31mb c");
        assert_eq!(one_line("aé".repeat(100).as_bytes(), 3), "aé");
        assert_eq!(one_line(b"", 3), "");
    }
}
