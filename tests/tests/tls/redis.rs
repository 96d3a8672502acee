//! The plugin `redis-streams` and a Redis server with TLS.

use std::path::PathBuf;

use backhaul_tests::books::wait_until_settled;
use backhaul_tests::certificates::{Certificates, Issuer, UNTRUSTED};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::process::free_port;
use backhaul_tests::redis_server::RedisServer;
use backhaul_tests::{components, wait_for};

const STREAM: &str = "backhaul:events";

/// A server that speaks TLS on another port, which is returned as well.
fn server(
    certificates: &Certificates,
    certificate: (PathBuf, PathBuf),
    port: u16,
    ask_clients: &str,
) -> Option<RedisServer> {
    let roots = certificates.roots();
    let arguments = [
        "--tls-ca-cert-file",
        roots.to_str()?,
        "--tls-auth-clients",
        ask_clients,
    ];
    RedisServer::with_tls(port, certificate, &arguments)
}

/// With the plugin, which is granted the server's port by TLS.
fn workspace(certificates: &Certificates, port: u16) -> Workspace {
    workspace_with(certificates, port, "")
}

/// The same, with further lines under `[tls]`.
fn workspace_with(certificates: &Certificates, port: u16, tls: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"tls://localhost:{port}\"]\n\
         env = {{ REDIS_URL = \"redis://localhost:{port}\" }}\n\
         [tls]\nroots = [{:?}]\n{tls}\n",
        certificates.roots()
    );
    let component = components::plugin("redis-streams");
    workspace.add_plugin("redis-streams", &component, &manifest);
    workspace
}

#[test]
fn events_reach_redis_by_tls_and_after_it_was_away() {
    let certificates = Certificates::new();
    let port = free_port();
    let certificate = certificates.server(None);
    let Some(mut redis) = server(&certificates, certificate, port, "no") else {
        return;
    };
    let workspace = workspace(&certificates, port);
    let host = workspace.serve();
    host.wait_for_log(&format!("may connect to tls://localhost:{port}"));
    assert_eq!(host.post_batch("first", 100).status, 202);
    wait_for("the first events", || {
        (redis.len(STREAM) == 100).then_some(())
    });

    redis.stop();
    assert_eq!(host.post_batch("second", 100).status, 202);
    redis.start_again();
    wait_for("all events", || (redis.len(STREAM) >= 200).then_some(()));
    let mut ids = redis.field(STREAM, "id");
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 200);
    wait_until_settled(&host);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_redis_that_is_not_trusted_gets_no_event_until_it_is() {
    for (untrusted, reason) in UNTRUSTED {
        let certificates = Certificates::new();
        let port = free_port();
        let certificate = certificates.server(Some(untrusted));
        let Some(mut redis) = server(&certificates, certificate, port, "no") else {
            return;
        };
        let workspace = workspace(&certificates, port);
        let host = workspace.serve();
        assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
        host.wait_for_log(&format!(
            "the server at tls://localhost:{port} is not trusted: {reason}; "
        ));
        assert!(redis.is_empty(STREAM), "{untrusted:?}");

        // Nothing is lost: it comes when the server is who it should be.
        redis.stop();
        certificates.server(None);
        redis.start_again();
        wait_for("the event", || (redis.len(STREAM) == 1).then_some(()));
        host.stop();
    }
}

#[test]
fn a_redis_that_wants_a_client_certificate_is_shown_the_one_of_the_manifest() {
    let certificates = Certificates::new();
    let port = free_port();
    let certificate = certificates.server(None);
    let Some(redis) = server(&certificates, certificate, port, "yes") else {
        return;
    };
    let refused = |host: &Host, reason: &str| {
        assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
        host.wait_for_log(&format!(
            "no TLS with the server at tls://localhost:{port}: {reason}"
        ));
        assert!(redis.is_empty(STREAM), "{reason}");
    };
    let client = |issuer: &Issuer| {
        let (certificate, key) = issuer
            .issue(&["backhaul"])
            .write(certificates.folder(), "client");
        format!("certificate = {certificate:?}\nkey = {key:?}")
    };

    let without = workspace(&certificates, port);
    refused(&without.serve(), "it asks for a client certificate; ");

    let lines = client(&certificates.stranger);
    let strange = workspace_with(&certificates, port, &lines);
    refused(
        &strange.serve(),
        "it does not accept the client certificate (UnknownCA); ",
    );

    let lines = client(&certificates.issuer);
    let known = workspace_with(&certificates, port, &lines);
    let host = known.serve();
    assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
    wait_for("the event", || (redis.len(STREAM) == 1).then_some(()));
    host.stop();
}

#[test]
fn a_port_without_tls_is_told_as_such_and_gets_nothing() {
    let certificates = Certificates::new();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = std::io::Write::write_all(&mut stream, b"-ERR unknown command\r\n");
        }
    });
    let workspace = workspace(&certificates, port);
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "after:signup", "{}").status, 202);
    host.wait_for_log(&format!(
        "no TLS with the server at tls://localhost:{port}: it does not speak TLS; "
    ));
    host.stop();
}
