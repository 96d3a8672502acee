//! A real RabbitMQ server, and what arrived in its queues.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use lapin::options::{
    BasicAckOptions, BasicGetOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ConnectionProperties, ExchangeKind};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::process::{free_port, pid};
use crate::{skip, wait_for};

/// The server itself. The command in the path does no more than change the user.
const SERVER: &str = "/usr/lib/rabbitmq/bin/rabbitmq-server";

/// A `rabbitmq-server` with a folder of its own, and the name service it needs.
/// What is durable survives [`stop`](Self::stop) and [`start_again`](Self::start_again).
pub struct RabbitMqServer {
    process: Option<Child>,
    /// Erlang's name service, on a port of its own.
    names: Child,
    ports: Ports,
    folder: TempDir,
    runtime: Runtime,
}

struct Ports {
    amqp: u16,
    names: u16,
    distribution: u16,
}

/// A message as it lay in a queue.
#[derive(Debug, Clone, Default)]
pub struct Message {
    /// What it was routed by.
    pub routing_key: String,
    /// The headers that hold text.
    pub headers: BTreeMap<String, String>,
    /// The property `content-type`.
    pub content_type: Option<String>,
    /// The property `message-id`.
    pub id: Option<String>,
    /// The property `type`.
    pub kind: Option<String>,
    /// The property `timestamp`, in seconds.
    pub timestamp: Option<u64>,
    /// Whether the server writes it to disk.
    pub persistent: bool,
    /// The body.
    pub data: Vec<u8>,
}

impl RabbitMqServer {
    /// A server that all tests of this process share while one of them holds it;
    /// `None`, and the test is skipped, if this machine has none.
    pub fn shared() -> Option<Arc<RabbitMqServer>> {
        static SHARED: Mutex<Weak<RabbitMqServer>> = Mutex::new(Weak::new());
        // A test that failed while it started one is no reason to fail the others.
        let mut shared = SHARED
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(server) = shared.upgrade() {
            return Some(server);
        }
        let server = Arc::new(RabbitMqServer::with("")?);
        *shared = Arc::downgrade(&server);
        Some(server)
    }

    /// A server of one's own that speaks TLS on `port` as well, with a certificate and its
    /// key; further lines of its configuration file.
    pub fn with_tls(
        port: u16,
        (certificate, key): (PathBuf, PathBuf),
        configuration: &str,
    ) -> Option<RabbitMqServer> {
        RabbitMqServer::with(&format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\n{configuration}",
            certificate.display(),
            key.display(),
        ))
    }

    /// A server of one's own, with further lines of its configuration file.
    pub fn with(configuration: &str) -> Option<RabbitMqServer> {
        if !Path::new(SERVER).exists() {
            skip::skip("rabbitmq-server", "rabbitmq-server");
            return None;
        }
        let folder = TempDir::with_prefix("backhaul-rabbitmq").expect("a temporary folder");
        let ports = Ports {
            amqp: free_port(),
            names: free_port(),
            distribution: free_port(),
        };
        let configuration = format!(
            "listeners.tcp.1 = 127.0.0.1:{}\nlog.console = true\nlog.console.level = warning\nlog.file = false\n\
             disk_free_limit.absolute = 1MB\n{configuration}\n",
            ports.amqp
        );
        fs::write(folder.path().join("rabbitmq.conf"), configuration).expect("rabbitmq.conf");
        fs::write(folder.path().join("enabled_plugins"), "[].").expect("enabled_plugins");
        let names = Command::new("epmd")
            .args(["-address", "127.0.0.1", "-port", &ports.names.to_string()])
            .stdout(Stdio::null())
            .spawn()
            .expect("epmd starts");
        let mut server = RabbitMqServer {
            process: None,
            names,
            ports,
            folder,
            runtime: Runtime::new().expect("a runtime"),
        };
        server.start_again();
        Some(server)
    }

    /// Starts the stopped server again, on the same port with the same data.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server runs");
        let folder = self.folder.path();
        let process = Command::new(SERVER)
            // Has the script become the server, which then gets our signals.
            .env("RUNNING_UNDER_SYSTEMD", "true")
            .env("HOME", folder)
            .env("RABBITMQ_NODENAME", format!("test{}@localhost", self.ports.amqp))
            .env("RABBITMQ_CONFIG_FILE", folder.join("rabbitmq.conf"))
            .env("RABBITMQ_ENABLED_PLUGINS_FILE", folder.join("enabled_plugins"))
            .env("RABBITMQ_MNESIA_BASE", folder.join("mnesia"))
            .env("RABBITMQ_LOG_BASE", folder.join("log"))
            .env("RABBITMQ_DIST_PORT", self.ports.distribution.to_string())
            .env("ERL_EPMD_PORT", self.ports.names.to_string())
            .env("ERL_EPMD_ADDRESS", "127.0.0.1")
            .env(
                "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS",
                "-kernel inet_dist_use_interface {127,0,0,1} +sbwt none +sbwtdcpu none +sbwtdio none",
            )
            .stdin(Stdio::null())
            .stdout(fs::File::create(folder.join("output")).expect("a file for its output"))
            .stderr(Stdio::null())
            .spawn()
            .expect("rabbitmq-server starts");
        self.process = Some(process);
        let deadline = Instant::now() + Duration::from_secs(90);
        while !self.answers() {
            let ended = self
                .process
                .as_mut()
                .and_then(|process| process.try_wait().expect("its state"));
            assert!(ended.is_none(), "rabbitmq-server ended: {}", self.output());
            assert!(
                Instant::now() < deadline,
                "rabbitmq-server does not answer: {}",
                self.output()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Stops the server for now; its port refuses connections afterwards.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = kill_process(pid(&process), Signal::TERM);
            process.wait().expect("rabbitmq-server ends");
        }
    }

    /// Ends the server at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("rabbitmq-server gets SIGKILL");
            process.wait().expect("rabbitmq-server ends");
        }
    }

    /// Has the server stand still: connections stay open and nothing answers.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen server go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// `HOST:PORT`
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.ports.amqp)
    }

    /// `amqp://HOST:PORT`, with which the user is `guest`.
    pub fn url(&self) -> String {
        format!("amqp://{}", self.address())
    }

    /// What it has written to its log.
    pub fn output(&self) -> String {
        fs::read_to_string(self.folder.path().join("output")).unwrap_or_default()
    }

    /// Creates a durable exchange if it is missing.
    pub fn declare_exchange(&self, exchange: &str, kind: ExchangeKind) {
        let options = ExchangeDeclareOptions {
            durable: true,
            ..ExchangeDeclareOptions::default()
        };
        let declare = async |channel: Channel| {
            channel
                .exchange_declare(exchange.into(), kind, options, FieldTable::default())
                .await
        };
        self.with_channel(declare).expect("exchange.declare");
    }

    /// Whether there is such an exchange.
    pub fn has_exchange(&self, exchange: &str) -> bool {
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let declare = async |channel: Channel| {
            channel
                .exchange_declare(
                    exchange.into(),
                    ExchangeKind::Topic,
                    options,
                    FieldTable::default(),
                )
                .await
        };
        self.with_channel(declare).is_ok()
    }

    /// Creates a durable queue, with the arguments RabbitMQ calls `x-NAME`.
    pub fn declare_queue(&self, queue: &str, arguments: &[(&str, AMQPValue)]) {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let mut table = FieldTable::default();
        for (name, value) in arguments {
            table.insert((*name).into(), value.clone());
        }
        let declare =
            async |channel: Channel| channel.queue_declare(queue.into(), options, table).await;
        self.with_channel(declare).expect("queue.declare");
    }

    /// Binds a queue to an exchange; creates the queue if it is missing.
    pub fn bind(&self, queue: &str, exchange: &str, key: &str) {
        self.declare_queue(queue, &[]);
        self.bind_existing(queue, exchange, key);
    }

    /// Binds a queue that is there, whatever its arguments.
    pub fn bind_existing(&self, queue: &str, exchange: &str, key: &str) {
        let bind = async |channel: Channel| {
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            channel
                .queue_bind(
                    queue.into(),
                    exchange.into(),
                    key.into(),
                    options,
                    arguments,
                )
                .await
        };
        self.with_channel(bind).expect("queue.bind");
    }

    /// Takes messages from a queue until `is_enough`; gives all of them, the
    /// oldest first.
    pub fn take_until(&self, queue: &str, is_enough: impl Fn(&[Message]) -> bool) -> Vec<Message> {
        let mut taken = Vec::new();
        wait_for(&format!("the messages in {queue}"), || {
            taken.append(&mut self.take(queue));
            is_enough(&taken).then_some(())
        });
        taken
    }

    /// Takes `count` messages from a queue, the oldest first.
    pub fn take_count(&self, queue: &str, count: usize) -> Vec<Message> {
        self.take_until(queue, |taken| taken.len() >= count)
    }

    /// Takes all that lies in a queue.
    pub fn take(&self, queue: &str) -> Vec<Message> {
        let take = async |channel: Channel| {
            let mut taken = Vec::new();
            while let Some(got) = channel
                .basic_get(queue.into(), BasicGetOptions::default())
                .await?
            {
                got.delivery.ack(BasicAckOptions::default()).await?;
                taken.push(message(got.delivery));
            }
            Ok(taken)
        };
        self.with_channel(take).expect("basic.get")
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        kill_process(pid(process), signal).expect("rabbitmq-server gets a signal");
    }

    /// Whether it lets a client in. One that is starting may take a connection and
    /// say nothing on it, ever.
    fn answers(&self) -> bool {
        let (url, properties) = (self.url(), ConnectionProperties::default());
        let connected = self.runtime.block_on(async {
            let connecting = Connection::connect(&url, properties);
            tokio::time::timeout(Duration::from_secs(5), connecting).await
        });
        matches!(connected, Ok(Ok(_)))
    }

    fn try_connect(&self) -> lapin::Result<Connection> {
        let (url, properties) = (self.url(), ConnectionProperties::default());
        let connected = self.runtime.block_on(async {
            let connecting = Connection::connect(&url, properties);
            tokio::time::timeout(crate::PATIENCE, connecting).await
        });
        connected.expect("rabbitmq-server answers")
    }

    fn with_channel<T>(
        &self,
        work: impl AsyncFnOnce(Channel) -> lapin::Result<T>,
    ) -> lapin::Result<T> {
        let connection = self.try_connect()?;
        self.runtime.block_on(async {
            // A channel that is dropped closes while the connection does.
            let channel = connection.create_channel().await?;
            let done = work(channel.clone()).await;
            let _ = connection.close(200, "done".into()).await;
            done
        })
    }
}

fn message(delivery: lapin::message::Delivery) -> Message {
    let properties = &delivery.properties;
    let text = |text: &Option<lapin::types::ShortString>| text.as_ref().map(ToString::to_string);
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    let headers = headers.filter_map(|(name, value)| match value {
        AMQPValue::LongString(value) => Some((name.to_string(), value.to_string())),
        _ => None,
    });
    Message {
        routing_key: delivery.routing_key.to_string(),
        headers: headers.collect(),
        content_type: text(properties.content_type()),
        id: text(properties.message_id()),
        kind: text(properties.kind()),
        timestamp: *properties.timestamp(),
        persistent: *properties.delivery_mode() == Some(2),
        data: delivery.data,
    }
}

impl Drop for RabbitMqServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the log of rabbitmq-server:\n{}", self.output());
        }
        for process in self.process.iter_mut().chain([&mut self.names]) {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
