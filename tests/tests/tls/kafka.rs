//! The plugin `kafka` and an Apache Kafka broker with TLS.

use backhaul_tests::certificates::{Certificates, UNTRUSTED, Untrusted};
use backhaul_tests::host::Workspace;
use backhaul_tests::kafka_server::{KafkaServer, TlsListener};
use backhaul_tests::process::free_port;
use backhaul_tests::{components, wait_for};

const TOPIC: &str = "private";

/// A port whose certificate is to be trusted, or is not.
fn listener(certificates: &Certificates, untrusted: Option<Untrusted>) -> TlsListener {
    let name = format!("broker-{untrusted:?}");
    TlsListener {
        port: free_port(),
        certificate: certificates.named(&name, untrusted),
        clients: None,
        login: false,
    }
}

/// With the plugin, which is granted `port` by TLS; further variables, and further lines
/// under `[tls]`.
fn workspace(certificates: &Certificates, port: u16, env: &str, tls: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"tls://localhost:{port}\"]\n\
         [grants.env]\nKAFKA_BROKERS = \"localhost:{port}\"\nKAFKA_TOPIC = \"{TOPIC}\"\n{env}\n\
         [tls]\nroots = [{:?}]\n{tls}\n",
        certificates.roots()
    );
    workspace.add_plugin("kafka", &components::plugin("kafka"), &manifest);
    workspace
}

#[test]
fn events_reach_a_kafka_that_is_to_be_trusted_and_no_other() {
    let certificates = Certificates::new();
    let mut ports = vec![listener(&certificates, None)];
    for (untrusted, _) in UNTRUSTED {
        ports.push(listener(&certificates, Some(untrusted)));
    }
    let numbers: Vec<u16> = ports.iter().map(|listener| listener.port).collect();
    let login = TlsListener {
        login: true,
        clients: Some(certificates.roots()),
        ..listener(&certificates, None)
    };
    let login_port = login.port;
    ports.push(login);
    let Some(server) = KafkaServer::with_tls(ports) else {
        return;
    };
    server.create_topic(TOPIC, 1);

    for ((untrusted, reason), port) in UNTRUSTED.into_iter().zip(&numbers[1..]) {
        let workspace = workspace(&certificates, *port, "", "");
        let host = workspace.serve();
        assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
        host.wait_for_log(&format!(
            "the server at tls://localhost:{port} is not trusted: {reason}; "
        ));
        host.kill();
        assert_eq!(server.count(TOPIC), 0, "{untrusted:?}");
    }

    let trusted = workspace(&certificates, numbers[0], "", "");
    let host = trusted.serve();
    assert_eq!(host.post_batch("event", 100).status, 202);
    wait_for("the events", || (server.count(TOPIC) == 100).then_some(()));
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");

    // With SASL above it, and a certificate of the client's below.
    let env = "KAFKA_SASL = \"SCRAM-SHA-512\"\nKAFKA_USER = \"ada\"\nKAFKA_PASSWORD = \"right\"";
    let without = workspace(&certificates, login_port, env, "");
    let host = without.serve();
    assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
    host.wait_for_log(&format!(
        "no TLS with the server at tls://localhost:{login_port}: it asks for a client certificate; "
    ));
    host.kill();
    let client = certificates.issuer.issue(&["backhaul"]);
    let (certificate, key) = client.write(certificates.folder(), "client");
    let tls = format!("certificate = {certificate:?}\nkey = {key:?}");
    let with = workspace(&certificates, login_port, env, &tls);
    let host = with.serve();
    assert_eq!(host.post_batch("more", 100).status, 202);
    wait_for("the events", || (server.count(TOPIC) == 200).then_some(()));
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}
