//! Sends a datagram to the `HOST:PORT` of its orders, from a socket that is not
//! connected (`ask`) or is (`ask-connected`), waits for one, and reports what
//! came of it.

use std::io::Result;
use std::net::UdpSocket;

use test_guests::{order, report};

test_guests::export_publish!("exchange-datagrams", |events| {
    let (verb, server) = order(events).split_once(' ').expect("VERB HOST:PORT");
    match exchange(verb, server) {
        Ok(text) => report(format!("ok {text}")),
        Err(error) => report(format!("error {error}")),
    }
});

fn exchange(verb: &str, server: &str) -> Result<String> {
    let socket = UdpSocket::bind("0.0.0.0:0")?;
    let mut answer = [0; 100];
    let length = match verb {
        "ask" => {
            socket.send_to(b"hello from the guest", server)?;
            socket.recv_from(&mut answer)?.0
        }
        "ask-connected" => {
            socket.connect(server)?;
            socket.send(b"hello from the guest")?;
            socket.recv(&mut answer)?
        }
        _ => unreachable!("no such order"),
    };
    Ok(String::from_utf8_lossy(&answer[..length]).into_owned())
}
