//! What a server's answer means for the event that was posted, and how long the
//! server wants to be left alone.

use crate::settings::Settings;
use backhaul_guest::PublishError;
use http::header::{HeaderMap, LOCATION, RETRY_AFTER};
use http::{Response, StatusCode};
use std::time::{Duration, SystemTime};
use wstd::http::{Body, BodyExt};

/// How much of a body is read so that its connection can be used again.
const MAX_READ: usize = 64 << 10;

/// How much of a refusal's body goes to the log.
const MAX_SHOWN: usize = 200;

/// The longest pause a server can ask for: a mistaken `Retry-After` must not
/// stop the events for good.
const MAX_PAUSE: Duration = Duration::from_secs(3600);

pub(crate) struct Answer {
    pub(crate) outcome: Result<(), PublishError>,
    /// The `Retry-After` of an answer that asks to come back, at most [`MAX_PAUSE`].
    pub(crate) wait: Option<Duration>,
}

/// Reads an answer to its end, or as far as is sane.
pub(crate) async fn read(settings: &Settings, response: Response<Body>) -> Answer {
    let (head, body) = response.into_parts();
    let shown = start_of(body).await;
    let wait = retry_after(&head.headers, SystemTime::now());
    let (status, origin) = (head.status, &settings.origin);
    if status.is_success() {
        return Answer {
            outcome: Ok(()),
            wait: None,
        };
    }
    let mut text = format!("{origin} answered {status}");
    if status.is_redirection() {
        let place = head.headers.get(LOCATION).map(|value| value.as_bytes());
        let place = String::from_utf8_lossy(place.unwrap_or_default());
        text += &format!(", redirects are not followed; set WEBHOOK_URL to where it is: {place}");
    } else if !shown.is_empty() {
        text += &format!(": {shown}");
    }
    if is_permanent(status, &settings.retry_status) {
        return Answer {
            outcome: Err(PublishError::Permanent(text)),
            wait: None,
        };
    }
    if let Some(wait) = wait {
        text += &format!(" (Retry-After: {} s)", wait.as_secs());
    }
    Answer {
        outcome: Err(PublishError::Retryable(text)),
        wait,
    }
}

/// 4xx says that the request is at fault, and that is made of the event; but for
/// those that speak of the moment, and those the settings name. A redirect is
/// put right in the settings.
fn is_permanent(status: StatusCode, retry_status: &[StatusCode]) -> bool {
    let of_the_moment = [
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_client_error() && !of_the_moment.contains(&status) && !retry_status.contains(&status)
}

/// Seconds, or a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
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

/// The first characters of a body, on one line. An error on the way is no matter:
/// the status has come, and says what became of the event.
async fn start_of(body: Body) -> String {
    let (mut body, mut read, mut start) = (body.into_boxed_body(), 0, Vec::new());
    while let Some(Ok(frame)) = body.frame().await {
        let Some(data) = frame.data_ref() else {
            continue;
        };
        let room = MAX_SHOWN.saturating_sub(start.len()).min(data.len());
        start.extend_from_slice(&data[..room]);
        read += data.len();
        if read > MAX_READ {
            break;
        }
    }
    let start = String::from_utf8_lossy(&start);
    let words = start.split(|c: char| c.is_control() || c.is_whitespace());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    words.join(" ")
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
    fn what_is_wrong_with_the_event_is_permanent_and_what_passes_is_not() {
        let permanent = |status: u16, retry_status: &[StatusCode]| {
            is_permanent(StatusCode::from_u16(status).unwrap(), retry_status)
        };
        for status in [400, 401, 404, 410, 413, 422, 451, 499] {
            assert!(permanent(status, &[]), "{status}");
        }
        for status in [302, 304, 408, 425, 429, 500, 501, 503, 599] {
            assert!(!permanent(status, &[]), "{status}");
        }
        assert!(!permanent(404, &[StatusCode::NOT_FOUND]));
    }
}
