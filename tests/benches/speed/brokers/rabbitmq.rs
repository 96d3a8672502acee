//! RabbitMQ: persistent messages to a durable queue, with confirms.

use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use async_trait::async_trait;
use backhaul::Event;
use backhaul::wasm::Grants;
use backhaul_tests::rabbitmq_server::RabbitMqServer;
use lapin::options::{
    BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueuePurgeOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, ConnectionProperties, ExchangeKind};

use super::{Broker, Client, Server, tcp, tool_jars};

const EXCHANGE: &str = "backhaul";
const QUEUE: &str = "events";

pub(super) struct RabbitMq {
    server: Server<RabbitMqServer>,
    /// For all that is not measured.
    channel: Channel,
}

#[async_trait]
impl Broker for RabbitMq {
    const NAME: &str = "rabbitmq";
    const PLUGIN: &str = "rabbitmq";
    const CLIENT: &str = "lapin, all published, then all confirms awaited";
    const EVENTS: usize = 51_200;

    async fn start() -> anyhow::Result<Option<RabbitMq>> {
        let start = || {
            let server = RabbitMqServer::with("")?;
            server.declare_exchange(EXCHANGE, ExchangeKind::Topic);
            server.bind(QUEUE, EXCHANGE, "#");
            Some(server)
        };
        let Some(server) = Server::start(start).await? else {
            return Ok(None);
        };
        let channel = channel(&server).await?;
        Ok(Some(RabbitMq { server, channel }))
    }

    fn grants(&self) -> anyhow::Result<Grants> {
        tcp(&self.server.address())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("RABBITMQ_URL", self.server.url())]
    }

    async fn empty(&self) -> anyhow::Result<()> {
        let options = QueuePurgeOptions::default();
        self.channel.queue_purge(QUEUE.into(), options).await?;
        Ok(())
    }

    async fn len(&self) -> anyhow::Result<usize> {
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let queue = self
            .channel
            .queue_declare(QUEUE.into(), options, FieldTable::default());
        Ok(queue.await?.message_count() as usize)
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Client>> {
        let channel = channel(&self.server).await?;
        channel
            .confirm_select(ConfirmSelectOptions::default())
            .await?;
        Ok(Box::new(Publisher(channel)))
    }

    fn tool(&self) -> Option<&'static str> {
        tool().map(|_| "RabbitMQ's PerfTest, persistent, 256 unconfirmed at most")
    }

    fn run_tool(&self, events: usize) -> anyhow::Result<f64> {
        let output = Command::new("java")
            .arg("-cp")
            .arg(tool().context("its jars")?)
            .arg("com.rabbitmq.perf.PerfTest")
            .args([
                "--uri",
                &self.server.url(),
                "--producers",
                "1",
                "--consumers",
                "0",
            ])
            .args([
                "--predeclared",
                "--exchange",
                EXCHANGE,
                "--routing-key",
                "after:signup",
            ])
            .args([
                "--flag",
                "persistent",
                "--flag",
                "mandatory",
                "--confirm",
                "256",
            ])
            .args(["--size", "256", "--pmessages", &events.to_string()])
            .output()
            .context("java")?;
        let text = String::from_utf8(output.stdout)?;
        let rate = text.split("sending rate avg: ").nth(1);
        let rate = rate.and_then(|rest| rest.split(' ').next());
        Ok(rate
            .with_context(|| format!("no rate in {text}"))?
            .parse()?)
    }
}

/// The jars of RabbitMQ's own benchmark.
fn tool() -> Option<PathBuf> {
    tool_jars("rabbitmq-perf-test")
}

/// Its connection lives as long.
async fn channel(server: &RabbitMqServer) -> anyhow::Result<Channel> {
    let properties = ConnectionProperties::default();
    let connection = lapin::Connection::connect(&server.url(), properties).await?;
    Ok(connection.create_channel().await?)
}

struct Publisher(Channel);

#[async_trait]
impl Client for Publisher {
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let options = BasicPublishOptions {
            mandatory: true,
            ..BasicPublishOptions::default()
        };
        let mut confirms = Vec::with_capacity(events.len());
        for event in events {
            let (key, properties) = (event.event_type().into(), properties(event)?);
            let publish =
                self.0
                    .basic_publish(EXCHANGE.into(), key, options, event.data(), properties);
            confirms.push(publish.await?);
        }
        for confirm in confirms {
            let confirmation = confirm.await?;
            let taken = matches!(confirmation, Confirmation::Ack(None));
            anyhow::ensure!(taken, "not taken: {confirmation:?}");
        }
        Ok(())
    }
}

/// The same as the plugin's.
fn properties(event: &Event) -> anyhow::Result<BasicProperties> {
    let time = event.time().to_string();
    let headers = [
        ("specversion", "1.0"),
        ("id", event.id()),
        ("source", event.source()),
        ("type", event.event_type()),
        ("time", &time),
    ];
    let mut table = FieldTable::default();
    for (name, value) in headers {
        let name = format!("cloudEvents:{name}");
        table.insert(name.into(), AMQPValue::LongString(value.into()));
    }
    Ok(BasicProperties::default()
        .with_headers(table)
        .with_delivery_mode(2)
        .with_content_type(event.content_type().context("a content type")?.into())
        .with_message_id(event.id().into())
        .with_type(event.event_type().into())
        .with_timestamp(u64::try_from(event.time().as_second())?))
}
