//! TCP and UDP: granted servers, and no other use of the network.

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::thread::JoinHandle;

use backhaul::wasm::{Grants, WasmBackend};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;

use crate::guest::{GENEROUS, ask, start, within};

/// A server that takes one connection; joining gives the line it was sent.
fn server() -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("its address");
    let serving = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a connection");
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a line");
        line
    });
    (address, serving)
}

/// A server no connection may reach.
fn forbidden() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.set_nonblocking(true).expect("does not wait");
    let address = listener.local_addr().expect("its address");
    (listener, address)
}

fn assert_untouched(listener: &TcpListener) {
    let accepted = listener.accept();
    let error = accepted.expect_err("nobody connected");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

async fn guest(name: &str, tcp: &[&str]) -> WasmBackend {
    let tcp = tcp.iter().map(|grant| grant.parse().expect("a grant"));
    let grants = Grants {
        tcp: tcp.collect(),
        ..Grants::default()
    };
    start(name, grants, within(GENEROUS)).await
}

/// A guest with a UDP grant.
async fn udp_guest(name: &str, udp: &[&str]) -> WasmBackend {
    let udp = udp.iter().map(|grant| grant.parse().expect("a grant"));
    let grants = Grants {
        udp: udp.collect(),
        ..Grants::default()
    };
    start(name, grants, within(GENEROUS)).await
}

/// A UDP server that takes one datagram, and answers it after a stranger has;
/// joining gives what it was sent.
fn udp_server() -> (SocketAddr, JoinHandle<String>) {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a free port");
    let address = socket.local_addr().expect("its address");
    let serving = std::thread::spawn(move || {
        let mut question = [0; 100];
        let (length, guest) = socket.recv_from(&mut question).expect("a datagram");
        let stranger = UdpSocket::bind("127.0.0.1:0").expect("a free port");
        let guest = SocketAddr::new(address.ip(), guest.port());
        let sent = stranger.send_to(b"from a stranger", guest);
        sent.expect("the guest's port is open");
        socket.send_to(b"the answer", guest).expect("it is sent");
        String::from_utf8_lossy(&question[..length]).into_owned()
    });
    (address, serving)
}

#[tokio::test]
async fn a_granted_udp_server_is_asked_and_nobody_else_is_heard() {
    for (guest, verb, host) in [
        ("exchange_datagrams", "ask", "127.0.0.1"),
        ("exchange_datagrams", "ask-connected", "127.0.0.1"),
        ("exchange_datagrams", "ask", "localhost"),
        ("connect_async", "ask", "127.0.0.1"),
    ] {
        let (address, serving) = udp_server();
        let server = format!("{host}:{}", address.port());
        let backend = udp_guest(guest, &[&server]).await;
        let answer = ask(&backend, &format!("{verb} {server}")).await;
        assert_eq!(answer, "ok the answer", "{guest} {verb} {server}");
        assert_eq!(serving.join().unwrap(), "hello from the guest");
    }
}

#[tokio::test]
async fn no_datagram_leaves_for_where_none_is_granted() {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_nonblocking(true).unwrap();
    let address = socket.local_addr().unwrap();
    let port = address.port();
    for grants in [
        &[][..],
        &[format!("127.0.0.1:{}", port.wrapping_add(1).max(1)).as_str()],
        &[format!("127.0.0.2:{port}").as_str()],
        &[format!("localhost:{port}").as_str()],
    ] {
        for (guest, verb) in [
            ("exchange_datagrams", "ask"),
            ("exchange_datagrams", "ask-connected"),
            ("connect_async", "udp"),
        ] {
            let backend = udp_guest(guest, grants).await;
            let answer = ask(&backend, &format!("{verb} {address}")).await;
            assert!(
                answer.starts_with("error "),
                "{grants:?} {guest} {verb}: {answer}"
            );
        }
    }
    let error = socket.recv(&mut [0; 100]).expect_err("nothing came");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_udp_grant_is_neither_one_to_choose_a_port_nor_one_of_tcp() {
    let (listener, address) = forbidden();
    let address = address.to_string();
    for (guest, order) in [
        ("listen", "udp 127.0.0.1:0"),
        ("listen", "udp 0.0.0.0:5353"),
        ("connect_async", "bind-udp 127.0.0.1:0"),
        ("connect_async", "bind-udp 0.0.0.0:5353"),
        ("connect_async", &format!("connect {address}")),
        ("connect", &address),
    ] {
        let backend = udp_guest(guest, &[&address]).await;
        let answer = ask(&backend, order).await;
        assert!(answer.starts_with("error "), "{guest} {order}: {answer}");
    }
    let backend = udp_guest("connect_async", &[&address]).await;
    assert_eq!(ask(&backend, "bind-udp 0.0.0.0:0").await, "ok ");
    assert_untouched(&listener);
}

#[tokio::test]
async fn a_granted_address_is_reached() {
    let (address, serving) = server();
    let address = address.to_string();
    let backend = guest("connect", &[&address]).await;
    assert_eq!(ask(&backend, &address).await, "connected");
    assert_eq!(serving.join().unwrap(), "hello from the guest\n");
}

#[tokio::test]
async fn a_granted_name_is_looked_up_and_reached() {
    let (address, serving) = server();
    let target = format!("localhost:{}", address.port());
    let backend = guest("connect", &[&target]).await;
    assert_eq!(ask(&backend, &target).await, "connected");
    assert_eq!(serving.join().unwrap(), "hello from the guest\n");
}

#[tokio::test]
async fn another_port_or_address_than_granted_is_not_reached() {
    let (listener, address) = forbidden();
    let port = address.port();
    let other_port = format!("127.0.0.1:{}", port.wrapping_add(1).max(1));
    let other_address = format!("127.0.0.2:{port}");
    let other_name = format!("localhost:{}", port.wrapping_add(1).max(1));
    for grants in [
        &[][..],
        &[other_port.as_str()],
        &[other_address.as_str()],
        &[other_name.as_str()],
    ] {
        let backend = guest("connect", grants).await;
        for target in [
            format!("127.0.0.1:{port}"),
            format!("[::ffff:127.0.0.1]:{port}"),
            format!("localhost:{port}"),
        ] {
            let answer = ask(&backend, &target).await;
            assert!(
                answer.starts_with("error "),
                "{grants:?} {target}: {answer}"
            );
        }
    }
    assert_untouched(&listener);
}

#[tokio::test]
async fn a_granted_name_is_no_grant_of_its_address_without_the_look_up() {
    let (listener, address) = forbidden();
    let name = format!("localhost:{}", address.port());
    let backend = guest("connect", &[&name]).await;
    let answer = ask(&backend, &address.to_string()).await;
    assert!(answer.starts_with("error "), "{answer}");
    assert_untouched(&listener);
}

#[tokio::test]
async fn only_granted_names_are_looked_up() {
    let backend = guest("lookup", &["localhost:80", "127.0.0.1:81"]).await;
    let answer = ask(&backend, "localhost:80").await;
    assert!(
        answer.contains("127.0.0.1:80") || answer.contains("[::1]:80"),
        "{answer}"
    );
    for name in [
        "example.com:80",
        "c2VjcmV0.localhost:80",
        "ip6-localhost:80",
        "localhost.example.com:80",
    ] {
        let answer = ask(&backend, name).await;
        assert!(answer.starts_with("error "), "{name}: {answer}");
    }

    let without = guest("lookup", &["127.0.0.1:80"]).await;
    let answer = ask(&without, "localhost:80").await;
    assert!(answer.starts_with("error "), "{answer}");
}

#[tokio::test]
async fn nobody_can_connect_to_a_plugin_and_udp_is_not_to_be_had() {
    let backend = guest("listen", &["127.0.0.1:80"]).await;
    for order in [
        "tcp 127.0.0.1:0",
        "tcp 0.0.0.0:0",
        "tcp [::]:0",
        "tcp [::1]:0",
        "udp 127.0.0.1:0",
        "udp 0.0.0.0:0",
        "udp [::]:0",
    ] {
        let answer = ask(&backend, order).await;
        assert!(answer.starts_with("error "), "{order}: {answer}");
    }
}

#[test]
fn a_denial_is_logged_with_the_plugin_the_target_and_the_line_that_would_allow_it() {
    let (address, serving) = server();
    let guest = components::test_guest("connect");
    let workspace = Workspace::new();
    workspace.add_plugin("orders", &guest, "events = [\"order:*\"]\n");

    let host = workspace.serve();
    host.post_event("1", "order:connect", &address.to_string());
    let line = format!("tcp = [\"{address}\"]");
    let denied = |tried: &str, line: &str| {
        host.wait_for_log(&format!(
            "denied: it tried to {tried}; to allow that, write in orders.toml, under [grants]: {line} plugin=\"orders\""
        ));
    };
    denied(&format!("connect to {address}"), &line);
    // Not before: of a batch, this guest does only the first order.
    host.post_event("2", "order:connect", "redis.internal:6379");
    denied(
        "look up the name redis.internal",
        "tcp = [\"redis.internal:PORT\"]",
    );
    host.post_event("4", "order:connect", "a\"b.example:1");
    host.wait_for_log(
        "denied: it tried to look up the name a\"b.example, which no manifest can grant",
    );
    drop(host);

    let manifest = format!("events = [\"order:*\"]\n[grants]\n{line}\n");
    workspace.add_plugin("orders", &guest, &manifest);
    let host = workspace.serve();
    host.post_event("3", "order:connect", &address.to_string());
    assert_eq!(serving.join().unwrap(), "hello from the guest\n");
}

#[test]
fn a_denial_is_logged_once_however_often_it_is_tried() {
    let (listener, address) = forbidden();
    let workspace = Workspace::new();
    workspace.add_plugin("connect", &components::test_guest("connect"), "");
    let host = workspace.serve();
    for id in ["1", "2", "3"] {
        host.post_event(id, "order:connect", &address.to_string());
    }
    let (status, log) = host.stop();
    assert!(status.success());
    assert_eq!(
        log.matches("denied: it tried to connect").count(),
        1,
        "{log}"
    );
    assert_untouched(&listener);
}

#[tokio::test]
async fn grants_hold_for_wasi_0_3_as_well() {
    let granted = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = granted.local_addr().unwrap();
    let (listener, closed) = forbidden();
    let name = format!("localhost:{}", address.port());
    let backend = guest("connect_async", &[&address.to_string(), &name]).await;

    assert_eq!(ask(&backend, &format!("connect {address}")).await, "ok ");
    granted.accept().unwrap();
    let answer = ask(&backend, "lookup localhost").await;
    assert!(answer.starts_with("ok ["), "{answer}");
    for order in [
        format!("connect {closed}"),
        format!("connect 127.0.0.2:{}", address.port()),
        "lookup example.com".to_owned(),
        "listen 127.0.0.1:0".to_owned(),
        "listen 0.0.0.0:0".to_owned(),
        format!("udp {address}"),
    ] {
        let answer = ask(&backend, &order).await;
        assert_eq!(answer, "error ErrorCode::AccessDenied", "{order}");
    }
    assert_untouched(&listener);
}

#[tokio::test]
async fn a_name_granted_to_wasi_0_3_reaches_what_it_answered_and_nothing_before() {
    let granted = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = granted.local_addr().unwrap();
    let name = format!("localhost:{}", address.port());
    let backend = guest("connect_async", &[&name]).await;
    let connect = format!("connect {address}");

    assert_eq!(
        ask(&backend, &connect).await,
        "error ErrorCode::AccessDenied"
    );
    let answer = ask(&backend, "lookup localhost").await;
    assert!(answer.contains("127, 0, 0, 1"), "{answer}");
    assert_eq!(ask(&backend, &connect).await, "ok ");
}

#[test]
fn a_plugin_cannot_use_up_the_hosts_sockets() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    // Ends with the test's process; each connection stays open until then.
    std::thread::spawn(move || listener.incoming().flatten().collect::<Vec<_>>());
    let workspace = Workspace::new();
    let manifest = format!("events = [\"order:*\"]\n[grants]\ntcp = [\"{address}\"]");
    workspace.add_plugin("hog", &components::test_guest("open_sockets"), &manifest);
    workspace.add_file_plugin();
    let host = workspace.serve();
    host.post_event("1", "order:connect", &address.to_string());
    host.wait_for_log("it ran over the limit of 512 open files, sockets and streams together");
    assert_eq!(host.post_event("2", "after:signup", "1").status, 202);
    workspace.wait_for_file_lines(2);
}
