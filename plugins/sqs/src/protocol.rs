//! `SendMessageBatch` in SQS's JSON protocol: how a call is written and its answer read.

use backhaul_aws::{ATTRIBUTE_TYPE, Entry, EntryFault, Error, Place, Results, Service};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Amazon Simple Queue Service.
pub(crate) struct Sqs;

impl Service for Sqs {
    const NAME: &'static str = "SQS";
    const SIGNING_NAME: &'static str = "sqs";
    const TARGET: &'static str = "SQS_QUEUE_URL";
    const TARGET_FORM: &'static str = "a queue's URL, such as https://sqs.eu-west-1.amazonaws.com/123456789012/events, \
         with fields in its path at most; a queue's name has up to 80 letters, digits, - and _, or ends in .fifo";
    const RIGHT: &'static str = "sqs:SendMessage";
    const KIND: &'static str = "queue";
    const MAX_BYTES: usize = 1 << 20;
    const SUBJECTS: bool = false;

    fn place(target: &str) -> Option<Place> {
        Place::of_url(target, Self::SIGNING_NAME)
    }

    fn is_target(target: &str) -> bool {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let Some((_, path)) = target.split_once("://") else {
            return false;
        };
        let Some((_, path)) = path.split_once('/') else {
            return false;
        };
        let name = path.rsplit('/').next().unwrap_or_default();
        let stem = name.strip_suffix(".fifo").unwrap_or(name);
        // Folders above it are an account, and on other servers more.
        let above = path
            .bytes()
            .all(|byte| plain(byte) || matches!(byte, b'/' | b'.'));
        (1..=80).contains(&name.len()) && !stem.is_empty() && stem.bytes().all(plain) && above
    }

    fn request(target: &str, entries: &[&Entry]) -> (HeaderMap, Vec<u8>) {
        let request = Request {
            queue_url: target,
            entries: entries.iter().map(|entry| message(entry)).collect(),
        };
        let body = serde_json::to_vec(&request).expect("texts have a JSON form");
        let headers = HeaderMap::from_iter([
            (
                CONTENT_TYPE,
                HeaderValue::from_static("application/x-amz-json-1.0"),
            ),
            (
                HeaderName::from_static("x-amz-target"),
                HeaderValue::from_static("AmazonSQS.SendMessageBatch"),
            ),
        ]);
        (headers, body)
    }

    fn results(body: &[u8]) -> Option<Results> {
        let answer: Answer = serde_json::from_slice(body).ok()?;
        let taken = answer
            .successful
            .into_iter()
            .flatten()
            .map(|entry| entry.id);
        let failed = answer.failed.into_iter().flatten().map(|entry| EntryFault {
            id: entry.id,
            sender_fault: entry.sender_fault,
            error: Error {
                code: entry.code,
                message: entry.message.unwrap_or_default(),
            },
        });
        let results = Results {
            taken: taken.collect(),
            failed: failed.collect(),
        };
        Some(results).filter(|results| !results.taken.is_empty() || !results.failed.is_empty())
    }

    fn error(_: &HeaderMap, body: &[u8]) -> Option<Error> {
        let refusal: Refusal = serde_json::from_slice(body).ok()?;
        Some(Error {
            code: refusal.code,
            message: refusal.message.or(refusal.capital).unwrap_or_default(),
        })
    }
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Request<'a> {
    queue_url: &'a str,
    entries: Vec<Message<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Message<'a> {
    id: &'a str,
    message_body: &'a str,
    message_attributes: BTreeMap<&'a str, Attribute<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_group_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message_deduplication_id: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Attribute<'a> {
    data_type: &'a str,
    string_value: &'a str,
}

fn message(entry: &Entry) -> Message<'_> {
    let attributes = entry.attributes.iter().map(|(name, value)| {
        let attribute = Attribute {
            data_type: ATTRIBUTE_TYPE,
            string_value: value,
        };
        (*name, attribute)
    });
    Message {
        id: &entry.id,
        message_body: &entry.body,
        message_attributes: attributes.collect(),
        message_group_id: entry.fifo.as_ref().map(|fifo| &*fifo.group),
        message_deduplication_id: entry.fifo.as_ref().map(|fifo| &*fifo.deduplication_id),
    }
}

/// Either list is missing, or null, where it would be empty.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    successful: Option<Vec<Taken>>,
    failed: Option<Vec<Refused>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Taken {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Refused {
    id: String,
    #[serde(default)]
    sender_fault: bool,
    code: String,
    message: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(rename = "__type")]
    code: String,
    message: Option<String>,
    /// Errors that are not of SQS itself have it so; some servers have both.
    #[serde(rename = "Message")]
    capital: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_names_a_queue_or_is_refused() {
        for good in [
            "https://sqs.eu-west-1.amazonaws.com/123456789012/events",
            "https://sqs.eu-west-1.amazonaws.com/123456789012/e-v_1.fifo",
            "http://127.0.0.1:5000/queue/events",
            &format!("http://h/1/{}", "x".repeat(80)),
        ] {
            assert!(Sqs::is_target(good), "{good}");
        }
        for bad in [
            "https://sqs.eu-west-1.amazonaws.com",
            "https://sqs.eu-west-1.amazonaws.com/1/",
            "http://h/1/after:signup",
            "http://h/1/.fifo",
            "http://h/1/a.b",
            "http://h/a?b/c",
            "events",
            &format!("http://h/1/{}", "x".repeat(81)),
        ] {
            assert!(!Sqs::is_target(bad), "{bad}");
        }
    }

    #[test]
    fn an_answer_says_what_became_of_each_entry() {
        let body = br#"{"Successful":[{"Id":"0","MessageId":"m","MD5OfMessageBody":"d"}],
            "Failed":[{"Id":"1","SenderFault":true,"Code":"InvalidMessageContents","Message":"no"},
                      {"Id":"2","SenderFault":false,"Code":"InternalError"}]}"#;
        let results = Sqs::results(body).unwrap();
        assert_eq!(results.taken, ["0"]);
        assert_eq!(results.failed.len(), 2);
        assert!(results.failed[0].sender_fault && !results.failed[1].sender_fault);
        assert_eq!(results.failed[1].error.message, "");
        let failed_only = br#"{"Failed":[{"Id":"0","Code":"x"}],"Successful":null}"#;
        assert_eq!(Sqs::results(failed_only).unwrap().failed.len(), 1);
        for other in ["{}", "", "<html>", r#"{"Successful":7}"#] {
            assert_eq!(Sqs::results(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn an_error_has_a_code() {
        let body = br#"{"__type":"com.amazonaws.sqs#QueueDoesNotExist","message":"gone","Message":"gone"}"#;
        let error = Sqs::error(&HeaderMap::new(), body).unwrap();
        assert_eq!(error.code, "com.amazonaws.sqs#QueueDoesNotExist");
        assert_eq!(error.message, "gone");
        let upper = br#"{"__type":"AccessDeniedException","Message":"denied"}"#;
        assert_eq!(
            Sqs::error(&HeaderMap::new(), upper).unwrap().message,
            "denied"
        );
        assert_eq!(Sqs::error(&HeaderMap::new(), b"{}"), None);
    }
}
