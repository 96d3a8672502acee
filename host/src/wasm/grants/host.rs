//! Hosts and ports, read and compared in one way for grants of every kind.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// The longest name of a server, in characters, without a final dot.
pub(super) const MAX_NAME: usize = 253;

/// A server: its name or its address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::wasm) enum Host {
    /// Lower case, without a final dot.
    Name(String),
    /// Never an IPv4 address in the form of an IPv6 one.
    Address(IpAddr),
}

impl Host {
    /// A name, an IPv4 address, or an IPv6 address in brackets; if none of them,
    /// what is wrong with it.
    pub(in crate::wasm) fn new(text: &str) -> Result<Host, &'static str> {
        if let Some(rest) = text.strip_prefix('[') {
            // A zone is no part of it: the guest would choose it.
            let address = rest.strip_suffix(']').ok_or("a `]` is missing")?;
            let address: Ipv6Addr = address.parse().map_err(|_| "its IPv6 address is none")?;
            return Ok(Host::Address(IpAddr::V6(address).to_canonical()));
        }
        match text.parse() {
            Ok(address @ IpAddr::V4(_)) => return Ok(Host::Address(address)),
            Ok(IpAddr::V6(_)) => return Err("its IPv6 address is not in brackets"),
            Err(_) => {}
        }
        let name = normalized(text);
        match () {
            () if name.is_empty() => Err("it has no host"),
            () if is_number(&name) => Err("its IPv4 address is none"),
            () if !is_name(&name) => Err("its host is neither a name nor an address"),
            () => Ok(Host::Name(name)),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V4(address)) => write!(f, "{address}"),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// A port from 1 to 65535; `parse` would take a sign.
pub(in crate::wasm) fn port(digits: &str) -> Option<u16> {
    let port = digits.bytes().all(|b| b.is_ascii_digit()).then_some(digits);
    port?.parse().ok().filter(|port| *port != 0)
}

/// A grant that cannot be one, as it is shown: what stands before an @ may be a
/// password.
pub(in crate::wasm) fn without_password(text: &str) -> String {
    match text.rsplit_once('@') {
        Some((_, host)) => format!("...@{host}"),
        None => text.to_owned(),
    }
}

/// A name as it is compared: lower case, without a final dot.
pub(super) fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether a text is a name, and not an address to some resolver. International
/// names are written as they are looked up, `xn--...`.
pub(super) fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(valid)
    };
    name.len() <= MAX_NAME && !is_number(name) && name.split('.').all(is_label)
}

/// Whether some resolver may take a name for an address: `10.0.0.300`, and `1`,
/// `127.1` and `0x7f.1`, which most of them take for 0.0.0.1 and 127.0.0.1.
fn is_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    match last.strip_prefix("0x") {
        Some(digits) => digits.bytes().all(|b| b.is_ascii_hexdigit()),
        None => last.bytes().all(|b| b.is_ascii_digit()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_shown_as_it_is_granted() {
        for (text, shown) in [
            ("Redis.Internal.", "redis.internal"),
            ("10.0.0.7", "10.0.0.7"),
            ("[::1]", "[::1]"),
            ("[::ffff:10.0.0.7]", "10.0.0.7"),
        ] {
            assert_eq!(Host::new(text).unwrap().to_string(), shown);
        }
    }

    #[test]
    fn what_a_resolver_may_take_for_an_address_is_no_name() {
        for text in [
            "1",
            "127.1",
            "0x7f.1",
            "a.0xa9fea9fe",
            "10.0.0.300",
            "",
            "a..b",
            "::1",
            "[::1",
            "[fe80::1%1]",
            "ä.example",
        ] {
            assert!(Host::new(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_port_is_a_number_without_a_sign() {
        assert_eq!(port("6379"), Some(6379));
        for text in ["", "0", "+80", "-1", "65536", "8 0"] {
            assert_eq!(port(text), None, "{text}");
        }
    }
}
