//! What the grants lead to, for addresses and names.

use super::*;
use crate::wasm::grants::MAX_ADDRESSES;
use crate::wasm::secrets::Secrets;

fn network(tcp: &[&str], udp: &[&str]) -> Network {
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let grants = Grants {
        tcp: parse(tcp),
        udp: parse(udp),
        ..Grants::default()
    };
    Network::new(
        &grants,
        Arc::new(Denials::new("test".into(), Secrets::default())),
        Reroute::default(),
    )
}

fn check(network: &Network, address: &str, purpose: SocketAddrUse) -> bool {
    network.check(address.parse().unwrap(), purpose)
}

fn connects(network: &Network, address: &str) -> bool {
    check(network, address, SocketAddrUse::TcpConnect)
}

fn answer(network: &Network, name: &str, addresses: &[&str]) {
    let addresses: Vec<IpAddr> = addresses.iter().map(|ip| ip.parse().unwrap()).collect();
    network.answered(name, &addresses);
}

#[test]
fn only_the_granted_address_and_port_are_reached() {
    let network = network(&["10.0.0.7:6379", "[fd00::7]:6379"], &[]);
    assert!(connects(&network, "10.0.0.7:6379"));
    assert!(
        connects(&network, "[::ffff:10.0.0.7]:6379"),
        "the same address, mapped"
    );
    assert!(connects(&network, "[fd00::7]:6379"));
    assert!(!connects(&network, "10.0.0.7:6380"));
    assert!(!connects(&network, "10.0.0.8:6379"));
    assert!(!connects(&network, "[::ffff:169.254.169.254]:6379"));
    // Other ways to write 10.0.0.7 are other addresses.
    for other in [
        "[::10.0.0.7]:6379",
        "[64:ff9b::10.0.0.7]:6379",
        "[2002:a00:7::]:6379",
    ] {
        assert!(!connects(&network, other), "{other}");
    }
}

#[test]
fn a_name_reaches_only_what_its_own_look_up_answered() {
    let network = network(&["redis.internal:6379", "other.internal:22"], &[]);
    assert!(
        !connects(&network, "10.0.0.7:6379"),
        "before it was looked up"
    );
    answer(&network, "redis.internal", &["10.0.0.7"]);
    assert!(connects(&network, "10.0.0.7:6379"));
    assert!(!connects(&network, "10.0.0.7:22"), "the other's port");
}

#[test]
fn only_a_granted_name_is_looked_up_and_as_it_was_granted() {
    let network = network(&["redis.internal:1", "[::1]:2"], &["statsd.internal:3"]);
    let name = |name: &str| Some(Host::Name(name.to_owned()));
    assert_eq!(
        network.may_look_up("REDIS.internal."),
        name("redis.internal")
    );
    assert_eq!(
        network.may_look_up("statsd.internal"),
        name("statsd.internal")
    );
    assert!(network.may_look_up("::1").is_some());
    for other in [
        "",
        ".",
        "evil.example",
        "c2VjcmV0.redis.internal",
        "redis.internal..",
        "redis.internal\0.evil.example",
        "redis.internal%00",
        "redis.interna\u{ff4c}",
        "\u{212a}redis.internal",
        "redis\u{3002}internal",
        "1",
        "127.1",
        "0x7f.1",
        "::1%1",
        "[::1]",
        &"x".repeat(10 << 20),
    ] {
        assert_eq!(
            network.may_look_up(other),
            None,
            "{}",
            &other[..other.len().min(40)]
        );
    }
}

#[test]
fn a_name_that_points_inside_the_machine_leads_nowhere() {
    let network = network(&["redis.internal:80", "localhost:81"], &[]);
    for address in [
        "127.0.0.1",
        "169.254.169.254",
        "::1",
        "fe80::1",
        "0.0.0.0",
        "0.0.0.1",
        "fd00:ec2::254",
        "64:ff9b::169.254.169.254",
        "2002:7f00:1::",
        "255.255.255.255",
        "224.0.0.1",
    ] {
        answer(&network, "redis.internal", &[address]);
        let address = SocketAddr::new(address.parse().unwrap(), 80).to_string();
        assert!(!connects(&network, &address), "{address}");
    }
    answer(&network, "localhost", &["127.0.0.1", "169.254.169.254"]);
    assert!(
        connects(&network, "127.0.0.1:81"),
        "localhost says so itself"
    );
    assert!(!connects(&network, "169.254.169.254:81"));
}

#[test]
fn a_public_name_that_turns_to_a_private_address_is_refused_it() {
    let private = [
        "10.0.0.7",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "fd12::1",
        "64:ff9b::10.0.0.7",
        "::ffff:10.0.0.7",
    ];
    for address in private {
        let network = network(&["queue.example:80"], &["queue.example:80"]);
        answer(&network, "queue.example", &["93.184.215.14"]);
        answer(&network, "queue.example", &[address]);
        let target = SocketAddr::new(address.parse().unwrap(), 80).to_string();
        assert!(!connects(&network, &target), "{address}");
        assert!(
            !check(&network, &target, SocketAddrUse::UdpSend),
            "{address}"
        );
        assert!(connects(&network, "93.184.215.14:80"), "what it was before");
        answer(&network, "queue.example", &["93.184.215.15"]);
        assert!(connects(&network, "93.184.215.15:80"), "another public one");
    }
}

#[test]
fn a_name_that_is_private_from_the_start_may_move() {
    let network = network(&["redis.internal:80", "both.internal:80"], &[]);
    answer(&network, "redis.internal", &[]);
    answer(&network, "redis.internal", &["10.0.0.7"]);
    answer(&network, "redis.internal", &["10.0.0.8"]);
    assert!(connects(&network, "10.0.0.8:80"));
    answer(&network, "both.internal", &["93.184.215.14", "10.1.0.1"]);
    answer(&network, "both.internal", &["10.1.0.2"]);
    assert!(connects(&network, "10.1.0.2:80"));
}

#[test]
fn a_private_address_granted_as_such_is_reached_whatever_names_answer() {
    let network = network(&["queue.example:80", "10.0.0.7:80"], &[]);
    answer(&network, "queue.example", &["93.184.215.14"]);
    answer(&network, "queue.example", &["10.0.0.7"]);
    assert!(connects(&network, "10.0.0.7:80"));
}

#[test]
fn only_so_many_addresses_of_a_name_are_remembered() {
    let network = network(&["queue.example:80"], &[]);
    for n in 0..=MAX_ADDRESSES {
        answer(&network, "queue.example", &[&format!("93.184.0.{n}")]);
    }
    let remembered = |n: &usize| connects(&network, &format!("93.184.0.{n}:80"));
    assert!(!remembered(&0), "the oldest");
    assert_eq!(
        (1..=MAX_ADDRESSES).filter(remembered).count(),
        MAX_ADDRESSES
    );
}

#[test]
fn a_tcp_grant_is_no_udp_grant_and_the_other_way_round() {
    let network = network(&["10.0.0.7:1"], &["10.0.0.7:2"]);
    assert!(connects(&network, "10.0.0.7:1"));
    assert!(!connects(&network, "10.0.0.7:2"));
    assert!(!check(&network, "10.0.0.7:1", SocketAddrUse::UdpSend));
    assert!(check(&network, "10.0.0.7:2", SocketAddrUse::UdpSend));
}

#[test]
fn datagrams_are_taken_from_granted_servers_alone_and_others_are_no_denial() {
    let network = network(&[], &["10.0.0.7:53"]);
    assert!(check(&network, "10.0.0.7:53", SocketAddrUse::UdpReceive));
    assert!(!check(&network, "10.0.0.7:54", SocketAddrUse::UdpReceive));
    assert!(!check(&network, "10.0.0.8:53", SocketAddrUse::UdpReceive));
    assert_eq!(network.denials.snapshot().total, 0);
}

#[test]
fn nothing_else_is_done_with_sockets() {
    let network = network(&["10.0.0.7:6379"], &[]);
    let check = |address: &str, purpose| check(&network, address, purpose);
    assert!(check("0.0.0.0:0", SocketAddrUse::TcpBind));
    assert!(check("[::]:0", SocketAddrUse::TcpBind));
    assert!(!check("0.0.0.0:80", SocketAddrUse::TcpBind));
    assert!(!check("127.0.0.1:0", SocketAddrUse::TcpBind));
    assert!(!check("0.0.0.0:0", SocketAddrUse::TcpListen));
    assert!(!check("10.0.0.7:6379", SocketAddrUse::TcpAccept));
    assert!(
        !check("0.0.0.0:0", SocketAddrUse::UdpBind),
        "without a grant"
    );
    assert!(!check("10.0.0.7:6379", SocketAddrUse::UdpSend));
}

#[test]
fn a_udp_socket_is_bound_to_no_port_of_the_guests_choice() {
    let network = network(&[], &["10.0.0.7:53"]);
    let binds = |address: &str| check(&network, address, SocketAddrUse::UdpBind);
    assert!(binds("0.0.0.0:0") && binds("[::]:0"));
    assert!(!binds("0.0.0.0:53") && !binds("127.0.0.1:0") && !binds("10.0.0.7:53"));
}

#[test]
fn a_denial_says_why_and_what_would_allow_it() {
    let network = network(&["queue.example:80"], &[]);
    answer(&network, "queue.example", &["93.184.215.14"]);
    answer(&network, "queue.example", &["10.0.0.7"]);
    connects(&network, "[::ffff:10.0.0.7]:80");
    connects(&network, "10.0.0.7:80");
    network.may_look_up("redis.internal");
    network.may_look_up("::1");
    network.may_look_up("x:1\", \"y");
    check(&network, "0.0.0.0:80", SocketAddrUse::TcpBind);
    check(&network, "0.0.0.0:0", SocketAddrUse::UdpBind);
    let report = network.denials.snapshot();
    assert_eq!(report.total, 7);
    let shown: Vec<_> = report
        .denials
        .iter()
        .map(|denial| {
            let allow = denial.allow.as_deref().unwrap_or("nothing");
            format!(
                "{} {} {}: {allow}",
                denial.kind, denial.target, denial.count
            )
        })
        .collect();
    assert_eq!(
        shown,
        [
            "tcp 10.0.0.7:80 2: tcp = [\"10.0.0.7:80\"]",
            "udp 0.0.0.0:0 1: udp = [\"HOST:PORT\"]",
            "name ::1 1: tcp = [\"[::1]:PORT\"]",
            "name redis.internal 1: tcp = [\"redis.internal:PORT\"]",
            // What is copied into a manifest grants what it says, no more.
            "name x:1\", \"y 1: nothing",
            "listen 0.0.0.0:80 1: nothing",
        ]
    );
}
