//! Looks up the `NAME:PORT` of its orders and reports the addresses.

use std::net::ToSocketAddrs;

use test_guests::{order, report};

test_guests::export_publish!("lookup", |events| {
    match order(events).to_socket_addrs() {
        Ok(addresses) => report(format!("{:?}", addresses.collect::<Vec<_>>())),
        Err(error) => report(format!("error {error}")),
    }
});
