//! A real Apache Kafka broker, in KRaft mode, and what is in its topics.
//!
//! It is controller and broker in one process. `cargo xtask servers` installs it.

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

use crate::redis_server::{free_port, pid};
use crate::{components, skip, wait_for};

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

#[derive(Clone, Copy)]
struct Ports {
    plain: u16,
    sasl: u16,
    only_plain: u16,
    controller: u16,
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
        if !is_installed() {
            skip::skip_because("Apache Kafka and Java not found (cargo xtask servers)");
            return None;
        }
        let ports = Ports {
            plain: free_port(),
            sasl: free_port(),
            only_plain: free_port(),
            controller: free_port(),
        };
        let address = format!("127.0.0.1:{}", ports.plain);
        let advertised = Some(advertised(&address)).filter(|advertised| !advertised.is_empty());
        let folder = TempDir::with_prefix("backhaul-kafka").expect("a temporary folder");
        let data = folder.path().join("data").display().to_string();
        let properties = properties(ports, &advertised.unwrap_or(address), &data);
        fs::write(folder.path().join("server.properties"), properties).expect("its settings");
        let mut server = KafkaServer {
            process: None,
            ports,
            folder,
            runtime: Runtime::new().expect("a runtime"),
        };
        server.format();
        server.start_again();
        Some(server)
    }

    fn format(&self) {
        let mut format = self.java("kafka.tools.StorageTool");
        format.args([
            "format",
            "--cluster-id",
            "AAAAAAAAAAAAAAAAAAAAAQ",
            "--config",
        ]);
        format.arg(self.folder.path().join("server.properties"));
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
            .arg(self.folder.path().join("server.properties"))
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
        let create = async |client: Client| {
            let controller = client.controller_client()?;
            controller.create_topic(topic, partitions, 1, 10_000).await
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

fn properties(ports: Ports, advertised: &str, data: &str) -> String {
    let Ports {
        plain,
        sasl,
        only_plain,
        controller,
    } = ports;
    format!(
        "process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:{controller}
controller.listener.names=CONTROLLER
inter.broker.listener.name=PLAINTEXT
listeners=PLAINTEXT://127.0.0.1:{plain},SASL_PLAINTEXT://127.0.0.1:{sasl},ONLY://127.0.0.1:{only_plain},CONTROLLER://127.0.0.1:{controller}
advertised.listeners=PLAINTEXT://{advertised},SASL_PLAINTEXT://127.0.0.1:{sasl},ONLY://127.0.0.1:{only_plain}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT,ONLY:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.only.sasl.enabled.mechanisms=PLAIN
listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ada=\"right\" user_bob=\"right\";
listener.name.only.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_ada=\"right\";
listener.name.sasl_plaintext.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl_plaintext.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:ANONYMOUS;User:ada
auto.create.topics.enable=false
message.max.bytes=2000000
log.dirs={data}
num.network.threads=2
num.io.threads=2
offsets.topic.replication.factor=1
share.coordinator.state.topic.replication.factor=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
"
    )
}
