//! A real Redis server.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use redis::{Commands, Connection};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::process::{free_port, pid};
use crate::{skip, wait_for};

/// A `redis-server` process with a folder of its own. What it has stored
/// survives [`stop`](Self::stop) and [`start_again`](Self::start_again).
pub struct RedisServer {
    process: Option<Child>,
    port: u16,
    arguments: Vec<String>,
    folder: TempDir,
}

impl RedisServer {
    /// A server that speaks TLS on `port` as well, with a certificate and its key; further
    /// `arguments`.
    pub fn with_tls(
        port: u16,
        (certificate, key): (PathBuf, PathBuf),
        arguments: &[&str],
    ) -> Option<RedisServer> {
        let port = port.to_string();
        let tls = [
            "--tls-port",
            &port,
            "--tls-cert-file",
            certificate.to_str()?,
            "--tls-key-file",
            key.to_str()?,
        ];
        RedisServer::with(&[&tls[..], arguments].concat())
    }

    /// Starts a server on a free port; `None`, and the test is skipped, if this
    /// machine has none.
    pub fn start() -> Option<RedisServer> {
        RedisServer::with(&[])
    }

    /// Starts a server with further arguments, for instance `--requirepass`.
    pub fn with(arguments: &[&str]) -> Option<RedisServer> {
        let found = Command::new("redis-server")
            .arg("--version")
            .stdout(Stdio::null())
            .status();
        if found.is_err() {
            skip::skip("redis-server", "redis-server");
            return None;
        }
        let mut server = RedisServer {
            process: None,
            port: free_port(),
            arguments: arguments
                .iter()
                .map(|&argument| argument.to_owned())
                .collect(),
            folder: TempDir::with_prefix("backhaul-redis").expect("a temporary folder"),
        };
        server.start_again();
        Some(server)
    }

    /// Starts the stopped server again, on the same port with the same data.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "the server runs");
        let process = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--port",
                &self.port.to_string(),
                "--save",
                "",
            ])
            .args(["--appendonly", "yes", "--appendfsync", "no", "--dir"])
            .arg(self.folder.path())
            .args(&self.arguments)
            .stdout(Stdio::null())
            .spawn()
            .expect("redis-server starts");
        self.process = Some(process);
        wait_for("redis-server to answer", || {
            let mut connection = self.client().get_connection().ok()?;
            match redis::cmd("PING").query::<()>(&mut connection) {
                Ok(()) => Some(()),
                // A server that wants a password is there, too.
                Err(error) => (error.code() == Some("NOAUTH")).then_some(()),
            }
        });
    }

    /// Stops the server for now; its port refuses connections afterwards.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = kill_process(pid(&process), Signal::TERM);
            process.wait().expect("redis-server ends");
        }
    }

    /// Ends the server at once, as a crash does. What it has acknowledged it has
    /// handed to the system.
    pub fn kill(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("redis-server gets SIGKILL");
            process.wait().expect("redis-server ends");
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

    /// `redis://HOST:PORT`
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// A new connection to it.
    pub fn connect(&self) -> Connection {
        self.client()
            .get_connection()
            .expect("a connection to redis-server")
    }

    /// The entries of a stream, oldest first, each as its fields' names and values.
    pub fn entries(&self, stream: &str) -> Vec<Vec<(String, String)>> {
        let reply: redis::Value = redis::cmd("XRANGE")
            .arg(stream)
            .arg("-")
            .arg("+")
            .query(&mut self.connect())
            .expect("XRANGE");
        let entries: Vec<(String, Vec<(String, String)>)> =
            redis::from_redis_value(reply).expect("the entries of a stream");
        entries.into_iter().map(|(_, fields)| fields).collect()
    }

    /// One field of every entry of a stream, oldest first.
    pub fn field(&self, stream: &str, field: &str) -> Vec<String> {
        let value = |entry: Vec<(String, String)>| {
            entry
                .into_iter()
                .find(|(name, _)| name == field)
                .map(|(_, value)| value)
        };
        self.entries(stream).into_iter().filter_map(value).collect()
    }

    /// How many entries a stream has.
    pub fn len(&self, stream: &str) -> usize {
        self.connect().xlen(stream).expect("XLEN")
    }

    /// Whether a stream has no entry.
    pub fn is_empty(&self, stream: &str) -> bool {
        self.len(stream) == 0
    }

    fn client(&self) -> redis::Client {
        redis::Client::open(self.url()).expect("a valid URL")
    }

    fn signal(&self, signal: Signal) {
        let process = self.process.as_ref().expect("the server runs");
        kill_process(pid(process), signal).expect("redis-server gets a signal");
    }
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // Also ends one that is frozen.
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}
