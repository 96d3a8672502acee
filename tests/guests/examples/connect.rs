//! Connects to the `HOST:PORT` of its orders, sends a line, and reports what
//! came of it.

use std::io::Write;
use std::net::TcpStream;

use test_guests::{order, report};

test_guests::export_publish!("connect", |events| {
    let connected = TcpStream::connect(order(events));
    match connected.and_then(|mut stream| stream.write_all(b"hello from the guest\n")) {
        Ok(()) => report("connected"),
        Err(error) => report(format!("error {error}")),
    }
});
