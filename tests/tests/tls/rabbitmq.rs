//! The plugin `rabbitmq` and a RabbitMQ server with TLS.

use std::path::PathBuf;

use backhaul_tests::certificates::{Certificates, UNTRUSTED};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::process::free_port;
use backhaul_tests::rabbitmq_server::RabbitMqServer;
use lapin::ExchangeKind::Topic;

/// An exchange, and the queue that gets all of it.
const PRIVATE: &str = "private";

/// A server that speaks TLS on `port`, and does as `more` says.
fn server(
    certificates: &Certificates,
    certificate: (PathBuf, PathBuf),
    port: u16,
    more: &str,
) -> Option<RabbitMqServer> {
    let roots = certificates.roots().display().to_string();
    let configuration = format!("ssl_options.cacertfile = {roots}\n{more}");
    let server = RabbitMqServer::with_tls(port, certificate, &configuration)?;
    server.declare_exchange(PRIVATE, Topic);
    server.bind(PRIVATE, PRIVATE, "#");
    Some(server)
}

/// With the plugin, which is granted the server's port by TLS, and further lines under
/// `[tls]`.
fn workspace(certificates: &Certificates, port: u16, tls: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"tls://localhost:{port}\"]\n\
         env = {{ RABBITMQ_URL = \"amqp://guest:guest@localhost:{port}\", \
         RABBITMQ_EXCHANGE = \"{PRIVATE}\" }}\n\
         [tls]\nroots = [{:?}]\n{tls}\n",
        certificates.roots()
    );
    workspace.add_plugin("rabbitmq", &components::plugin("rabbitmq"), &manifest);
    workspace
}

#[test]
fn events_reach_a_rabbitmq_that_wants_tls_and_a_client_certificate() {
    let certificates = Certificates::new();
    let port = free_port();
    let ask = "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true";
    let Some(server) = server(&certificates, certificates.server(None), port, ask) else {
        return;
    };

    let without = workspace(&certificates, port, "");
    let host = without.serve();
    assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
    host.wait_for_log(&format!(
        "no TLS with the server at tls://localhost:{port}: it asks for a client certificate; "
    ));
    host.kill();
    assert!(server.take(PRIVATE).is_empty());

    let client = certificates.issuer.issue(&["backhaul"]);
    let (certificate, key) = client.write(certificates.folder(), "client");
    let tls = format!("certificate = {certificate:?}\nkey = {key:?}");
    let with = workspace(&certificates, port, &tls);
    let host = with.serve();
    assert_eq!(host.post_batch("event", 100).status, 202);
    assert_eq!(server.take_count(PRIVATE, 100).len(), 100);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_rabbitmq_that_is_not_trusted_gets_no_event_until_it_is() {
    let certificates = Certificates::new();
    let port = free_port();
    let Some(mut server) = server(&certificates, certificates.server(None), port, "") else {
        return;
    };
    for (untrusted, reason) in UNTRUSTED {
        server.stop();
        certificates.server(Some(untrusted));
        server.start_again();
        let workspace = workspace(&certificates, port, "");
        let host = workspace.serve();
        assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
        host.wait_for_log(&format!(
            "the server at tls://localhost:{port} is not trusted: {reason}; "
        ));
        assert!(server.take(PRIVATE).is_empty(), "{untrusted:?}");

        // Nothing is lost: it comes when the server is who it should be.
        server.stop();
        certificates.server(None);
        server.start_again();
        assert_eq!(server.take_count(PRIVATE, 1).len(), 1);
        let (status, log) = host.stop();
        assert_eq!(status.code(), Some(0), "{log}");
    }
}
