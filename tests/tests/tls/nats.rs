//! The plugin `nats-jetstream` and a NATS server that wants TLS after its first line.

use std::path::PathBuf;

use backhaul_tests::certificates::{Certificates, UNTRUSTED};
use backhaul_tests::host::Workspace;
use backhaul_tests::nats_server::NatsServer;
use backhaul_tests::{components, wait_for};
use serde_json::json;

const STREAM: &str = "events";

/// The `tls` block of a server's configuration.
fn tls((certificate, key): (PathBuf, PathBuf)) -> String {
    format!("cert_file: {certificate:?}, key_file: {key:?}")
}

/// A plugin that is granted the server's port as `scheme` says.
fn workspace(certificates: &Certificates, server: &NatsServer, scheme: &str) -> Workspace {
    let workspace = Workspace::new();
    let address = server.address();
    let (_, port) = address.split_once(':').expect("a port");
    let manifest = format!(
        "[grants]\ntcp = [\"{scheme}localhost:{port}\"]\n\
         env = {{ NATS_URL = \"nats://localhost:{port}\" }}\n\
         [tls]\nroots = [{:?}]\n",
        certificates.roots()
    );
    let component = components::plugin("nats-jetstream");
    workspace.add_plugin("nats-jetstream", &component, &manifest);
    workspace
}

#[test]
fn events_reach_a_nats_that_wants_tls_if_it_is_granted_so_and_else_none_is_sent() {
    let certificates = Certificates::new();
    let block = tls(certificates.server(None));
    let configuration = format!("jetstream {{}}\ntls {{ {block} }}");
    let config = certificates.issuer.client_config();
    let Some(server) = NatsServer::with_tls(&configuration, config) else {
        return;
    };
    server.create_stream(STREAM, &["events.>"], &json!({}));

    // Without TLS, or where it would begin at once, nothing gets there.
    for (scheme, said) in [("", "asks for TLS"), ("tls://", "it does not speak TLS")] {
        let workspace = workspace(&certificates, &server, scheme);
        let host = workspace.serve();
        assert_eq!(host.post_event("early", "signup", "{}").status, 202);
        host.wait_for_log(said);
        host.kill();
        assert!(server.is_empty(STREAM), "{scheme}");
    }

    let workspace = workspace(&certificates, &server, "tls+nats://");
    let host = workspace.serve();
    host.wait_for_log("may connect to tls+nats://localhost:");
    assert_eq!(host.post_batch("event", 100).status, 202);
    wait_for("the events", || (server.len(STREAM) == 100).then_some(()));
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_nats_that_is_not_to_be_trusted_gets_nothing_and_the_log_says_why() {
    for (untrusted, said) in UNTRUSTED {
        let certificates = Certificates::new();
        let block = tls(certificates.server(Some(untrusted)));
        // For the harness itself, which trusts no such server either.
        let configuration = format!("jetstream {{}}\nallow_non_tls: true\ntls {{ {block} }}");
        let Some(server) = NatsServer::with(&configuration, json!({})) else {
            return;
        };
        server.create_stream(STREAM, &["events.>"], &json!({}));
        let workspace = workspace(&certificates, &server, "tls+nats://");
        let host = workspace.serve();
        assert_eq!(host.post_event("1", "signup", "{}").status, 202);
        host.wait_for_log(said);
        host.kill();
        assert!(server.is_empty(STREAM), "{untrusted:?}");
    }
}
