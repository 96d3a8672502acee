//! `HOST:PORT`, as grants of TCP and UDP are written, and `tls://HOST:PORT` and
//! `tls+nats://HOST:PORT`.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use super::host::{Host, is_name, normalized, port, without_password};

/// A server a plugin may reach at one port, written `HOST:PORT`. The host is a
/// name, an IPv4 address, or an IPv6 address in brackets.
///
/// With `tls://` before it, for TCP alone, the host speaks TLS with the server, and
/// plain text with the plugin. With `tls+nats://` the same, and TLS begins after the
/// first line of a NATS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketGrant {
    pub(super) transport: Transport,
    pub(super) host: Host,
    pub(super) port: u16,
}

/// How the host speaks with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Plain,
    Tls,
    /// TLS after the first line of a NATS server, which is plain text.
    NatsTls,
}

impl Transport {
    /// What stands before the host.
    fn scheme(self) -> &'static str {
        match self {
            Transport::Plain => "",
            Transport::Tls => "tls://",
            Transport::NatsTls => "tls+nats://",
        }
    }
}

impl FromStr for SocketGrant {
    type Err = InvalidSocketGrant;

    fn from_str(text: &str) -> Result<SocketGrant, InvalidSocketGrant> {
        let parse = || {
            let with = |transport: Transport| {
                let server = text.strip_prefix(transport.scheme())?;
                Some((transport, server))
            };
            let tls = with(Transport::Tls).or_else(|| with(Transport::NatsTls));
            let (transport, server) = tls.unwrap_or((Transport::Plain, text));
            let (host, digits) = server.rsplit_once(':')?;
            let (host, port) = (Host::new(host).ok()?, port(digits)?);
            Some(SocketGrant {
                transport,
                host,
                port,
            })
        };
        parse().ok_or_else(|| InvalidSocketGrant(without_password(text)))
    }
}

impl fmt::Display for SocketGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = self.transport.scheme();
        write!(f, "{scheme}{}:{}", self.host, self.port)
    }
}

/// A text that is neither `HOST:PORT` nor that with `tls://` or `tls+nats://` before it.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not HOST:PORT, for instance \"redis.internal:6379\", \"10.0.0.7:6379\" or \
     \"[::1]:6379\"; with TLS, which is for TCP, it is \"tls://redis.internal:6380\" or \
     \"tls+nats://nats.internal:4222\""
)]
pub struct InvalidSocketGrant(String);

impl SocketGrant {
    /// Whether the host speaks TLS with the server.
    pub fn is_tls(&self) -> bool {
        self.transport != Transport::Plain
    }

    /// Whether the server says something in plain text before TLS begins.
    pub(super) fn is_nats(&self) -> bool {
        self.transport == Transport::NatsTls
    }

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
            "tls://redis:1",
            "tls://[::1]:1",
            "tls+nats://nats:4222",
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
            "rediss://x:1",
            "TLS://x:1",
            "tls://x",
            "tls://x:1/",
            "tls://tls://x:1",
            "tls:x:1",
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
