//! Kafka: one produce request per batch to a topic of one partition, acknowledged by
//! all replicas.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::Context;
use async_trait::async_trait;
use backhaul::Event;
use backhaul::wasm::Grants;
use backhaul_tests::kafka_server::KafkaServer;
use rskafka::chrono::DateTime;
use rskafka::client::ClientBuilder;
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::record::Record;

use super::{Broker, Client, Server, tcp, tool_jars};

const TOPIC: &str = "events";

pub(super) struct Kafka {
    server: Server<KafkaServer>,
    partition: PartitionClient,
    /// Where the events of a round begin.
    begin: AtomicUsize,
}

impl Kafka {
    async fn end(&self) -> anyhow::Result<usize> {
        let end = self.partition.get_offset(OffsetAt::Latest).await?;
        Ok(usize::try_from(end)?)
    }
}

#[async_trait]
impl Broker for Kafka {
    const NAME: &str = "kafka";
    const PLUGIN: &str = "kafka";
    const CLIENT: &str = "rskafka, a request with acks=all";
    const EVENTS: usize = 128_000;

    async fn start() -> anyhow::Result<Option<Kafka>> {
        let start = || {
            let server = KafkaServer::start()?;
            server.create_topic(TOPIC, 1);
            Some(server)
        };
        let Some(server) = Server::start(start).await? else {
            return Ok(None);
        };
        let partition = partition(&server).await?;
        Ok(Some(Kafka {
            server,
            partition,
            begin: AtomicUsize::new(0),
        }))
    }

    fn grants(&self) -> anyhow::Result<Grants> {
        tcp(&self.server.address())
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("KAFKA_BROKERS", self.server.address())]
    }

    async fn empty(&self) -> anyhow::Result<()> {
        self.begin.store(self.end().await?, Ordering::Relaxed);
        Ok(())
    }

    async fn len(&self) -> anyhow::Result<usize> {
        Ok(self.end().await? - self.begin.load(Ordering::Relaxed))
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Client>> {
        Ok(Box::new(Publisher(partition(&self.server).await?)))
    }

    fn tool(&self) -> Option<&'static str> {
        tool().map(|_| "kafka-producer-perf-test, acks=all, batches of 64 KiB")
    }

    fn run_tool(&self, events: usize) -> anyhow::Result<f64> {
        // It counts the time its virtual machine takes to warm up.
        let records = (4 * events).to_string();
        let output = Command::new("java")
            .arg("-cp")
            .arg(tool().context("its jars")?)
            .arg("org.apache.kafka.tools.ProducerPerformance")
            .args(["--topic", TOPIC, "--num-records", &records])
            .args(["--record-size", "256", "--throughput", "-1"])
            .args([
                "--command-property",
                "acks=all",
                "batch.size=65536",
                "linger.ms=5",
            ])
            .arg(format!("bootstrap.servers={}", self.server.address()))
            .output()
            .context("java")?;
        let text = String::from_utf8(output.stdout)?;
        let line = text.lines().rfind(|line| line.contains("99.9th"));
        let rate = line.and_then(|line| line.split(", ").nth(1)?.split(' ').next());
        Ok(rate
            .with_context(|| format!("no rate in {text}"))?
            .parse()?)
    }
}

async fn partition(server: &KafkaServer) -> anyhow::Result<PartitionClient> {
    let client = ClientBuilder::new(vec![server.address()]).build().await?;
    let partition = client.partition_client(TOPIC, 0, UnknownTopicHandling::Retry);
    Ok(partition.await?)
}

/// The jars of Kafka's own benchmark.
fn tool() -> Option<PathBuf> {
    tool_jars("kafka-perf-test")
}

struct Publisher(PartitionClient);

#[async_trait]
impl Client for Publisher {
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let records = events.iter().map(record).collect::<anyhow::Result<_>>()?;
        self.0.produce(records, Compression::NoCompression).await?;
        Ok(())
    }
}

/// The same as the plugin's.
fn record(event: &Event) -> anyhow::Result<Record> {
    let time = event.time().to_string();
    let headers = [
        ("ce_specversion", Some("1.0")),
        ("ce_id", Some(event.id())),
        ("ce_source", Some(event.source())),
        ("ce_type", Some(event.event_type())),
        ("ce_time", Some(&time)),
        ("content-type", event.content_type()),
    ];
    let headers = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.into())));
    let timestamp = DateTime::from_timestamp_millis(event.time().as_millisecond());
    Ok(Record {
        key: None,
        value: Some(event.data().to_vec()),
        headers: headers.collect(),
        timestamp: timestamp.context("a time")?,
    })
}
