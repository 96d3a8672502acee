//! Listens for connections, or binds a UDP socket, at the address of its
//! orders, and reports what came of it.

use std::net::{TcpListener, UdpSocket};

use test_guests::{order, report};

test_guests::export_publish!("listen", |events| {
    let bound = match order(events).split_once(' ') {
        Some(("udp", address)) => UdpSocket::bind(address).map(drop),
        Some((_, address)) => TcpListener::bind(address).map(drop),
        None => unreachable!("no such order"),
    };
    match bound {
        Ok(()) => report("listening"),
        Err(error) => report(format!("error {error}")),
    }
});
