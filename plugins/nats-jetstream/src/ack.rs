//! What an answer to a message means for its event.

use backhaul_guest::{Failure, PublishError};
use serde::Deserialize;

pub(crate) enum Answer {
    Stored,
    Failed(PublishError),
    /// The server's own answer if no stream, and nobody else, has the subject.
    NobodyListens,
}

#[derive(Deserialize)]
struct Ack {
    stream: Option<String>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    description: String,
}

/// `JSStreamMessageExceedsMaximumErr`
const TOO_LARGE: u32 = 10_054;

/// Reads an answer. A message that the stream had already counts as stored.
pub(crate) fn read(status: Option<u16>, payload: &[u8]) -> Answer {
    if status == Some(503) {
        return Answer::NobodyListens;
    }
    let retryable = |text| Answer::Failed(PublishError::Retryable(text));
    match serde_json::from_slice(payload) {
        // Only the size is the event's own fault; full streams get room again.
        Ok(Ack {
            error: Some(error), ..
        }) => {
            let Refusal {
                err_code,
                description,
            } = error;
            let text = format!("JetStream refused: {description} ({err_code})");
            match err_code {
                TOO_LARGE => Answer::Failed(PublishError::Permanent(text)),
                _ => retryable(text),
            }
        }
        Ok(Ack {
            stream: Some(_), ..
        }) => Answer::Stored,
        _ => retryable(
            "the answer is not JetStream's; does a plain subscriber answer on this subject?"
                .to_owned(),
        ),
    }
}

/// The failure of the event at `index`.
pub(crate) fn failure(index: usize, error: PublishError) -> Failure {
    match error {
        PublishError::Permanent(text) => Failure::permanent(index, text),
        PublishError::Retryable(text) => Failure::retryable(index, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_acknowledgement_counts_as_stored() {
        let stored = |payload: &str| matches!(read(None, payload.as_bytes()), Answer::Stored);
        assert!(stored(r#"{"stream":"events","seq":7}"#));
        assert!(stored(
            r#"{"stream":"events","domain":"d","seq":7,"duplicate":true}"#
        ));
        for other in [
            "",
            "+ACK",
            "{}",
            "null",
            "[]",
            r#"{"seq":7}"#,
            r#"{"stream":null}"#,
        ] {
            assert!(!stored(other), "{other}");
        }
        assert!(matches!(read(Some(503), b""), Answer::NobodyListens));
    }

    #[test]
    fn a_full_stream_is_waited_for_and_a_message_too_large_is_not() {
        let error = |code| {
            let text = format!(
                r#"{{"error":{{"code":400,"err_code":{code},"description":"d"}},"stream":"s"}}"#
            );
            match read(None, text.as_bytes()) {
                Answer::Failed(error) => error,
                _ => panic!("{text}"),
            }
        };
        assert!(matches!(error(10_054), PublishError::Permanent(_)));
        assert!(matches!(error(10_077), PublishError::Retryable(_)));
        assert!(matches!(error(10_023), PublishError::Retryable(_)));
    }
}
