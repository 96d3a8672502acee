//! Connects to the address of its orders again and again and keeps every
//! connection, until it is refused, and reports how many it got.

use std::net::TcpStream;

use test_guests::{order, report};

test_guests::export_publish!("open-sockets", |events| {
    let mut kept = Vec::new();
    while kept.len() < 5000 {
        match TcpStream::connect(order(events)) {
            Ok(stream) => kept.push(stream),
            Err(error) => return report(format!("{} {error}", kept.len())),
        }
    }
    report(kept.len())
});
