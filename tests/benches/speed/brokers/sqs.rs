//! SQS, as moto does it: ten messages a call.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use backhaul::Event;
use backhaul::wasm::Grants;
use backhaul_tests::moto_server::{MotoServer, REGION};
use serde_json::json;

use super::{Broker, Client, agent, http};

/// A queue of a server that is slow beside the others: it is written in Python.
pub(super) struct Sqs {
    server: &'static MotoServer,
    queue: String,
    /// How many messages were there when the round began: a queue is emptied once a
    /// minute at most.
    before: AtomicUsize,
}

impl Sqs {
    fn messages(&self) -> usize {
        tokio::task::block_in_place(|| self.server.len(&self.queue))
    }
}

#[async_trait]
impl Broker for Sqs {
    const NAME: &str = "sqs";
    const PLUGIN: &str = "sqs";
    const CLIENT: &str = "ureq, calls of 10 one after the other, not signed";
    const EVENTS: usize = 5_120;

    async fn start() -> anyhow::Result<Option<Sqs>> {
        let start = || {
            let server = MotoServer::shared()?;
            let queue = server.create_queue("events", &json!({}));
            Some(Sqs {
                server,
                queue,
                before: AtomicUsize::new(0),
            })
        };
        Ok(tokio::task::spawn_blocking(start).await?)
    }

    fn grants(&self) -> anyhow::Result<Grants> {
        http(&self.server.origin())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![
            ("SQS_QUEUE_URL", self.queue.clone()),
            ("AWS_ENDPOINT_URL", self.server.origin()),
            ("AWS_REGION", REGION.to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "moto-takes-any".to_owned()),
        ]
    }

    async fn empty(&self) -> anyhow::Result<()> {
        self.before.store(self.messages(), Ordering::Relaxed);
        Ok(())
    }

    async fn len(&self) -> anyhow::Result<usize> {
        Ok(self.messages() - self.before.load(Ordering::Relaxed))
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(Sender {
            agent: agent(),
            origin: self.server.origin(),
            queue: self.queue.clone(),
        }))
    }
}

struct Sender {
    agent: ureq::Agent,
    origin: String,
    queue: String,
}

#[async_trait]
impl Client for Sender {
    /// Blocks its thread; nothing else is to be done meanwhile.
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()> {
        for call in events.chunks(10) {
            let entries: Vec<_> = call.iter().enumerate().map(entry).collect();
            let body = json!({ "QueueUrl": self.queue, "Entries": entries });
            let authorization = format!(
                "AWS4-HMAC-SHA256 Credential=test/20260101/{REGION}/sqs/aws4_request, \
                 SignedHeaders=host, Signature=0"
            );
            let request = self
                .agent
                .post(&self.origin)
                .header("content-type", "application/x-amz-json-1.0")
                .header("x-amz-target", "AmazonSQS.SendMessageBatch")
                .header("authorization", authorization);
            request
                .send(body.to_string())?
                .body_mut()
                .read_to_string()?;
        }
        Ok(())
    }
}

/// The same message as the plugin's.
fn entry((number, event): (usize, &Event)) -> serde_json::Value {
    let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
    let data: serde_json::Value = serde_json::from_slice(event.data()).unwrap_or_default();
    let body = json!({
        "specversion": "1.0", "id": event.id(), "source": event.source(),
        "type": event.event_type(), "time": event.time().to_string(),
        "datacontenttype": event.content_type(), "data": data,
    });
    json!({
        "Id": number.to_string(),
        "MessageBody": body.to_string(),
        "MessageAttributes": {
            "content-type": text("application/cloudevents+json"),
            "ce-id": text(event.id()),
            "ce-source": text(event.source()),
            "ce-type": text(event.event_type()),
        },
    })
}
