//! TLS that the host ends for TCP connections, in both versions of WASI.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use backhaul::wasm::{Grants, TlsRoots, WasmBackend};
use backhaul_tests::certificates::{Issuer, ServerCertificate};
use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::guest::{GENEROUS, ask, start, within};
use crate::http::trusting;
use crate::reroute;

const GUESTS: [&str; 2] = ["talk", "talk_async"];

type Stream = StreamOwned<ServerConnection, TcpStream>;

/// A server with TLS on a free port that treats each connection so.
fn server(
    ip: impl Into<std::net::IpAddr>,
    certificate: &ServerCertificate,
    serve: impl Fn(Stream) -> std::io::Result<()> + Send + Sync + Copy + 'static,
) -> SocketAddr {
    let listener = TcpListener::bind((ip.into(), 0)).expect("a free port");
    let address = listener.local_addr().expect("its address");
    let config: Arc<ServerConfig> = certificate.server_config();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let config = config.clone();
            std::thread::spawn(move || {
                let connection = ServerConnection::new(config).expect("a TLS state");
                // A client that does not trust it is no failure of the server.
                let _ = serve(StreamOwned::new(connection, stream));
            });
        }
    });
    address
}

/// Says everything again when the client has said everything.
fn echo(mut stream: Stream) -> std::io::Result<()> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all)?;
    stream.write_all(&all)?;
    end(stream)
}

/// Answers a line with another.
fn greet(stream: Stream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    stream.read_line(&mut line)?;
    let mut stream = stream.into_inner();
    stream.write_all(format!("hello {line}").as_bytes())?;
    end(stream)
}

fn end(mut stream: Stream) -> std::io::Result<()> {
    stream.conn.send_close_notify();
    stream.flush()?;
    // Closing with something unread would be a reset.
    stream.read_to_end(&mut Vec::new()).map(drop)
}

async fn guest(name: &str, grant: &str, tls: TlsRoots) -> WasmBackend {
    let grants = Grants {
        tcp: vec![grant.parse().expect("a grant")],
        tls,
        ..Grants::default()
    };
    start(name, grants, within(GENEROUS)).await
}

#[tokio::test]
async fn a_guest_speaks_plain_text_with_a_server_that_speaks_tls() {
    let issuer = Issuer::new();
    let certificate = issuer.issue(&["localhost", "127.0.0.1", "::1"]);
    for (ip, host) in [
        (Ipv4Addr::LOCALHOST.into(), "127.0.0.1"),
        (Ipv4Addr::LOCALHOST.into(), "localhost"),
        (std::net::IpAddr::from(Ipv6Addr::LOCALHOST), "[::1]"),
    ] {
        let port = server(ip, &certificate, greet).port();
        for name in GUESTS {
            let grant = format!("tls://{host}:{port}");
            let backend = guest(name, &grant, trusting(&issuer)).await;
            for _ in 0..2 {
                let answer = ask(&backend, &format!("say you {host}:{port}")).await;
                assert_eq!(answer, "ok hello you", "{name} {grant}");
            }
        }
    }
}

#[tokio::test]
async fn much_goes_both_ways_and_each_side_ends_for_itself() {
    let issuer = Issuer::new();
    let certificate = issuer.issue(&["127.0.0.1"]);
    let address = server(Ipv4Addr::LOCALHOST, &certificate, echo);
    for name in GUESTS {
        let backend = guest(name, &format!("tls://{address}"), trusting(&issuer)).await;
        for bytes in [0, 1, 5 << 20] {
            let answer = ask(&backend, &format!("echo {bytes} {address}")).await;
            assert_eq!(answer, format!("ok {bytes}"), "{name}");
        }
    }
}

#[tokio::test]
async fn a_guest_sees_the_address_it_asked_for() {
    let issuer = Issuer::new();
    let certificate = issuer.issue(&["127.0.0.1"]);
    let address = server(Ipv4Addr::LOCALHOST, &certificate, echo);
    for name in GUESTS {
        let backend = guest(name, &format!("tls://{address}"), trusting(&issuer)).await;
        let answer = ask(&backend, &format!("peer {address}")).await;
        assert_eq!(answer, format!("ok {address}"), "{name}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let (issuer, other) = (Issuer::new(), Issuer::new());
    for (what, certificate) in [
        ("another name", issuer.issue(&["other.example"])),
        ("another issuer", other.issue(&["127.0.0.1"])),
        ("out of date", issuer.issue_expired(&["127.0.0.1"])),
    ] {
        let address = server(Ipv4Addr::LOCALHOST, &certificate, greet);
        for name in GUESTS {
            let backend = guest(name, &format!("tls://{address}"), trusting(&issuer)).await;
            let answer = ask(&backend, &format!("say you {address}")).await;
            let aborted = answer.to_lowercase().contains("abort");
            assert!(
                answer.starts_with("error ") && aborted,
                "{what} {name}: {answer}"
            );
            // It is granted, and that is not what is wrong.
            assert_eq!(backend.denied().total, 0, "{what} {name}");
        }
    }
}

#[tokio::test]
async fn a_server_that_speaks_no_tls_gets_nothing_of_the_guests() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let got = std::thread::spawn(move || {
        let mut got = Vec::new();
        for _ in GUESTS {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(b"-ERR what is this\r\n").unwrap();
            let _ = stream.read_to_end(&mut got);
        }
        got
    });
    for name in GUESTS {
        let backend = guest(name, &format!("tls://{address}"), TlsRoots::default()).await;
        let answer = ask(&backend, &format!("say password {address}")).await;
        assert!(answer.starts_with("error "), "{name}: {answer}");
    }
    let got = got.join().unwrap();
    assert!(!got.windows(8).any(|part| part == b"password"), "{got:?}");
}

#[tokio::test]
async fn a_refused_connection_is_told_as_one() {
    let address = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for name in GUESTS {
        let backend = guest(name, &format!("tls://{address}"), TlsRoots::default()).await;
        let answer = ask(&backend, &format!("say you {address}")).await;
        assert!(
            answer.to_lowercase().contains("refused"),
            "{name}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_server_that_never_answers_the_handshake_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let answers = GUESTS.map(|name| async move {
        let backend = guest(name, &format!("tls://{address}"), TlsRoots::default()).await;
        ask(&backend, &format!("say you {address}")).await
    });
    let [first, second] = answers;
    let (first, second) = tokio::join!(first, second);
    for answer in [first, second] {
        assert!(answer.to_lowercase().contains("abort"), "{answer}");
    }
}

#[tokio::test]
async fn an_instance_has_so_many_connections_and_those_that_ended_do_not_count() {
    let issuer = Issuer::new();
    let certificate = issuer.issue(&["127.0.0.1"]);
    let address = server(Ipv4Addr::LOCALHOST, &certificate, echo);
    for name in GUESTS {
        let backend = guest(name, &format!("tls://{address}"), trusting(&issuer)).await;
        let answer = ask(&backend, &format!("many 100 {address}")).await;
        assert_eq!(answer, "ok 64", "{name}");
        let deadline = std::time::Instant::now() + GENEROUS;
        while ask(&backend, &format!("echo 9 {address}")).await != "ok 9" {
            assert!(std::time::Instant::now() < deadline, "{name}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_led_elsewhere_must_still_be_the_granted_one() {
    let issuer = Issuer::new();
    let asked: SocketAddr = "127.0.0.2:6380".parse().unwrap();
    for (certified, expected) in [("127.0.0.2", "ok hello you"), ("127.0.0.1", "error ")] {
        let certificate = issuer.issue(&[certified]);
        let instead = server(Ipv4Addr::LOCALHOST, &certificate, greet);
        for name in GUESTS {
            let grants = Grants {
                tcp: vec![format!("tls://{asked}").parse().unwrap()],
                tls: trusting(&issuer),
                ..Grants::default()
            };
            let backend = reroute::guest(name, grants, asked, instead).await;
            let answer = ask(&backend, &format!("say you {asked}")).await;
            assert!(answer.starts_with(expected), "{name} {certified}: {answer}");
        }
    }
}
