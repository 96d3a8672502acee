//! HTTP and HTTPS: requests to granted origins, in both versions of WASI, and
//! what a server can do to the host.

use std::time::{Duration, Instant};

use backhaul::wasm::{Grants, TlsRoots, WasmBackend};
use backhaul_tests::certificates::Issuer;
use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::https_server::HttpsServer;

use crate::guest::{GENEROUS, ask, start, within};
use crate::memory::{MIB, Memory};

/// The same guest for WASI 0.2 and 0.3. What ends a body has no code in 0.2, but
/// a text.
const GUESTS: [&str; 2] = ["fetch", "fetch_async"];

/// Texts the resolver of the system takes for 127.0.0.1, though they do not say so.
const DISGUISED_LOOPBACK: [&str; 3] = ["0x7f000001", "2130706433", "127.0.0.0X1"];

async fn guest(name: &str, http: &[&str], tls: TlsRoots) -> WasmBackend {
    let http = http.iter().map(|grant| grant.parse().expect("an origin"));
    let grants = Grants {
        http: http.collect(),
        tls,
        ..Grants::default()
    };
    start(name, grants, within(GENEROUS)).await
}

pub(crate) fn trusting(issuer: &Issuer) -> TlsRoots {
    let mut roots = TlsRoots::default();
    assert_eq!(roots.add_pem(issuer.pem().as_bytes()).expect("a root"), 1);
    roots
}

#[tokio::test]
async fn a_granted_origin_is_reached() {
    let server = HttpsServer::plain();
    for name in GUESTS {
        for host in ["127.0.0.1", "localhost"] {
            let origin = server.origin(host);
            let backend = guest(name, &[&origin], TlsRoots::default()).await;
            let answer = ask(&backend, &format!("get {origin}/hello")).await;
            assert_eq!(answer, "200 hello", "{name} {origin}");
            let answer = ask(&backend, &format!("post ping {origin}/echo")).await;
            assert_eq!(answer, "200 ping", "{name} {origin}");
        }
    }
}

#[tokio::test]
async fn another_scheme_host_or_port_than_granted_is_not_reached() {
    let server = HttpsServer::plain();
    let port = server.port();
    for name in GUESTS {
        for granted in [
            &[][..],
            &[format!("https://127.0.0.1:{port}").as_str()],
            &["http://127.0.0.1"],
            &[format!("http://127.0.0.2:{port}").as_str()],
            &[format!("http://example.com:{port}").as_str()],
        ] {
            let backend = guest(name, granted, TlsRoots::default()).await;
            for url in [
                format!("http://127.0.0.1:{port}/hello"),
                format!("http://[::ffff:127.0.0.1]:{port}/hello"),
                format!("http://localhost:{port}/hello"),
            ] {
                let answer = ask(&backend, &format!("get {url}")).await;
                let denied = "error ErrorCode::HttpRequestDenied";
                assert_eq!(answer, denied, "{name} {granted:?} {url}");
            }
        }
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn what_is_no_origin_is_no_way_around_a_grant() {
    let server = HttpsServer::plain();
    let port = server.port();
    for name in GUESTS {
        let granted = format!("http://example.com:{port}");
        let backend = guest(name, &[&granted], TlsRoots::default()).await;
        let disguised = DISGUISED_LOOPBACK.map(|host| format!("{host}:{port}"));
        let tricked = format!("example.com:{port}@127.0.0.1:{port}");
        for authority in disguised.iter().chain([&tricked]) {
            let answer = ask(&backend, &format!("get http://{authority}/hello")).await;
            assert!(answer.starts_with("error "), "{name} {authority}: {answer}");
        }
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn the_host_header_says_the_granted_origin_and_nothing_else() {
    let server = HttpsServer::plain();
    let origin = server.origin("localhost");
    for name in GUESTS {
        let backend = guest(name, &[&origin], TlsRoots::default()).await;
        let answer = ask(&backend, &format!("host evil.example {origin}/")).await;
        assert_eq!(answer, "error HeaderError::Forbidden", "{name}");
        let upper = origin.replace("localhost", "LOCALHOST.");
        let head = ask(&backend, &format!("get {upper}/request?a=b")).await;
        assert!(head.contains("GET /request?a=b HTTP/1.1"), "{name}: {head}");
        let host = format!("host: localhost:{}", server.port());
        assert_eq!(head.matches("host: ").count(), 1, "{name}: {head}");
        assert!(head.contains(&host), "{name}: {head}");
    }
}

#[tokio::test]
async fn a_granted_proxy_is_no_tunnel() {
    let server = HttpsServer::plain();
    let origin = server.origin("127.0.0.1");
    for name in GUESTS {
        let backend = guest(name, &[&origin], TlsRoots::default()).await;
        let answer = ask(&backend, &format!("connect {origin}/")).await;
        let refused = "error ErrorCode::HttpRequestMethodInvalid";
        assert_eq!(answer, refused, "{name}");
    }
    assert_eq!(server.connections(), 0);
}

#[tokio::test]
async fn a_redirect_is_the_guests_own_request_and_checked() {
    let granted = HttpsServer::plain();
    let other = HttpsServer::plain();
    let origin = granted.origin("127.0.0.1");
    for name in GUESTS {
        let backend = guest(name, &[&origin], TlsRoots::default()).await;
        let order = format!("get {origin}/to?{origin}/hello");
        assert_eq!(ask(&backend, &order).await, "302 ", "{name}: not followed");
        let order = format!("follow {origin}/to?{origin}/hello");
        assert_eq!(ask(&backend, &order).await, "200 hello", "{name}");
        let elsewhere = other.origin("127.0.0.1");
        let order = format!("follow {origin}/to?{elsewhere}/hello");
        let answer = ask(&backend, &order).await;
        assert_eq!(answer, "error ErrorCode::HttpRequestDenied", "{name}");
    }
    assert_eq!(other.connections(), 0);
}

#[tokio::test]
async fn tls_reaches_a_server_with_a_given_root_by_name_and_by_address() {
    let issuer = Issuer::new();
    let server = HttpsServer::tls(&issuer.issue(&["localhost", "127.0.0.1"]));
    for name in GUESTS {
        for host in ["localhost", "127.0.0.1"] {
            let origin = server.origin(host);
            let backend = guest(name, &[&origin], trusting(&issuer)).await;
            let answer = ask(&backend, &format!("get {origin}/hello")).await;
            assert_eq!(answer, "200 hello", "{name} {origin}");
        }
    }
}

#[tokio::test]
async fn tls_refuses_another_name_an_unknown_issuer_and_an_old_certificate() {
    let issuer = Issuer::new();
    let other_name = HttpsServer::tls(&issuer.issue(&["other.example"]));
    let unknown = HttpsServer::tls(&Issuer::new().issue(&["localhost"]));
    let expired = HttpsServer::tls(&issuer.issue_expired(&["localhost"]));
    for name in GUESTS {
        for server in [&other_name, &unknown, &expired] {
            let origin = server.origin("localhost");
            let backend = guest(name, &[&origin], trusting(&issuer)).await;
            let answer = ask(&backend, &format!("get {origin}/hello")).await;
            assert_eq!(answer, "error ErrorCode::TlsCertificateError", "{name}");
            assert_eq!(server.requests(), 0);
        }
    }
}

#[test]
fn a_denied_request_is_logged_with_the_line_that_would_allow_it() {
    let server = HttpsServer::plain();
    let origin = server.origin("127.0.0.1");
    let workspace = Workspace::new();
    workspace.add_plugin("hook", &components::test_guest("fetch"), "");
    let host = workspace.serve();
    host.post_event("1", "after:x", &format!("get {origin}/hello"));
    let line = format!("http = [\"{origin}\"]");
    host.wait_for_log(&format!(
        "denied: it tried to send a request to {origin}; to allow that, write in hook.toml, \
         under [grants]: {line}"
    ));
    drop(host);

    let manifest = format!("[grants]\n{line}\n");
    workspace.add_plugin("hook", &components::test_guest("fetch"), &manifest);
    let host = workspace.serve();
    host.wait_for_log(&format!("may send HTTP requests to {origin}"));
    host.post_event("2", "after:x", &format!("get {origin}/hello"));
    host.wait_for_log("200 hello");
}

#[test]
fn a_server_that_is_not_trusted_is_logged_with_the_reason_and_what_to_do() {
    let issuer = Issuer::new();
    let other_name = HttpsServer::tls(&issuer.issue(&["other.example"]));
    let unknown = HttpsServer::tls(&Issuer::new().issue(&["localhost"]));
    let expired = HttpsServer::tls(&issuer.issue_expired(&["localhost"]));
    let good = HttpsServer::tls(&issuer.issue(&["localhost"]));
    let origins = [&other_name, &unknown, &expired, &good].map(|s| s.origin("localhost"));

    let workspace = Workspace::new();
    let roots = workspace.path().join("ca.pem");
    std::fs::write(&roots, issuer.pem()).expect("the roots");
    let manifest = format!("[grants]\nhttp = {origins:?}\n[tls]\nroots = [{roots:?}]\n");
    workspace.add_plugin("hook", &components::test_guest("fetch_async"), &manifest);
    let host = workspace.serve();
    for (origin, reason) in origins.iter().zip([
        "its certificate is not for localhost but for other.example; grant and \
         request it by a name in its certificate",
        "its certificate is from an issuer this host does not know; if the issuer is yours, name \
         its root certificate in the plugin's manifest: [tls] roots = [\"ca.pem\"]",
        "its certificate has expired; renew it on the server",
    ]) {
        host.post_event(origin, "after:x", &format!("get {origin}/hello"));
        host.wait_for_log(&format!("the server at {origin} is not trusted: {reason}"));
    }
    host.post_event("good", "after:x", &format!("get {}/hello", origins[3]));
    host.wait_for_log("200 hello");
}

#[test]
fn endless_bodies_and_heads_are_stopped_and_cost_the_host_nothing() {
    let server = HttpsServer::plain();
    let origin = server.origin("127.0.0.1");
    let workspace = Workspace::new();
    for name in GUESTS {
        let manifest = format!(
            "events = [\"{name}:*\"]\n[grants]\nhttp = [{origin:?}]\n[limits]\nmemory = \"16MiB\"\n\
             timeout = \"30s\"\ncpu = \"10s\"\n"
        );
        workspace.add_plugin(name, &components::test_guest(name), &manifest);
    }
    let host = workspace.serve();
    let memory = Memory::of(&host);
    for name in GUESTS {
        for path in ["endless-body", "endless-headers"] {
            let (id, event_type) = (format!("{name}-{path}"), format!("{name}:x"));
            host.post_event(&id, &event_type, &format!("count {origin}/{path}"));
            host.wait_for_log(&format!("id=\"{id}\""));
        }
    }
    let grown = memory.grown();
    assert!(grown < 32 * MIB, "the host grew by {} MiB", grown / MIB);
}

#[tokio::test]
async fn a_body_over_the_hosts_limit_is_cut_off() {
    let server = HttpsServer::plain();
    let origin = server.origin("127.0.0.1");
    for name in GUESTS {
        let backend = guest(name, &[&origin], TlsRoots::default()).await;
        let answer = ask(&backend, &format!("count {origin}/bytes?1000000")).await;
        assert_eq!(answer, "1000000 bytes, then Ok(())", "{name}");
        let answer = ask(&backend, &format!("count {origin}/endless-body")).await;
        let (bytes, end) = answer.split_once(" bytes, then ").expect("a count");
        let bytes: u64 = bytes.parse().expect("a number");
        assert!(bytes <= 64 * MIB && bytes > 63 * MIB, "{name}: {answer}");
        let limit = ["HttpResponseBodySize", "body size exceeds limit"];
        assert!(
            limit.iter().any(|text| end.contains(text)),
            "{name}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_head_over_the_hosts_limit_is_refused() {
    let server = HttpsServer::plain();
    let origin = server.origin("127.0.0.1");
    for name in GUESTS {
        let backend = guest(name, &[&origin], TlsRoots::default()).await;
        for path in ["endless-headers", "many-headers"] {
            let answer = ask(&backend, &format!("get {origin}/{path}")).await;
            let refused = "error ErrorCode::HttpResponseHeaderSectionSize";
            assert!(answer.starts_with(refused), "{name} {path}: {answer}");
        }
    }
}

#[tokio::test]
async fn a_slow_server_is_waited_for_as_long_as_the_guest_says() {
    let server = HttpsServer::plain();
    let origin = server.origin("127.0.0.1");
    for name in GUESTS {
        let backend = guest(name, &[&origin], TlsRoots::default()).await;
        let began = Instant::now();
        for path in ["silent", "stalls"] {
            let answer = ask(&backend, &format!("within 100 {origin}/{path}")).await;
            let timeout = ["ConnectionReadTimeout", "connection read timeout"];
            let told = timeout.iter().any(|text| answer.contains(text));
            assert!(told, "{name} {path}: {answer}");
        }
        assert!(began.elapsed() < GENEROUS, "not the host's own limit");
        assert!(began.elapsed() >= Duration::from_millis(200), "{name}");
    }
}

#[tokio::test]
async fn a_body_that_is_cut_off_is_no_whole_body() {
    let server = HttpsServer::plain();
    let origin = server.origin("127.0.0.1");
    for name in GUESTS {
        let backend = guest(name, &[&origin], TlsRoots::default()).await;
        let answer = ask(&backend, &format!("count {origin}/cut")).await;
        assert!(answer.starts_with("5 bytes, then Err("), "{name}: {answer}");
        let cut = ["HttpResponseIncomplete", "incomplete HTTP response"];
        assert!(
            cut.iter().any(|text| answer.contains(text)),
            "{name}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_connection_serves_many_requests_and_is_replaced_when_the_server_closes_it() {
    let issuer = Issuer::new();
    for server in [
        HttpsServer::plain(),
        HttpsServer::tls(&issuer.issue(&["localhost"])),
    ] {
        let origin = server.origin("localhost");
        for (nth, name) in GUESTS.into_iter().enumerate() {
            let backend = guest(name, &[&origin], trusting(&issuer)).await;
            let order = format!("again 50 {origin}/hello");
            assert_eq!(ask(&backend, &order).await, "done", "{name}");
            assert_eq!(ask(&backend, &order).await, "done", "{name}");
            assert_eq!(
                server.connections(),
                3 * nth + 1,
                "{name}: kept for 100 requests"
            );
            server.close_connections();
            // If the host has not heard of it yet, one request is lost.
            let answer = ask(&backend, &order).await;
            assert!(answer == "done" || answer.starts_with("error "), "{answer}");
            assert_eq!(ask(&backend, &order).await, "done", "{name}");
            assert_eq!(server.connections(), 3 * nth + 2, "{name}");
            let order = format!("again 1 {origin}/close");
            assert_eq!(ask(&backend, &order).await, "done", "{name}");
            let order = format!("again 1 {origin}/hello");
            assert_eq!(ask(&backend, &order).await, "done", "{name}");
            assert_eq!(server.connections(), 3 * nth + 3, "{name}");
        }
    }
}

#[tokio::test]
async fn an_instance_has_only_so_many_requests_and_connections_at_a_time() {
    let server = HttpsServer::plain();
    let origin = server.origin("127.0.0.1");
    let backend = guest("fetch_async", &[&origin], TlsRoots::default()).await;
    // None is read, so each of the 32 connections is in use.
    let answer = ask(&backend, &format!("hold 30 {origin}/endless-body")).await;
    assert_eq!(answer, "30 held, last refusal None");
    let answer = ask(&backend, &format!("hold 200 {origin}/silent")).await;
    assert!(answer.starts_with("0 held"), "{answer}");
    assert!(answer.contains("ConnectionLimitReached"), "{answer}");
    assert!(server.connections() <= 70, "{}", server.connections());
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_is_shown_the_granted_one() {
    let issuer = Issuer::new();
    let server = HttpsServer::tls_for(&issuer, &issuer.issue(&["localhost"]));
    let origin = server.origin("localhost");
    let folder = tempfile::TempDir::with_prefix("backhaul-client").expect("a temporary folder");
    let (certificate, key) = issuer.issue(&["backhaul"]).write(folder.path(), "client");
    let mut known = trusting(&issuer);
    let read = |path| std::fs::read(path).expect("the file");
    known
        .identify(&read(certificate), &read(key))
        .expect("a certificate and its key");
    for name in GUESTS {
        let backend = guest(name, &[&origin], trusting(&issuer)).await;
        let answer = ask(&backend, &format!("get {origin}/hello")).await;
        assert!(answer.starts_with("error "), "{name}: {answer}");
        let backend = guest(name, &[&origin], known.clone()).await;
        let answer = ask(&backend, &format!("get {origin}/hello")).await;
        assert_eq!(answer, "200 hello", "{name}");
    }
    assert_eq!(server.requests(), GUESTS.len());
}
