//! NATS JetStream: messages to a stream on disk, each acknowledged.

use async_nats::HeaderMap;
use async_nats::jetstream::{self, Context};
use async_trait::async_trait;
use backhaul::Event;
use backhaul::wasm::Grants;
use backhaul_tests::nats_server::NatsServer;
use serde_json::json;

use super::{Broker, Client, tcp};

const STREAM: &str = "events";

pub(super) struct Nats(NatsServer);

#[async_trait]
impl Broker for Nats {
    const NAME: &str = "nats";
    const PLUGIN: &str = "nats-jetstream";
    const CLIENT: &str = "async-nats, all published, then all acknowledgements awaited";
    const EVENTS: usize = 102_400;

    async fn start() -> anyhow::Result<Option<Nats>> {
        let Some(server) = NatsServer::start() else {
            return Ok(None);
        };
        server.create_stream(STREAM, &["events.>"], &json!({}));
        Ok(Some(Nats(server)))
    }

    fn grants(&self) -> anyhow::Result<Grants> {
        tcp(&self.0.address())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("NATS_URL", format!("nats://{}", self.0.address()))]
    }

    async fn empty(&self) -> anyhow::Result<()> {
        self.0.purge(STREAM);
        Ok(())
    }

    async fn len(&self) -> anyhow::Result<usize> {
        Ok(self.0.len(STREAM))
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Client>> {
        let client = async_nats::connect(self.0.address()).await?;
        Ok(Box::new(Publisher(jetstream::new(client))))
    }
}

struct Publisher(Context);

#[async_trait]
impl Client for Publisher {
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let mut acks = Vec::with_capacity(events.len());
        for event in events {
            let subject = format!("events.{}", event.event_type());
            let (headers, data) = (headers(event), event.data().clone());
            let publish = self.0.publish_with_headers(subject, headers, data);
            acks.push(publish.await?);
        }
        for ack in acks {
            ack.await?;
        }
        Ok(())
    }
}

/// The same as the plugin's.
fn headers(event: &Event) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let msg_id = format!("{}%0A{}", event.source(), event.id());
    headers.insert("Nats-Msg-Id", msg_id);
    headers.insert("ce-specversion", "1.0");
    headers.insert("ce-id", event.id());
    headers.insert("ce-source", event.source());
    headers.insert("ce-type", event.event_type());
    headers.insert("ce-time", event.time().to_string());
    if let Some(content_type) = event.content_type() {
        headers.insert("ce-datacontenttype", content_type);
    }
    headers
}
