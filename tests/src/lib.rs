//! What the end-to-end suites and the benchmarks share: the program, real
//! brokers, and the components they are tried with.
//!
//! - [`host`]: the `backhaul` program as a child process.
//! - [`load`]: events posted over several connections, and what became of each post.
//! - [`oracle`]: judges what arrived by what was posted.
//! - [`books`]: whether the host's own figures agree, with each other and with that.
//! - [`proxy`]: what can go wrong between a plugin and its server.
//! - [`tmpfs`]: a small file system that can be full.
//! - [`certificates`]: certificates made at run time, good ones and others.
//! - [`https_server`]: an HTTP and HTTPS server that behaves as it is asked.
//! - [`webhook_server`]: an HTTP server that keeps what is posted to it.
//! - [`hostile_server`]: servers that do not speak the protocol they are taken for.
//! - [`line_server`]: a server that stores lines, with the fewest words a backend needs.
//! - [`process`]: what servers are started with.
//! - [`redis_server`]: a real Redis server on a free port.
//! - [`rabbitmq_server`]: a real RabbitMQ server, and what arrived in its queues.
//! - [`nats_server`]: a real NATS server with JetStream on a free port.
//! - [`kafka_server`]: a real Apache Kafka broker, and what is in its topics.
//! - [`moto_server`]: a server that speaks SQS and SNS.
//! - [`components`]: the components `cargo xtask` built, and some written by hand.
//! - [`compiled_code`]: compiled components, kept from one host to the next.
//! - [`skip`]: how a test says that a server it needs is missing.
//!
//! Everything started here is stopped again when its value is dropped, and
//! listens on loopback only.

pub mod books;
pub mod certificates;
pub mod compiled_code;
pub mod components;
pub mod host;
pub mod hostile_server;
pub mod https_server;
pub mod kafka_server;
pub mod line_server;
pub mod load;
pub mod moto_server;
pub mod nats_server;
pub mod oracle;
pub mod process;
pub mod proxy;
pub mod rabbitmq_server;
pub mod redis_server;
pub mod skip;
pub mod tmpfs;
pub mod webhook_server;

use std::time::{Duration, Instant};

/// How long tests wait for what should happen at once. Generous, because a
/// loaded machine is no failure; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
///
/// # Panics
///
/// If it gives none within [`PATIENCE`]; `what` says what was waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
