//! A real Apache Kafka broker, in KRaft mode, and what is in its topics.
//!
//! It is controller and broker in one process, or one of a pair of brokers. `cargo xtask
//! servers` installs it.

mod cluster;
mod properties;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use rskafka::BackoffConfig;
use rskafka::client::partition::{OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::pid;
use crate::{components, wait_for};

pub use properties::TlsListener;
use properties::{Ports, Properties};

/// How long a broker may take to start. It has many threads and two cores.
const START: Duration = Duration::from_secs(120);

/// A broker with a folder of its own. Its topics survive [`stop`](Self::stop),
/// [`kill`](Self::kill) and [`start_again`](Self::start_again).
///
/// There is a user `ada`, with the password `right` (of SCRAM and PLAIN), who may do
/// everything, and a user `bob` with the same who may do nothing. Topics are not created
/// by themselves.
pub struct KafkaServer {
    process: Option<Child>,
    ports: Ports,
    folder: TempDir,
    runtime: Runtime,
}

/// A record of a topic.
#[derive(Clone, Debug)]
pub struct Message {
    /// The partition it is in.
    pub partition: i32,
    /// Its key.
    pub key: Option<Vec<u8>>,
    /// Its value; `None` is Kafka's null.
    pub value: Option<Vec<u8>>,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
}

impl Message {
    /// The header `ce_id`.
    pub fn id(&self) -> &str {
        &self.headers["ce_id"]
    }
}

impl KafkaServer {
    /// A broker that all tests of this process share while one of them holds it;
    /// `None`, and the test is skipped, if this machine has none.
    pub fn shared() -> Option<Arc<KafkaServer>> {
        static SHARED: Mutex<Weak<KafkaServer>> = Mutex::new(Weak::new());
        // A test that failed while it started one is no reason to fail the others.
        let mut shared = SHARED
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(KafkaServer::start()?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// A broker of one's own.
    pub fn start() -> Option<KafkaServer> {
        KafkaServer::with(|_| String::new())
    }

    /// A broker of one's own; `advertised` gets the `HOST:PORT` it listens at without a
    /// login, and gives the one it says it is reached at, unless it is empty.
    pub fn with(advertised: impl FnOnce(&str) -> String) -> Option<KafkaServer> {
        let mut properties = Properties::new()?;
        let advertised = advertised(&properties.advertised);
        if !advertised.is_empty() {
            properties.advertised = advertised;
        }
        Some(KafkaServer::of(properties))
    }

    /// A broker of one's own that listens for TLS as well. There its name is
    /// `localhost`.
    pub fn with_tls(listeners: Vec<TlsListener>) -> Option<KafkaServer> {
        let mut properties = Properties::new()?;
        properties.tls = listeners;
        Some(KafkaServer::of(properties))
    }

    fn of(properties: Properties) -> KafkaServer {
        let folder = TempDir::with_prefix("backhaul-kafka").expect("a temporary folder");
        properties.write(folder.path());
        let mut server = KafkaServer {
            process: None,
            ports: properties.ports,
            folder,
            runtime: Runtime::new().expect("a runtime"),
        };
        server.format();
        server.start_again();
        server
    }

    fn format(&self) {
        let mut format = self.java("kafka.tools.StorageTool");
        format.args([
            "format",
            "--cluster-id",
            "AAAAAAAAAAAAAAAAAAAAAQ",
            "--config",
        ]);
        format.arg(self.folder.path().join(properties::FILE));
        for user in ["ada", "bob"] {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                let user = format!("{mechanism}=[name={user},password=right]");
                format.args(["--add-scram", &user]);
            }
        }
        let output = format.output().expect("java starts");
        assert!(output.status.success(), "{output:?}");
    }

    /// A command that runs a class of Kafka's.
    fn java(&self, class: &str) -> Command {
        let mut java = Command::new("java");
        java.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(installed().join("*"))
            .arg(class)
            .stdin(Stdio::null());
        java
    }

    /// Starts the stopped broker again, on the same ports with the same data.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the broker runs");
        let output = fs::File::create(self.folder.path().join("output")).expect("a file");
        let process = self
            .java("kafka.Kafka")
            .arg(self.folder.path().join(properties::FILE))
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .expect("java starts");
        self.process = Some(process);
        let deadline = Instant::now() + START;
        while !self.answers() {
            let process = self.process.as_mut().expect("it was put there");
            let ended = process.try_wait().expect("its state");
            assert!(ended.is_none(), "Kafka ended: {}", self.output());
            assert!(
                Instant::now() < deadline,
                "Kafka does not answer: {}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the broker for now; its ports refuse connections afterwards.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = kill_process(pid(&process), Signal::TERM);
            process.wait().expect("Kafka ends");
        }
    }

    /// Ends the broker at once, as a crash does. What it has acknowledged it has handed
    /// to the system.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("Kafka gets SIGKILL");
            process.wait().expect("Kafka ends");
        }
    }

    /// `HOST:PORT` for clients that do not log in.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.plain)
    }

    /// `HOST:PORT` where one logs in, with any mechanism.
    pub fn sasl_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.sasl)
    }

    /// `HOST:PORT` where one logs in with PLAIN.
    pub fn only_plain_address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.only_plain)
    }

    /// What it has complained of.
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// Creates a topic, and waits until it has leaders.
    pub fn create_topic(&self, topic: &str, partitions: i32) {
        self.create_topic_with(topic, partitions, 1);
    }

    /// The same, with each partition on so many brokers.
    pub fn create_topic_with(&self, topic: &str, partitions: i32, replicas: i16) {
        let create = async |client: Client| {
            let controller = client.controller_client()?;
            let created = controller.create_topic(topic, partitions, replicas, 10_000);
            created.await
        };
        self.with_client(create).expect("the topic is created");
        wait_for("the leaders of the topic", || {
            let counted = |partition| self.count_of(topic, partition);
            (0..partitions).all(|p| counted(p).is_some()).then_some(())
        });
    }

    /// How many records a topic has.
    pub fn count(&self, topic: &str) -> usize {
        let partitions = self.partitions(topic);
        partitions
            .into_iter()
            .map(|partition| self.count_of(topic, partition).expect("the partition"))
            .sum()
    }

    /// What a topic has, partition by partition, oldest first.
    pub fn messages(&self, topic: &str) -> Vec<Message> {
        let partitions = self.partitions(topic);
        partitions
            .into_iter()
            .flat_map(|partition| self.messages_of(topic, partition))
            .collect()
    }

    /// The header `ce_id` of what a topic has, in the same order.
    pub fn ids(&self, topic: &str) -> Vec<String> {
        let messages = self.messages(topic);
        messages.iter().map(|m| m.id().to_owned()).collect()
    }

    fn partitions(&self, topic: &str) -> Vec<i32> {
        let topics = self.with_client(async |client| client.list_topics().await);
        let topics = topics.expect("the topics");
        let topic = topics.into_iter().find(|found| found.name == topic);
        topic.map_or_else(Vec::new, |t| t.partitions.into_iter().collect())
    }

    fn count_of(&self, topic: &str, partition: i32) -> Option<usize> {
        let count = self.with_partition(topic, partition, async |client| {
            client.get_offset(OffsetAt::Latest).await
        });
        usize::try_from(count.ok()?).ok()
    }

    fn messages_of(&self, topic: &str, partition: i32) -> Vec<Message> {
        let read = async |client: PartitionClient| {
            let mut messages = Vec::new();
            let mut offset = 0;
            let end = client.get_offset(OffsetAt::Latest).await?;
            while offset < end {
                let (records, _) = client.fetch_records(offset, 1..4_000_000, 1_000).await?;
                for found in records {
                    offset = found.offset + 1;
                    let headers = found.record.headers.into_iter();
                    let text = |(name, value)| (name, String::from_utf8(value).expect("text"));
                    messages.push(Message {
                        partition,
                        key: found.record.key,
                        value: found.record.value,
                        headers: headers.map(text).collect(),
                        timestamp: found.record.timestamp.timestamp_millis(),
                    });
                }
            }
            Ok(messages)
        };
        self.with_partition(topic, partition, read)
            .expect("the records")
    }

    fn with_partition<T>(
        &self,
        topic: &str,
        partition: i32,
        work: impl AsyncFnOnce(PartitionClient) -> rskafka::client::error::Result<T>,
    ) -> rskafka::client::error::Result<T> {
        self.with_client(async |client| {
            let handling = UnknownTopicHandling::Error;
            work(client.partition_client(topic, partition, handling).await?).await
        })
    }

    fn with_client<T>(
        &self,
        work: impl AsyncFnOnce(Client) -> rskafka::client::error::Result<T>,
    ) -> rskafka::client::error::Result<T> {
        // The client would try for ever.
        let backoff = BackoffConfig {
            deadline: Some(Duration::from_secs(10)),
            ..BackoffConfig::default()
        };
        self.runtime.block_on(async {
            let client = ClientBuilder::new(vec![self.address()]).backoff_config(backoff);
            work(client.build().await?).await
        })
    }

    /// Whether it takes requests.
    fn answers(&self) -> bool {
        if std::net::TcpStream::connect(self.address()).is_err() {
            return false;
        }
        self.with_client(async |client| client.list_topics().await)
            .is_ok()
    }
}

impl Drop for KafkaServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

fn installed() -> PathBuf {
    components::target().join("servers/kafka")
}

fn is_installed() -> bool {
    let java = Command::new("java")
        .arg("-version")
        .stderr(Stdio::null())
        .status();
    java.is_ok() && installed().join("pom.xml").is_file()
}
