//! Connects to a server that takes connections and does nothing with them: of
//! its orders `read ADDRESS` waits for a byte that never comes, `write ADDRESS`
//! sends until nothing more is taken.

use std::io::{Read, Write};
use std::net::TcpStream;

use test_guests::order;

test_guests::export_publish!("use-dead-server", |events| {
    let (verb, address) = order(events).split_once(' ').expect("VERB ADDRESS");
    let mut server = TcpStream::connect(address).expect("it connects");
    match verb {
        "read" => server.read_exact(&mut [0]).expect("a byte"),
        _ => loop {
            server.write_all(&[b'x'; 64 << 10]).expect("it is taken");
        },
    }
    Ok(())
});
