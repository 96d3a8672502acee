//! The plugin `webhook` and an endpoint with TLS, by the roots of the manifest and by
//! those of the system.

use backhaul_tests::books::wait_until_settled;
use backhaul_tests::certificates::{Certificates, UNTRUSTED, Untrusted};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::https_server::HttpsServer;

fn server(certificates: &Certificates, untrusted: Option<Untrusted>) -> HttpsServer {
    HttpsServer::tls(&certificates.issue(untrusted))
}

/// With the plugin, which posts to the server; further lines of its manifest.
fn workspace(server: &HttpsServer, more: &str) -> Workspace {
    let workspace = Workspace::new();
    let origin = server.origin("localhost");
    let manifest = format!(
        "[grants]\nhttp = [\"{origin}\"]\nenv = {{ WEBHOOK_URL = \"{origin}/echo\" }}\n{more}"
    );
    workspace.add_plugin("webhook", &components::plugin("webhook"), &manifest);
    workspace
}

fn roots(certificates: &Certificates) -> String {
    format!("[tls]\nroots = [{:?}]\n", certificates.roots())
}

#[test]
fn events_reach_an_https_endpoint_that_is_trusted() {
    let certificates = Certificates::new();
    let server = server(&certificates, None);
    let workspace = workspace(&server, &roots(&certificates));
    let host = workspace.serve();
    assert_eq!(host.post_batch("event", 100).status, 202);
    wait_until_settled(&host);
    assert_eq!(server.requests(), 100);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn an_endpoint_that_is_not_trusted_gets_nothing_and_the_log_says_why() {
    let certificates = Certificates::new();
    for (untrusted, reason) in UNTRUSTED {
        let server = server(&certificates, Some(untrusted));
        let workspace = workspace(&server, &roots(&certificates));
        let host = workspace.serve();
        assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
        host.wait_for_log(&format!("is not trusted: {reason}; "));
        host.kill();
        assert_eq!(server.requests(), 0, "{untrusted:?}");
    }
}

#[test]
fn the_systems_roots_are_trusted_without_being_named() {
    let certificates = Certificates::new();
    let server = server(&certificates, None);
    let workspace = workspace(&server, "");
    // Where the system's roots are, for whoever reads them as OpenSSL does.
    let mut host = workspace.spawn_as(&[], |command| {
        command.env("SSL_CERT_FILE", certificates.roots());
    });
    host.wait_until_it_listens();
    assert_eq!(host.post_batch("event", 10).status, 202);
    wait_until_settled(&host);
    assert_eq!(server.requests(), 10);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}
