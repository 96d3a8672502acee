//! What a plugin may touch. Nothing is granted unless it stands in [`Grants`].
//!
//! `network` is the one place that decides about addresses and names, for WASI
//! 0.2 and 0.3 alike: `answers` keeps what names were resolved to, and `reach` says
//! what an address leads to; `reroute` is where the host connects to instead, if whoever
//! made the engine wants that. `socket` and `files` are kinds of grants, and `host`
//! is how a server is written in those of every kind; `denials` says what was not
//! granted.

mod answers;
mod denials;
mod files;
mod host;
mod network;
mod reach;
mod reroute;
mod socket;

use std::fmt;
use std::sync::Arc;

use wasmtime_wasi::WasiCtxBuilder;

use super::http::HttpGrant;
use super::secrets::EnvGrant;
use super::tls::TlsRoots;

pub(super) use answers::{MAX_ADDRESSES, Misled};
pub(super) use denials::Explanation;
pub use denials::{Denial, DenialKind, DenialReport, Denials};
pub use files::FileGrant;
pub(super) use files::OpenFolder;
pub(super) use host::{Host, port, without_password};
pub(super) use network::{Destination, Led, Network};
pub(super) use reroute::Reroute;
pub use socket::{InvalidSocketGrant, SocketGrant};

/// What one plugin may touch, beside clocks and random numbers.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Grants {
    /// TCP servers it may connect to.
    pub tcp: Vec<SocketGrant>,
    /// UDP servers it may send datagrams to, and have answers from.
    pub udp: Vec<SocketGrant>,
    /// Origins it may send HTTP requests to.
    pub http: Vec<HttpGrant>,
    /// Whom its TLS servers may be certified by.
    pub tls: TlsRoots,
    /// Folders it sees.
    pub files: Vec<FileGrant>,
    /// Its environment variables, names and values. Values may be secrets:
    /// whoever shows grants shows the names alone.
    pub env: Vec<EnvGrant>,
}

/// Shows the environment's names without the values, which may be secrets.
impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<&str> = self.env.iter().map(|grant| grant.name.as_str()).collect();
        f.debug_struct("Grants")
            .field("tcp", &self.tcp)
            .field("udp", &self.udp)
            .field("http", &self.http)
            .field("tls", &self.tls)
            .field("files", &self.files)
            .field("env", &env)
            .finish()
    }
}

impl Grants {
    /// Whether the server at this host, a name or an address with or without brackets, and
    /// port is reached by TLS.
    #[cfg(feature = "verify")]
    pub(crate) fn is_tls(&self, host: &str, port: u16) -> bool {
        let address = host.parse::<std::net::IpAddr>();
        let host = match address {
            Ok(address) => Host::Address(address.to_canonical()),
            Err(_) => match Host::new(host) {
                Ok(host) => host,
                Err(_) => return false,
            },
        };
        let mut granted = self.tcp.iter().filter(|grant| grant.port == port);
        granted.any(|grant| grant.is_tls() && grant.host == host)
    }

    /// Puts the grants into a context for one instance, other than the folders
    /// (see `filesystem`).
    pub(super) fn apply(&self, builder: &mut WasiCtxBuilder, network: Arc<Network>) {
        for EnvGrant { name, value } in &self.env {
            builder.env(name, value.reveal());
        }
        builder
            .allow_tcp(true)
            // Without a grant, binding is denied, and that is explained.
            .allow_udp(true)
            .allow_ip_name_lookup(true)
            .socket_addr_check(move |address, purpose| {
                let allowed = network.check(address, purpose);
                Box::pin(async move { allowed })
            });
    }
}

#[cfg(all(test, feature = "verify"))]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_reached_by_tls_however_its_host_is_written() {
        let parse = |text: &str| text.parse().expect("a grant");
        let grants = Grants {
            tcp: ["tls://[::1]:1", "tls+nats://Nats.internal:2", "redis:3"]
                .map(parse)
                .into(),
            ..Grants::default()
        };
        for (host, port) in [("::1", 1), ("[::1]", 1), ("nats.internal.", 2)] {
            assert!(grants.is_tls(host, port), "{host}");
        }
        for (host, port) in [("::1", 2), ("redis", 3), ("other", 2), ("", 1)] {
            assert!(!grants.is_tls(host, port), "{host}");
        }
    }
}
