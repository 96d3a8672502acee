//! A real NATS server with JetStream, and a client that sees what its streams hold.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::process::{free_port, pid};
use crate::{skip, wait_for};

/// A `nats-server` process with a folder of its own. Its streams survive
/// [`stop`](Self::stop) and [`start_again`](Self::start_again).
pub struct NatsServer {
    process: Option<Child>,
    port: u16,
    login: Value,
    /// What the harness itself connects with, where the server wants TLS.
    tls: Option<Arc<ClientConfig>>,
    folder: TempDir,
}

/// A message of a stream.
#[derive(Clone, Debug)]
pub struct Message {
    /// The subject it was published to.
    pub subject: String,
    /// Its headers.
    pub headers: BTreeMap<String, String>,
    /// Its data.
    pub data: Vec<u8>,
}

impl NatsServer {
    /// Starts a server with JetStream on a free port; `None`, and the test is
    /// skipped, if this machine has none.
    pub fn start() -> Option<NatsServer> {
        NatsServer::with("jetstream {}", json!({}))
    }

    /// Starts a server with these lines in its configuration; `login` is what the
    /// harness itself adds to `CONNECT`.
    pub fn with(configuration: &str, login: Value) -> Option<NatsServer> {
        NatsServer::start_with(configuration, login, None)
    }

    /// The same of a server that wants TLS and is `localhost` to it.
    pub fn with_tls(configuration: &str, tls: Arc<ClientConfig>) -> Option<NatsServer> {
        NatsServer::start_with(configuration, json!({}), Some(tls))
    }

    fn start_with(
        configuration: &str,
        login: Value,
        tls: Option<Arc<ClientConfig>>,
    ) -> Option<NatsServer> {
        let found = Command::new("nats-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if found.is_err() {
            skip::skip("nats-server", "nats-server");
            return None;
        }
        let folder = TempDir::with_prefix("backhaul-nats").expect("a temporary folder");
        let file = folder.path().join("nats.conf");
        std::fs::write(file, configuration).expect("the configuration");
        let mut server = NatsServer {
            process: None,
            port: free_port(),
            login,
            tls,
            folder,
        };
        server.start_again();
        Some(server)
    }

    /// Starts the stopped server again, on the same port with the same streams.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server runs");
        let folder = self.folder.path();
        let process = Command::new("nats-server")
            .args(["--addr", "127.0.0.1", "--port", &self.port.to_string()])
            .arg("--store_dir")
            .arg(folder)
            .arg("--config")
            .arg(folder.join("nats.conf"))
            .stderr(Stdio::null())
            .spawn()
            .expect("nats-server starts");
        self.process = Some(process);
        wait_for("nats-server to answer", || Client::connect(self));
    }

    /// Stops the server for now; its port refuses connections afterwards.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = kill_process(pid(&process), Signal::TERM);
            process.wait().expect("nats-server ends");
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
        format!("127.0.0.1:{}", self.port)
    }

    /// Makes a stream of these subjects; `more` are further settings of it.
    pub fn create_stream(&self, name: &str, subjects: &[&str], more: &Value) {
        let mut stream = json!({ "name": name, "subjects": subjects, "storage": "file" });
        let members = stream.as_object_mut().expect("an object");
        members.extend(more.as_object().cloned().unwrap_or_default());
        self.request(&format!("STREAM.CREATE.{name}"), &stream);
    }

    /// Removes what a stream holds.
    pub fn purge(&self, stream: &str) {
        self.request(&format!("STREAM.PURGE.{stream}"), &json!({}));
    }

    /// How many messages a stream holds.
    pub fn len(&self, stream: &str) -> usize {
        let info = self.request(&format!("STREAM.INFO.{stream}"), &json!({}));
        let messages = info["state"]["messages"].as_u64().expect("a number");
        usize::try_from(messages).expect("a length")
    }

    /// Whether a stream holds nothing.
    pub fn is_empty(&self, stream: &str) -> bool {
        self.len(stream) == 0
    }

    /// What a stream holds, oldest first.
    pub fn messages(&self, stream: &str) -> Vec<Message> {
        let count = self.len(stream);
        let mut client = Client::connect(self).expect("a connection");
        client.send("SUB all 2\r\n");
        let config =
            json!({ "deliver_subject": "all", "ack_policy": "none", "deliver_policy": "all" });
        let request = json!({ "stream_name": stream, "config": config });
        client.publish(&format!("$JS.API.CONSUMER.CREATE.{stream}"), &request);
        let mut messages = Vec::new();
        while messages.len() < count {
            let message = client.next().expect("a message");
            // The answer to the request is not one of them.
            if message.headers.contains_key("Nats-Msg-Id") {
                messages.push(message);
            }
        }
        messages
    }

    /// The header `ce-id` of what a stream holds, oldest first.
    pub fn ids(&self, stream: &str) -> Vec<String> {
        let id = |mut message: Message| message.headers.remove("ce-id");
        self.messages(stream).into_iter().filter_map(id).collect()
    }

    fn request(&self, api: &str, body: &Value) -> Value {
        let mut client = Client::connect(self).expect("a connection");
        client.publish(&format!("$JS.API.{api}"), body);
        let answer = client.next().expect("an answer").data;
        let answer: Value = serde_json::from_slice(&answer).expect("JSON");
        assert!(answer.get("error").is_none(), "{api}: {answer}");
        answer
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        kill_process(pid(process), signal).expect("nats-server gets a signal");
    }
}

impl Drop for NatsServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Also ends one that is frozen.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

struct Client {
    stream: BufReader<Box<dyn Stream>>,
}

/// A connection, with TLS or without.
trait Stream: Read + Write {}

impl<S: Read + Write> Stream for S {}

impl Client {
    /// `None` if the server, or its JetStream, is not there yet.
    fn connect(server: &NatsServer) -> Option<Client> {
        let stream = TcpStream::connect(server.address()).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_secs(10)))
            .ok()?;
        let plain = stream.try_clone().ok()?;
        let mut client = Client {
            stream: BufReader::new(Box::new(stream)),
        };
        let info = client.line()?;
        if let Some(config) = &server.tls {
            let name = "localhost".try_into().expect("a name");
            let session = ClientConnection::new(config.clone(), name).expect("a session");
            client.stream = BufReader::new(Box::new(StreamOwned::new(session, plain)));
        }
        let info: Value = serde_json::from_str(info.strip_prefix("INFO ")?).ok()?;
        let mut connect =
            json!({ "verbose": false, "pedantic": false, "headers": true, "no_responders": true });
        let members = connect.as_object_mut()?;
        members.extend(server.login.as_object()?.clone());
        client.send(&format!("CONNECT {connect}\r\nSUB reply 1\r\n"));
        if info["jetstream"] == true {
            client.publish("$JS.API.INFO", &json!({}));
            let answer = client.next()?;
            serde_json::from_slice::<Value>(&answer.data)
                .ok()?
                .get("limits")?;
        }
        Some(client)
    }

    fn send(&mut self, text: &str) {
        let sent = self.stream.get_mut().write_all(text.as_bytes());
        sent.expect("the server takes it");
    }

    fn publish(&mut self, subject: &str, body: &Value) {
        let body = body.to_string();
        self.send(&format!("PUB {subject} reply {}\r\n{body}\r\n", body.len()));
    }

    /// The next message; `None` if the connection ends.
    fn next(&mut self) -> Option<Message> {
        loop {
            let line = self.line()?;
            let words: Vec<&str> = line.split_whitespace().collect();
            let number = |word: &str| word.parse::<usize>().expect("a number");
            let (head, size) = match words[0] {
                "MSG" => (0, number(words[words.len() - 1])),
                "HMSG" => (
                    number(words[words.len() - 2]),
                    number(words[words.len() - 1]),
                ),
                "PING" => {
                    self.send("PONG\r\n");
                    continue;
                }
                "-ERR" => panic!("{line}"),
                _ => continue,
            };
            let mut data = vec![0; size + 2];
            self.stream.read_exact(&mut data).ok()?;
            data.truncate(size);
            let headers: Vec<u8> = data.drain(..head).collect();
            let headers = String::from_utf8(headers).expect("headers are text");
            let header = |line: &str| {
                let (name, value) = line.split_once(':')?;
                Some((name.to_owned(), value.trim().to_owned()))
            };
            return Some(Message {
                subject: words[1].to_owned(),
                headers: headers.lines().filter_map(header).collect(),
                data,
            });
        }
    }

    fn line(&mut self) -> Option<String> {
        let mut line = String::new();
        let read = self.stream.read_line(&mut line).ok()?;
        (read > 0).then(|| line.trim_end().to_owned())
    }
}
