//! `HOST:PORT`, as grants of TCP and UDP are written.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// A server a plugin may reach at one port, written `HOST:PORT`. The host is a
/// name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketGrant {
    pub(super) host: Host,
    pub(super) port: u16,
}

/// The longest name of a server, in characters, without a final dot.
pub(super) const MAX_NAME: usize = 253;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::wasm) enum Host {
    /// Lower case, without a final dot.
    Name(String),
    Address(IpAddr),
}

impl FromStr for SocketGrant {
    type Err = InvalidSocketGrant;

    fn from_str(text: &str) -> Result<SocketGrant, InvalidSocketGrant> {
        // What stands before an @ may be a password.
        let shown = match text.rsplit_once('@') {
            Some((_, host)) => format!("...@{host}"),
            None => text.to_owned(),
        };
        let invalid = || InvalidSocketGrant(shown.clone());
        if let Ok(address) = text.parse::<SocketAddr>() {
            // A zone would not be kept to: the guest chooses it.
            return match address.port() {
                port if port != 0 && !text.contains('%') => Ok(SocketGrant {
                    host: Host::Address(address.ip().to_canonical()),
                    port,
                }),
                _ => Err(invalid()),
            };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(invalid)?;
        let name = normalized(name);
        if !is_name(&name) {
            return Err(invalid());
        }
        Ok(SocketGrant {
            host: Host::Name(name),
            port,
        })
    }
}

impl fmt::Display for SocketGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

/// A text that is not `HOST:PORT`.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not HOST:PORT, for instance \"redis.internal:6379\", \"10.0.0.7:6379\" or \"[::1]:6379\""
)]
pub struct InvalidSocketGrant(String);

/// Whether a text is a name, and not an address to some resolver: `10.0.0.300`,
/// and `1`, `127.1` and `0x7f.1`, which most of them take for 0.0.0.1 and
/// 127.0.0.1. International names are written as they are looked up, `xn--...`.
fn is_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let valid = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        (1..=63).contains(&label.len()) && label.bytes().all(valid)
    };
    let last = name.rsplit('.').next().unwrap_or_default();
    let digits = last.strip_prefix("0x").unwrap_or(last);
    let is_number = match digits.len() == last.len() {
        true => digits.bytes().all(|b| b.is_ascii_digit()),
        false => digits.bytes().all(|b| b.is_ascii_hexdigit()),
    };
    name.len() <= MAX_NAME && !is_number && name.split('.').all(is_label)
}

impl SocketGrant {
    /// What a grant for `name` looks like, without a port; `None` if it is no
    /// name that could be granted.
    pub(super) fn shown_for(name: &str) -> Option<String> {
        match name.parse::<IpAddr>() {
            Ok(IpAddr::V6(address)) => Some(format!("[{address}]:PORT")),
            Ok(IpAddr::V4(address)) => Some(format!("{address}:PORT")),
            Err(_) => is_name(&normalized(name)).then(|| format!("{name}:PORT")),
        }
    }
}

/// A name as it is compared: lower case, without a final dot.
pub(super) fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grant_is_a_host_and_a_port() {
        for text in [
            "Redis.Internal.:6379",
            "10.0.0.7:1",
            "[::1]:65535",
            "a_b-c:80",
            "xn--bcher-kva.example:80",
            "1.example:80",
            "0x7f.example:80",
            "[fe80::1]:80",
        ] {
            text.parse::<SocketGrant>().unwrap();
        }
        assert_eq!(
            "Redis.Internal.:1"
                .parse::<SocketGrant>()
                .unwrap()
                .to_string(),
            "redis.internal:1"
        );
        for text in [
            "",
            "redis",
            "redis:",
            "redis:0",
            "redis:65536",
            ":80",
            "a..b:80",
            "*:80",
            "redis://x:1",
            "10.0.0.300:1",
            "::1:80",
            "a b:80",
            "b\u{fc}cher.example:80",
            "1:80",
            "127.1:80",
            "0177.0.0.01:80",
            "0x7f.1:80",
            "0x7f000001:80",
            "0x:80",
            "a.0xa9fea9fe:80",
            "a.1:80",
            "[fe80::1%2]:80",
            "[fe80::1%eth0]:80",
            "a\0b:80",
            "..:80",
        ] {
            assert!(text.parse::<SocketGrant>().is_err(), "{text}");
        }
        let long = |label: usize| format!("{}.{}:80", "a".repeat(label), "b.".repeat(95));
        assert!(long(63).parse::<SocketGrant>().is_ok());
        assert!(long(64).parse::<SocketGrant>().is_err());
        let longest = format!("{}b:80", "a.".repeat(126));
        assert!(longest.parse::<SocketGrant>().is_ok());
        assert!(format!("a.{longest}").parse::<SocketGrant>().is_err());
    }
}
