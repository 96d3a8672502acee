//! Reads all partitions of a topic of Kafka, with `rskafka`. Configured by the
//! variables of `kafka`.

use std::collections::BTreeMap;
use std::sync::Arc;

use rskafka::client::partition::{OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder, Credentials, SaslConfig};
use rskafka::record::Record;
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{PATIENCE, Reader, ReaderError, Setup, from_attributes, from_json};
use crate::event::Event;

/// How many bytes are fetched at a time.
const BYTES: std::ops::Range<i32> = 1..8 << 20;

/// How long the server waits for records there may be, in milliseconds.
const WAIT: i32 = 10;

pub(super) struct Kafka {
    runtime: Handle,
    partitions: Vec<Partition>,
    place: String,
}

struct Partition {
    client: PartitionClient,
    /// What is read next.
    offset: i64,
}

impl Kafka {
    pub(super) fn open(setup: &Setup<'_>) -> Result<Kafka, ReaderError> {
        let brokers = setup.variable_or("KAFKA_BROKERS", "127.0.0.1:9092");
        let topic = setup.filled("KAFKA_TOPIC", "events")?;
        let place = format!("the topic {topic} of Kafka at {brokers}");
        let runtime = Handle::current();
        let login = login(setup)?;
        let brokers: Vec<String> = brokers.split(',').map(with_port).collect();
        let tls = tls(setup, &brokers)?;
        let opened = async {
            let mut builder = ClientBuilder::new(brokers);
            if let Some(config) = tls {
                builder = builder.tls_config(config);
            }
            if let Some(login) = login {
                builder = builder.sasl_config(login);
            }
            let client = builder.build().await.map_err(|error| error.to_string())?;
            partitions(&client, &topic).await
        };
        let opened = runtime.block_on(timeout(PATIENCE, opened));
        let opened = opened.unwrap_or_else(|_| Err("it does not answer".to_owned()));
        Ok(Kafka {
            partitions: opened.map_err(|error| ReaderError::at("read", &place, error))?,
            runtime,
            place,
        })
    }
}

/// What is spoken TLS with, if the brokers are granted so. The client has one way for all.
fn tls(setup: &Setup<'_>, brokers: &[String]) -> Result<Option<Arc<ClientConfig>>, ReaderError> {
    let mut configs = Vec::new();
    for broker in brokers {
        let (host, port) = broker.rsplit_once(':').unwrap_or((broker, ""));
        configs.push(setup.tls(host, port.parse().unwrap_or(0))?);
    }
    if configs.iter().any(Option::is_some) && configs.iter().any(Option::is_none) {
        let problem = "KAFKA_BROKERS has brokers that are granted by TLS and others that are not; \
                       name those of one kind in the profile: [settings], KAFKA_BROKERS = \"...\"";
        return Err(ReaderError(problem.to_owned()));
    }
    Ok(configs.into_iter().flatten().next())
}

async fn partitions(client: &Client, topic: &str) -> Result<Vec<Partition>, String> {
    let topics = client
        .list_topics()
        .await
        .map_err(|error| error.to_string())?;
    let found = topics.into_iter().find(|found| found.name == topic);
    let found = found.ok_or_else(|| "there is no such topic; create it first".to_owned())?;
    let mut partitions = Vec::new();
    for partition in found.partitions {
        let opened = async {
            let handling = UnknownTopicHandling::Retry;
            let client = client.partition_client(topic, partition, handling).await?;
            let offset = client.get_offset(OffsetAt::Latest).await?;
            Ok::<_, rskafka::client::error::Error>(Partition { client, offset })
        };
        partitions.push(opened.await.map_err(|error| error.to_string())?);
    }
    Ok(partitions)
}

fn with_port(broker: &str) -> String {
    let broker = broker.trim();
    let bare = broker.rsplit(']').next().unwrap_or_default();
    match bare.contains(':') {
        true => broker.to_owned(),
        false => format!("{broker}:9092"),
    }
}

fn login(setup: &Setup<'_>) -> Result<Option<SaslConfig>, ReaderError> {
    let variable = |name: &str| setup.variable_or(name, "").to_owned();
    let credentials = || Credentials::new(variable("KAFKA_USER"), variable("KAFKA_PASSWORD"));
    match setup.variable("KAFKA_SASL") {
        None | Some("") => Ok(None),
        Some("PLAIN") => Ok(Some(SaslConfig::Plain(credentials()))),
        Some("SCRAM-SHA-256") => Ok(Some(SaslConfig::ScramSha256(credentials()))),
        Some("SCRAM-SHA-512") => Ok(Some(SaslConfig::ScramSha512(credentials()))),
        Some(other) => Err(ReaderError(format!(
            "KAFKA_SASL is {other:?}, which is not known here"
        ))),
    }
}

impl Reader for Kafka {
    fn read(&mut self) -> Result<Vec<Event>, ReaderError> {
        let mut events = Vec::new();
        for partition in &mut self.partitions {
            let fetch = partition
                .client
                .fetch_records(partition.offset, BYTES, WAIT);
            // A time limit needs the runtime to begin in.
            let fetched = self
                .runtime
                .block_on(async { timeout(PATIENCE, fetch).await });
            let fetched = fetched.map_err(|_| "it does not answer".to_owned());
            let fetched = fetched.and_then(|fetched| fetched.map_err(|error| error.to_string()));
            let (records, _) =
                fetched.map_err(|error| ReaderError::at("read", &self.place, error))?;
            for found in records {
                partition.offset = found.offset + 1;
                events.extend(event(found.record));
            }
        }
        Ok(events)
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn quiet(&self) -> std::time::Duration {
        std::time::Duration::from_millis(200)
    }
}

/// The event of a record, in either content mode.
fn event(record: Record) -> Option<Event> {
    let data = record.value.unwrap_or_default();
    let mut headers: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in record.headers {
        headers.insert(name.to_ascii_lowercase(), String::from_utf8(value).ok()?);
    }
    let content_type = headers.remove("content-type");
    if content_type
        .as_deref()
        .is_some_and(|text| text.starts_with("application/cloudevents"))
    {
        return from_json(data).ok();
    }
    let attributes = headers
        .into_iter()
        .filter_map(|(name, value)| Some((name.strip_prefix("ce_")?.to_owned(), value)));
    from_attributes(attributes, content_type, data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_has_a_port() {
        for (broker, expected) in [
            ("kafka.internal", "kafka.internal:9092"),
            (" 10.0.0.7:1 ", "10.0.0.7:1"),
            ("[::1]", "[::1]:9092"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(with_port(broker), expected);
        }
    }
}
