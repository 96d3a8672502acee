//! What a server's answer means for the event that was posted, and how long the
//! server wants to be left alone.

use crate::settings::Settings;
use backhaul_guest::PublishError;
use backhaul_guest::http::{Bounds, one_line, retry_after};
use http::StatusCode;
use http::header::LOCATION;
use std::time::{Duration, SystemTime};

/// How much of a refusal's body goes to the log, and how much of a body is read
/// so that its connection can be used again.
pub(crate) const BOUNDS: Bounds = Bounds {
    keep: 200,
    read: 64 << 10,
};

pub(crate) struct Answer {
    pub(crate) outcome: Result<(), PublishError>,
    /// The `Retry-After` of an answer that asks to come back.
    pub(crate) wait: Option<Duration>,
}

/// What an answer means.
pub(crate) fn judge(settings: &Settings, answer: &backhaul_guest::http::Answer) -> Answer {
    let (status, origin) = (answer.status, &settings.origin);
    // That the body broke off is no matter: the status has come, and says what
    // became of the event.
    let shown = one_line(&answer.body, BOUNDS.keep);
    if status.is_success() {
        return Answer {
            outcome: Ok(()),
            wait: None,
        };
    }
    let mut text = format!("{origin} answered {status}");
    if status.is_redirection() {
        text += ", redirects are not followed; set WEBHOOK_URL to where it is";
        // Path and query may be those of WEBHOOK_URL, with its secret.
        let place = answer
            .headers
            .get(LOCATION)
            .and_then(|place| place.to_str().ok());
        if let Some(place) = place.and_then(Settings::to) {
            text += &format!(", at {}", place.origin);
        }
    } else if !shown.is_empty() {
        text += &format!(": {shown}");
    }
    if is_permanent(status, &settings.retry_status) {
        return Answer {
            outcome: Err(PublishError::Permanent(text)),
            wait: None,
        };
    }
    let wait = retry_after(&answer.headers, SystemTime::now());
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

#[cfg(test)]
mod tests {
    use super::*;

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
