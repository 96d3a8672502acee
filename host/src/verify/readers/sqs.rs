//! Takes the messages of a queue of SQS, over its JSON protocol, signed with
//! `aws-sigv4`. Configured by the variables of `sqs`. What a topic of SNS sends is
//! taken from a queue that is subscribed to it, which the profile's settings name as
//! `SQS_QUEUE_URL`.
//!
//! Takes them away: a queue has one reader for a message, so it should be one for
//! tests.

use std::time::SystemTime;

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{PATIENCE, Reader, ReaderError, Setup, from_json};
use crate::event::Event;

/// How often is asked in one read: each answer has 10 messages at most.
const CALLS: usize = 20;

/// The most of an answer that is read, in bytes: 10 messages of 1 MiB, in JSON.
const MAX_ANSWER: u64 = 64 << 20;

pub(super) struct Sqs {
    agent: ureq::Agent,
    credentials: Credentials,
    region: String,
    /// Where the service is.
    endpoint: String,
    queue: String,
}

#[derive(Deserialize)]
struct Received {
    #[serde(rename = "Messages", default)]
    messages: Vec<Message>,
}

#[derive(Deserialize)]
struct Message {
    #[serde(rename = "Body")]
    body: String,
    #[serde(rename = "ReceiptHandle")]
    receipt: String,
}

/// What SNS makes of a message for a queue, unless it is subscribed to have it raw.
#[derive(Deserialize)]
struct Notification {
    #[serde(rename = "Message")]
    message: String,
}

impl Sqs {
    pub(super) fn open(setup: &Setup<'_>) -> Result<Sqs, ReaderError> {
        let needed = |name: &str| {
            let missing = || {
                ReaderError(format!(
                    "to read the queue, {name} is needed: in the manifest, or in the profile's [settings]"
                ))
            };
            setup.variable(name).map(str::to_owned).ok_or_else(missing)
        };
        let queue = match setup.filled("SQS_QUEUE_URL", "")? {
            queue if queue.is_empty() => needed("SQS_QUEUE_URL")?,
            queue => queue,
        };
        let origin = origin(&queue);
        let endpoint = match setup.variable("AWS_ENDPOINT_URL") {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => origin.to_owned(),
        };
        if !endpoint.starts_with("http://") {
            return Err(ReaderError(format!(
                "{endpoint}: the queue is read over plain HTTP, as test servers have it; for \
                 another, name a `command` as the profile's reader"
            )));
        }
        let of_host = origin.split('.').nth(1).unwrap_or("us-east-1");
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(PATIENCE))
            .proxy(None)
            .build();
        let mut reader = Sqs {
            agent: ureq::Agent::new_with_config(config),
            credentials: Credentials::new(
                needed("AWS_ACCESS_KEY_ID")?,
                needed("AWS_SECRET_ACCESS_KEY")?,
                setup.variable("AWS_SESSION_TOKEN").map(str::to_owned),
                None,
                "manifest",
            ),
            region: setup.variable_or("AWS_REGION", of_host).to_owned(),
            endpoint,
            queue,
        };
        // What lies there is of no run, and would be in the way of this one.
        while !reader.read()?.is_empty() {}
        Ok(reader)
    }

    /// Calls the service; its answer.
    fn call(&self, action: &str, body: &Value) -> Result<String, ReaderError> {
        let answered = self.try_call(action, &body.to_string());
        answered.map_err(|error| ReaderError::at("read", &self.place(), error))
    }

    fn try_call(
        &self,
        action: &str,
        body: &str,
    ) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
        let url = format!("{}/", self.endpoint);
        let target = format!("AmazonSQS.{action}");
        let headers = [
            ("content-type", "application/x-amz-json-1.0"),
            ("x-amz-target", target.as_str()),
        ];
        let identity = self.credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("sqs")
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()?;
        let bytes = SignableBody::Bytes(body.as_bytes());
        let signable = SignableRequest::new("POST", &url, headers.into_iter(), bytes)?;
        let (signed, _) = sign(signable, &parameters.into())?.into_parts();
        let mut request = self.agent.post(&url);
        for (name, value) in headers.into_iter().chain(signed.headers()) {
            request = request.header(name, value);
        }
        let mut response = request.send(body)?;
        let answer = response.body_mut().with_config().limit(MAX_ANSWER);
        let answer = answer.read_to_string()?;
        match response.status().is_success() {
            true => Ok(answer),
            false => Err(format!("{}: {answer}", response.status()).into()),
        }
    }
}

impl Reader for Sqs {
    fn read(&mut self) -> Result<Vec<Event>, ReaderError> {
        let mut events = Vec::new();
        for _ in 0..CALLS {
            let ask = json!({ "QueueUrl": self.queue, "MaxNumberOfMessages": 10 });
            let answer = self.call("ReceiveMessage", &ask)?;
            let wrong = |error| ReaderError::at("read", &self.place(), error);
            let Received { messages } = serde_json::from_str(&answer).map_err(wrong)?;
            if messages.is_empty() {
                break;
            }
            let receipts = messages.iter().enumerate().map(|(number, message)| {
                json!({ "Id": number.to_string(), "ReceiptHandle": message.receipt })
            });
            let entries: Vec<Value> = receipts.collect();
            let taken = json!({ "QueueUrl": self.queue, "Entries": entries });
            self.call("DeleteMessageBatch", &taken)?;
            events.extend(messages.into_iter().filter_map(event));
        }
        Ok(events)
    }

    fn place(&self) -> String {
        format!("the queue {}", self.queue)
    }

    fn quiet(&self) -> std::time::Duration {
        std::time::Duration::from_millis(500)
    }
}

fn event(message: Message) -> Option<Event> {
    let body = match serde_json::from_str::<Notification>(&message.body) {
        Ok(notification) => notification.message,
        Err(_) => message.body,
    };
    from_json(body).ok()
}

/// Scheme, host and port of a URL.
fn origin(url: &str) -> &str {
    let host = url.find("://").map_or(0, |at| at + 3);
    match url[host..].find('/') {
        Some(end) => &url[..host + end],
        None => url,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_all_before_the_path() {
        for url in ["http://127.0.0.1:5000/1/events", "http://127.0.0.1:5000"] {
            assert_eq!(origin(url), "http://127.0.0.1:5000");
        }
    }

    #[test]
    fn what_a_topic_sends_is_taken_out_of_its_envelope() {
        let json = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t"}"#;
        let envelope = serde_json::json!({ "Type": "Notification", "Message": json });
        for body in [json.to_owned(), envelope.to_string()] {
            let receipt = String::new();
            assert_eq!(event(Message { body, receipt }).unwrap().id(), "1");
        }
    }
}
