//! A host that connects to other servers than the plugins ask for, because
//! whoever made the engine wants it.

use std::net::{SocketAddr, TcpListener, TcpStream};

use backhaul::wasm::{Grants, WasmBackend, WasmEngine};
use backhaul_tests::certificates::Issuer;
use backhaul_tests::components;
use backhaul_tests::https_server::HttpsServer;

use crate::guest::{GENEROUS, ask, within};
use crate::http::trusting;

/// A server's port that nobody listens on.
fn asked_for() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address")
}

/// A guest whose host connects to `instead` in place of `asked`.
pub(crate) async fn guest(
    name: &str,
    grants: Grants,
    asked: SocketAddr,
    instead: SocketAddr,
) -> WasmBackend {
    let route = move |address| if address == asked { instead } else { address };
    let engine = WasmEngine::builder()
        .cache(Some(components::target().join("test-cache/backhaul")))
        .reroute(route)
        .build()
        .expect("an engine");
    let wasm = std::fs::read(components::test_guest(name)).expect("the guest");
    let component = engine.load(wasm).await.expect("a backend");
    let started = WasmBackend::start(component, name, grants, within(GENEROUS)).await;
    started.expect("the guest starts")
}

fn tcp(grants: &[SocketAddr]) -> Grants {
    let grants = grants.iter().map(|grant| grant.to_string());
    Grants {
        tcp: grants
            .map(|grant| grant.parse().expect("a grant"))
            .collect(),
        ..Grants::default()
    }
}

/// The connections a server has got.
fn taken(listener: &TcpListener) -> Vec<TcpStream> {
    listener.set_nonblocking(true).expect("does not wait");
    std::iter::from_fn(|| listener.accept().ok())
        .map(|(stream, _)| stream)
        .collect()
}

#[tokio::test]
async fn a_granted_address_leads_where_the_engine_says_and_the_guest_sees_what_it_asked_for() {
    for name in ["talk", "talk_async"] {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = asked_for();
        let backend = guest(name, tcp(&[asked]), asked, proxy.local_addr().unwrap()).await;
        let answer = ask(&backend, &format!("peer {asked}")).await;
        assert_eq!(answer, format!("ok {asked}"), "{name}");
        assert_eq!(taken(&proxy).len(), 1, "{name}");
    }
}

#[tokio::test]
async fn what_a_granted_address_leads_to_is_not_granted_itself() {
    for name in ["talk", "talk_async"] {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let (asked, instead) = (asked_for(), proxy.local_addr().unwrap());
        let backend = guest(name, tcp(&[asked]), asked, instead).await;
        for _ in 0..2 {
            let answer = ask(&backend, &format!("peer {instead}")).await;
            assert!(answer.starts_with("error "), "{name}: {answer}");
            // The second time it is known as what the other leads to.
            ask(&backend, &format!("peer {asked}")).await;
        }
        assert_eq!(taken(&proxy).len(), 2, "{name}");
        let denied = backend.denied();
        assert_eq!(denied.total, 2, "{name}: {denied:?}");
    }
}

#[tokio::test]
async fn an_address_that_is_not_granted_leads_nowhere() {
    for name in ["talk", "talk_async"] {
        let proxy = TcpListener::bind("127.0.0.1:0").unwrap();
        let asked = asked_for();
        let backend = guest(name, tcp(&[]), asked, proxy.local_addr().unwrap()).await;
        let answer = ask(&backend, &format!("peer {asked}")).await;
        assert!(answer.starts_with("error "), "{name}: {answer}");
        assert!(taken(&proxy).is_empty(), "{name}");
    }
}

#[tokio::test]
async fn requests_go_where_the_engine_says_and_to_no_server_of_another_name() {
    let issuer = Issuer::new();
    let plain = HttpsServer::plain();
    let trusted = HttpsServer::tls(&issuer.issue(&["localhost"]));
    let other = HttpsServer::tls(&issuer.issue(&["other.example"]));
    for name in ["fetch", "fetch_async"] {
        for (scheme, server, expected) in [
            ("http", &plain, "200 hello"),
            ("https", &trusted, "200 hello"),
            ("https", &other, "error ErrorCode::TlsCertificateError"),
        ] {
            let asked = asked_for();
            let origin = format!("{scheme}://localhost:{}", asked.port());
            let grants = Grants {
                http: vec![origin.parse().unwrap()],
                tls: trusting(&issuer),
                ..Grants::default()
            };
            let instead = SocketAddr::new(asked.ip(), server.port());
            let backend = guest(name, grants, asked, instead).await;
            let answer = ask(&backend, &format!("get {origin}/hello")).await;
            assert_eq!(answer, expected, "{name} {origin}");
        }
    }
}
