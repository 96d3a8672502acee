//! Servers that are granted by TLS: the plugin's connections are the host's, and the
//! readers have their own.

use std::path::Path;

use backhaul_tests::certificates::{Certificates, Untrusted};
use backhaul_tests::kafka_server::{KafkaServer, TlsListener};
use backhaul_tests::nats_server::NatsServer;
use backhaul_tests::process::free_port;
use backhaul_tests::rabbitmq_server::RabbitMqServer;
use backhaul_tests::redis_server::RedisServer;
use serde_json::json;

use super::{Run, Subject};

/// What has to do with connections, and as much else as shows that all is read.
const CASES: [&str; 8] = [
    "single",
    "order",
    "unreachable",
    "cut",
    "restart",
    "hang",
    "close",
    "instances",
];

/// Runs the cases; `grant` leads to the server, and these lines are its plugin's.
fn verify(plugin: &str, grant: &str, variables: &str, roots: &Path) -> Run {
    let manifest = format!(
        "[grants]\ntcp = [\"{grant}\"]\n[grants.env]\n{variables}\n[tls]\nroots = [{roots:?}]\n"
    );
    let arguments = [&["--quick", "--only"][..], &CASES].concat();
    Subject::shipped(plugin, &manifest).verify(&arguments)
}

/// What comes of a Redis with such a certificate.
fn verify_redis(untrusted: Option<Untrusted>) -> Option<(Run, u16)> {
    let (certificates, port) = (Certificates::new(), free_port());
    let arguments = ["--tls-auth-clients", "no"];
    let _server = RedisServer::with_tls(port, certificates.server(untrusted), &arguments)?;
    let run = verify(
        "redis-streams",
        &format!("tls://localhost:{port}"),
        &format!("REDIS_URL = \"redis://localhost:{port}\""),
        &certificates.roots(),
    );
    Some((run, port))
}

#[test]
fn redis_streams() {
    if let Some((run, _)) = verify_redis(None) {
        run.assert_passed(&[]);
    }
}

#[test]
fn a_server_that_is_not_trusted_cannot_be_read() {
    let Some((run, port)) = verify_redis(Some(Untrusted::UnknownIssuer)) else {
        return;
    };
    assert_eq!(run.code(), Some(2), "{}", run.text());
    let expected = format!("cannot speak TLS with localhost:{port}: invalid peer certificate");
    assert!(run.text().contains(&expected), "{}", run.text());
}

#[test]
fn rabbitmq() {
    let (certificates, port) = (Certificates::new(), free_port());
    let Some(_server) = RabbitMqServer::with_tls(port, certificates.server(None), "") else {
        return;
    };
    let run = verify(
        "rabbitmq",
        &format!("tls://localhost:{port}"),
        &format!("RABBITMQ_URL = \"amqp://guest:guest@localhost:{port}\""),
        &certificates.roots(),
    );
    run.assert_passed(&[]);
}

#[test]
fn nats_jetstream() {
    let certificates = Certificates::new();
    let (certificate, key) = certificates.server(None);
    let configuration =
        format!("jetstream {{}}\ntls {{ cert_file: {certificate:?}, key_file: {key:?} }}");
    let config = certificates.issuer.client_config();
    let Some(server) = NatsServer::with_tls(&configuration, config) else {
        return;
    };
    server.create_stream("events", &["events.>"], &json!({}));
    let address = server.address();
    let (_, port) = address.split_once(':').expect("a port");
    let run = verify(
        "nats-jetstream",
        &format!("tls+nats://localhost:{port}"),
        &format!("NATS_URL = \"nats://localhost:{port}\""),
        &certificates.roots(),
    );
    run.assert_passed(&[]);
}

#[test]
fn kafka() {
    let certificates = Certificates::new();
    let port = free_port();
    let listener = TlsListener {
        port,
        certificate: certificates.server(None),
        clients: None,
        login: true,
    };
    let Some(server) = KafkaServer::with_tls(vec![listener]) else {
        return;
    };
    server.create_topic("events", 3);
    let run = verify(
        "kafka",
        &format!("tls://localhost:{port}"),
        &format!(
            "KAFKA_BROKERS = \"localhost:{port}\"\nKAFKA_SASL = \"SCRAM-SHA-512\"\n\
             KAFKA_USER = \"ada\"\nKAFKA_PASSWORD = \"right\""
        ),
        &certificates.roots(),
    );
    run.assert_passed(&[]);
}
