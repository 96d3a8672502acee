//! Does with WASI 0.3 sockets what its orders say (`connect ADDRESS`, `listen
//! ADDRESS`, `udp ADDRESS`, `ask ADDRESS`, `bind-udp ADDRESS`, `lookup NAME`), and
//! reports what came of it.

use std::net::{SocketAddr, SocketAddrV4};

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::{order, report};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket,
};

struct ConnectAsync;

impl AsyncBackend for ConnectAsync {
    const NAME: &'static str = "connect-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(ConnectAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let (verb, target) = order(events).split_once(' ').expect("VERB TARGET");
        match act(verb, target).await {
            Ok(text) => report(format!("ok {text}")),
            Err(text) => report(format!("error {text}")),
        }
    }
}

backhaul_guest::export_async!(ConnectAsync);

async fn act(verb: &str, target: &str) -> Result<String, String> {
    match verb {
        "connect" => {
            let socket = tcp()?;
            let connected = socket.connect(address(target)).await;
            connected.map(|()| String::new()).map_err(debug)
        }
        "listen" => {
            let socket = tcp()?;
            socket.bind(address(target)).map_err(debug)?;
            socket.listen().map(|_| String::new()).map_err(debug)
        }
        "udp" => {
            let socket = udp()?;
            let sent = socket.send(b"secret".to_vec(), Some(address(target))).await;
            sent.map(|()| String::new()).map_err(debug)
        }
        "ask" => {
            let socket = udp()?;
            let sent = socket.send(b"hello from the guest".to_vec(), Some(address(target)));
            sent.await.map_err(debug)?;
            let (answer, _) = socket.receive().await.map_err(debug)?;
            Ok(String::from_utf8_lossy(&answer).into_owned())
        }
        "bind-udp" => {
            let bound = udp()?.bind(address(target));
            bound.map(|()| String::new()).map_err(debug)
        }
        "lookup" => {
            let addresses = resolve_addresses(target.to_owned()).await;
            addresses.map(|found| format!("{found:?}")).map_err(debug)
        }
        _ => unreachable!("no such order"),
    }
}

fn tcp() -> Result<TcpSocket, String> {
    TcpSocket::create(IpAddressFamily::Ipv4).map_err(debug)
}

fn udp() -> Result<UdpSocket, String> {
    UdpSocket::create(IpAddressFamily::Ipv4).map_err(debug)
}

fn address(text: &str) -> IpSocketAddress {
    let SocketAddr::V4(address) = text.parse().expect("an address") else {
        panic!("tests use IPv4 here");
    };
    IpSocketAddress::Ipv4(v4(address))
}

fn v4(address: SocketAddrV4) -> Ipv4SocketAddress {
    let [a, b, c, d] = address.ip().octets();
    Ipv4SocketAddress {
        port: address.port(),
        address: (a, b, c, d),
    }
}

fn debug(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}
