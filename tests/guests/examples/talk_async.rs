//! The same as `talk`, with WASI 0.3.

use std::net::{IpAddr, SocketAddr};

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::{order, pattern, report};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress, TcpSocket,
};
use wasip3::wit_bindgen::StreamResult;
use wasip3::wit_stream;

struct TalkAsync;

impl AsyncBackend for TalkAsync {
    const NAME: &'static str = "talk-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(TalkAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let words: Vec<&str> = order(events).split(' ').collect();
        match talk(&words).await {
            Ok(text) => report(format!("ok {text}")),
            Err(text) => report(format!("error {text}")),
        }
    }
}

backhaul_guest::export_async!(TalkAsync);

async fn talk(words: &[&str]) -> Result<String, String> {
    match *words {
        ["peer", server] => {
            let socket = connect(server).await?;
            let peer = socket.get_remote_address().map_err(debug)?;
            Ok(shown(peer).to_string())
        }
        ["say", word, server] => {
            let socket = connect(server).await?;
            let back = exchange(&socket, format!("{word}\n").into_bytes(), true).await?;
            match back.is_empty() {
                true => Err("no answer".to_owned()),
                false => Ok(String::from_utf8_lossy(&back).trim_end().to_owned()),
            }
        }
        ["echo", bytes, server] => {
            let sent = pattern(bytes.parse().expect("a number"));
            let socket = connect(server).await?;
            let back = exchange(&socket, sent.clone(), false).await?;
            assert!(back == sent, "{} bytes came back", back.len());
            Ok(back.len().to_string())
        }
        ["many", most, server] => {
            let most = most.parse().expect("a number");
            let mut open = Vec::new();
            while open.len() < most {
                match connect(server).await {
                    Ok(socket) => open.push(socket),
                    Err(_) => break,
                }
            }
            Ok(open.len().to_string())
        }
        _ => unreachable!("no such order"),
    }
}

/// Sends, ends its own side, and reads what comes, to the end of the first line
/// or of all.
async fn exchange(socket: &TcpSocket, data: Vec<u8>, line: bool) -> Result<Vec<u8>, String> {
    let (mut writer, contents) = wit_stream::new();
    let sent = socket.send(contents);
    let write = async {
        let left = writer.write_all(data).await;
        drop(writer);
        sent.await.map_err(debug)?;
        match left.is_empty() {
            true => Ok(()),
            false => Err("the server did not take all of it".to_owned()),
        }
    };
    let read = async {
        let (mut reader, ended) = socket.receive();
        let mut back = Vec::new();
        loop {
            let (status, some) = reader.read(Vec::with_capacity(64 << 10)).await;
            back.extend(some);
            if line && back.ends_with(b"\n") {
                return Ok::<Vec<u8>, String>(back);
            }
            match status {
                StreamResult::Complete(_) => {}
                StreamResult::Dropped | StreamResult::Cancelled => break,
            }
        }
        drop(reader);
        ended.await.map_err(debug)?;
        Ok(back)
    };
    let (written, back) = futures::join!(write, read);
    // What the server said, or why it says nothing, tells more.
    let back = back?;
    written?;
    Ok(back)
}

async fn connect(server: &str) -> Result<TcpSocket, String> {
    let (host, port) = server.rsplit_once(':').expect("HOST:PORT");
    let port = port.parse().expect("a port");
    let addresses: Vec<SocketAddr> = match server.parse() {
        Ok(address) => vec![address],
        Err(_) => {
            let found = resolve_addresses(host.to_owned()).await.map_err(debug)?;
            found.into_iter().map(|address| at(address, port)).collect()
        }
    };
    let mut failure = "the name has no address".to_owned();
    for address in addresses {
        let socket = match address.ip() {
            IpAddr::V4(_) => TcpSocket::create(IpAddressFamily::Ipv4),
            IpAddr::V6(_) => TcpSocket::create(IpAddressFamily::Ipv6),
        };
        let socket = socket.map_err(debug)?;
        match socket.connect(asked(address)).await {
            Ok(()) => return Ok(socket),
            Err(error) => failure = debug(error),
        }
    }
    Err(failure)
}

fn at(address: IpAddress, port: u16) -> SocketAddr {
    let ip = match address {
        IpAddress::Ipv4((a, b, c, d)) => IpAddr::from([a, b, c, d]),
        IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => IpAddr::from([a, b, c, d, e, f, g, h]),
    };
    SocketAddr::new(ip, port)
}

fn shown(address: IpSocketAddress) -> SocketAddr {
    match address {
        IpSocketAddress::Ipv4(v4) => at(IpAddress::Ipv4(v4.address), v4.port),
        IpSocketAddress::Ipv6(v6) => at(IpAddress::Ipv6(v6.address), v6.port),
    }
}

fn asked(address: SocketAddr) -> IpSocketAddress {
    let port = address.port();
    match address.ip() {
        IpAddr::V4(ip) => {
            let [a, b, c, d] = ip.octets();
            let address = (a, b, c, d);
            IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address })
        }
        IpAddr::V6(ip) => {
            let [a, b, c, d, e, f, g, h] = ip.segments();
            IpSocketAddress::Ipv6(Ipv6SocketAddress {
                port,
                flow_info: 0,
                address: (a, b, c, d, e, f, g, h),
                scope_id: 0,
            })
        }
    }
}

fn debug(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}
