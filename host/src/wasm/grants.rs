//! What a plugin may touch. Nothing is granted unless it stands in [`Grants`].
//!
//! `Network` is the one place that decides about addresses, for WASI 0.2 and
//! 0.3 alike. A name is looked up only if it is granted, and only addresses
//! that such a look-up answered (or that are granted literally) may be
//! connected to, on the granted port.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use wasmtime_wasi::sockets::SocketAddrUse;
use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

use super::LoadError;
use super::text::printable;

/// How many different denials of one plugin are logged, so that a guest that
/// tries every address there is does not fill the log.
const MAX_DENIALS_LOGGED: usize = 100;

/// What one plugin may touch, beside clocks and random numbers.
#[derive(Clone, Default)]
pub struct Grants {
    /// TCP servers it may connect to.
    pub tcp: Vec<TcpGrant>,
    /// Folders it sees.
    pub files: Vec<FileGrant>,
    /// Its environment variables, names and values. Values may be secrets:
    /// whoever shows grants shows the names alone.
    pub env: Vec<(String, String)>,
}

/// Shows the environment's names without the values, which may be secrets.
impl fmt::Debug for Grants {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Grants")
            .field("tcp", &self.tcp)
            .field("files", &self.files)
            .field("env", &env)
            .finish()
    }
}

/// A TCP server a plugin may connect to, written `HOST:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpGrant {
    host: Host,
    port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Host {
    /// Lower case, without a final dot.
    Name(String),
    Address(IpAddr),
}

impl FromStr for TcpGrant {
    type Err = InvalidTcpGrant;

    fn from_str(text: &str) -> Result<TcpGrant, InvalidTcpGrant> {
        let invalid = || InvalidTcpGrant(text.to_owned());
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(invalid()),
                port => Ok(TcpGrant {
                    host: Host::Address(address.ip().to_canonical()),
                    port,
                }),
            };
        }
        let (name, port) = text.rsplit_once(':').ok_or_else(invalid)?;
        let port = port
            .parse()
            .ok()
            .filter(|port| *port != 0)
            .ok_or_else(invalid)?;
        let name = normalized(name);
        let is_name = |label: &str| {
            !label.is_empty()
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        };
        // All digits and dots is an address that does not parse.
        let is_address = name.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        if is_address || name.len() > 253 || !name.split('.').all(is_name) {
            return Err(invalid());
        }
        Ok(TcpGrant {
            host: Host::Name(name),
            port,
        })
    }
}

impl fmt::Display for TcpGrant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Address(address) => SocketAddr::new(*address, self.port).fmt(f),
        }
    }
}

/// A text that is not a TCP grant.
#[derive(Debug, thiserror::Error)]
#[error(
    "{0:?} is not HOST:PORT, for instance \"redis.internal:6379\", \"10.0.0.7:6379\" or \"[::1]:6379\""
)]
pub struct InvalidTcpGrant(String);

/// A folder a plugin sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileGrant {
    /// The folder on the host.
    pub host: PathBuf,
    /// The path the guest sees it at.
    pub guest: String,
    /// Whether the guest may change what is in it. A writable folder is made
    /// if it is missing.
    pub write: bool,
}

impl FileGrant {
    /// Makes sure that the folder can be given.
    pub(super) fn prepare(&self) -> Result<(), LoadError> {
        let error = |doing: &str, why: &dyn fmt::Display| {
            LoadError::Grant(format!(
                "the folder {} cannot be {doing}: {why}",
                self.host.display()
            ))
        };
        if self.host.is_dir() {
            return Ok(());
        }
        if self.host.exists() {
            return Err(error("granted", &"it is not a folder"));
        }
        if !self.write {
            return Err(error("granted", &"it does not exist"));
        }
        std::fs::create_dir_all(&self.host).map_err(|why| error("made", &why))?;
        tracing::info!(folder = %self.host.display(), "made a folder that a plugin may write to");
        Ok(())
    }
}

impl Grants {
    /// Puts the grants into a context for one instance.
    pub(super) fn apply(
        &self,
        builder: &mut WasiCtxBuilder,
        network: Arc<Network>,
    ) -> Result<(), LoadError> {
        builder.envs(&self.env);
        for FileGrant { host, guest, write } in &self.files {
            let permissions = if *write {
                FsPerms::ReadWrite
            } else {
                FsPerms::ReadOnly
            };
            builder
                .preopened_dir(host, guest, permissions)
                .map_err(|why| {
                    LoadError::Grant(format!(
                        "the folder {} cannot be opened: {why:#}",
                        host.display()
                    ))
                })?;
        }
        builder
            .allow_tcp(true)
            .allow_udp(false)
            .allow_ip_name_lookup(true)
            .socket_addr_check(move |address, purpose| {
                let allowed = network.check(address, purpose);
                Box::pin(async move { allowed })
            });
        Ok(())
    }
}

/// The network as one instance may use it.
pub(super) struct Network {
    grants: Vec<TcpGrant>,
    denials: Arc<Denials>,
    /// The addresses that look-ups of granted names have answered, with those
    /// names.
    answered: Mutex<HashMap<IpAddr, HashSet<String>>>,
}

impl Network {
    pub(super) fn new(grants: &Grants, denials: Arc<Denials>) -> Network {
        Network {
            grants: grants.tcp.clone(),
            denials,
            answered: Mutex::default(),
        }
    }

    /// Whether `name` may be looked up. If so, tell [`answered`](Self::answered)
    /// what it resolved to.
    pub(super) fn may_look_up(&self, name: &str) -> bool {
        let granted = match name.parse::<IpAddr>() {
            Ok(address) => {
                let address = Host::Address(address.to_canonical());
                self.grants.iter().any(|grant| grant.host == address)
            }
            Err(_) => {
                let name = Host::Name(normalized(name));
                self.grants.iter().any(|grant| grant.host == name)
            }
        };
        if !granted {
            let name = printable(name, 253);
            self.denials.report(
                &format!("look up the name {name}"),
                "tcp",
                &format!("{name}:PORT"),
            );
        }
        granted
    }

    /// Notes that a granted look-up of `name` answered `address`.
    pub(super) fn answered(&self, name: &str, address: IpAddr) {
        let name = normalized(name);
        let address = address.to_canonical();
        self.lock_answered()
            .entry(address)
            .or_default()
            .insert(name);
    }

    fn check(&self, address: SocketAddr, purpose: SocketAddrUse) -> bool {
        match purpose {
            // Connecting binds to a wildcard address first.
            SocketAddrUse::TcpBind => address.ip().is_unspecified() && address.port() == 0,
            SocketAddrUse::TcpConnect => self.may_connect(address),
            _ => {
                self.denials.report(&format!("listen on {address}"), "", "");
                false
            }
        }
    }

    fn may_connect(&self, address: SocketAddr) -> bool {
        let ip = address.ip().to_canonical();
        let answered = self.lock_answered();
        let names = answered.get(&ip);
        let granted = |grant: &TcpGrant| {
            grant.port == address.port()
                && match &grant.host {
                    Host::Address(granted) => *granted == ip,
                    // A public name that points inside the machine is how a
                    // plugin would be led to what its manifest does not say.
                    Host::Name(name) => {
                        names.is_some_and(|names| names.contains(name))
                            && (!is_inside(ip) || name == "localhost")
                    }
                }
        };
        if self.grants.iter().any(granted) {
            return true;
        }
        let target = SocketAddr::new(ip, address.port());
        let tried = match names
            .filter(|_| is_inside(ip))
            .and_then(|names| names.iter().next())
        {
            Some(name) => format!(
                "connect to {target}, which is inside this machine and must be granted by address \
                 (the name {name} resolves to it)"
            ),
            None => format!("connect to {target}"),
        };
        self.denials.report(&tried, "tcp", &target.to_string());
        false
    }

    fn lock_answered(&self) -> MutexGuard<'_, HashMap<IpAddr, HashSet<String>>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Logs what a plugin was denied, once for each thing it tried.
#[derive(Debug)]
pub(super) struct Denials {
    plugin: Arc<str>,
    seen: Mutex<HashSet<String>>,
}

impl Denials {
    pub(super) fn new(plugin: Arc<str>) -> Denials {
        Denials {
            plugin,
            seen: Mutex::default(),
        }
    }

    /// `tried` completes "the plugin tried to"; `key` and `value` are the grant
    /// that would allow it, empty if none would.
    fn report(&self, tried: &str, key: &str, value: &str) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() == MAX_DENIALS_LOGGED || !seen.insert(tried.to_owned()) {
            return;
        }
        let plugin = &*self.plugin;
        match key {
            "" => tracing::warn!(
                plugin,
                "denied: it tried to {tried}, which no manifest can grant"
            ),
            _ => tracing::warn!(
                plugin,
                "denied: it tried to {tried}; to allow that, write in {plugin}.toml, \
                 under [grants]: {key} = [\"{value}\"]"
            ),
        }
        if seen.len() == MAX_DENIALS_LOGGED {
            tracing::warn!(
                plugin,
                "it was denied {MAX_DENIALS_LOGGED} different things; \
                no further denials of it are logged"
            );
        }
    }
}

fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

/// Whether an address leads to this machine or to what only it can see, the
/// metadata services of cloud providers among them.
fn is_inside(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                // The metadata services of Alibaba Cloud and Azure.
                || v4 == Ipv4Addr::new(100, 100, 100, 200)
                || v4 == Ipv4Addr::new(168, 63, 129, 16)
        }
        IpAddr::V6(v6) => match v6.segments() {
            // NAT64: an IPv4 address in the last four bytes.
            [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                is_inside(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)).into())
            }
            // Amazon's metadata service over IPv6.
            [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254] => true,
            _ => v6.is_loopback() || v6.is_unicast_link_local() || v6.is_unspecified(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(tcp: &[&str]) -> Network {
        let tcp = tcp.iter().map(|grant| grant.parse().unwrap()).collect();
        let grants = Grants {
            tcp,
            ..Grants::default()
        };
        Network::new(&grants, Arc::new(Denials::new("test".into())))
    }

    fn connects(network: &Network, address: &str) -> bool {
        network.check(address.parse().unwrap(), SocketAddrUse::TcpConnect)
    }

    #[test]
    fn a_grant_is_a_host_and_a_port() {
        for text in [
            "Redis.Internal.:6379",
            "10.0.0.7:1",
            "[::1]:65535",
            "a_b-c:80",
        ] {
            text.parse::<TcpGrant>().unwrap();
        }
        assert_eq!(
            "Redis.Internal.:1".parse::<TcpGrant>().unwrap().to_string(),
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
        ] {
            assert!(text.parse::<TcpGrant>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_the_granted_address_and_port_are_reached() {
        let network = network(&["10.0.0.7:6379", "[fd00::7]:6379"]);
        assert!(connects(&network, "10.0.0.7:6379"));
        assert!(
            connects(&network, "[::ffff:10.0.0.7]:6379"),
            "the same address, mapped"
        );
        assert!(connects(&network, "[fd00::7]:6379"));
        assert!(!connects(&network, "10.0.0.7:6380"));
        assert!(!connects(&network, "10.0.0.8:6379"));
        assert!(!connects(&network, "[::ffff:169.254.169.254]:6379"));
    }

    #[test]
    fn a_name_reaches_only_what_its_own_look_up_answered() {
        let network = network(&["redis.internal:6379"]);
        assert!(network.may_look_up("REDIS.internal."));
        assert!(!network.may_look_up("evil.example"));
        assert!(!network.may_look_up("c2VjcmV0.redis.internal"));
        assert!(
            !connects(&network, "10.0.0.7:6379"),
            "before it was looked up"
        );
        network.answered("redis.internal", "10.0.0.7".parse().unwrap());
        assert!(connects(&network, "10.0.0.7:6379"));
        assert!(!connects(&network, "10.0.0.7:22"));
    }

    #[test]
    fn a_name_that_points_inside_the_machine_leads_nowhere() {
        let network = network(&["redis.internal:80", "localhost:81"]);
        for address in [
            "127.0.0.1",
            "169.254.169.254",
            "::1",
            "fe80::1",
            "0.0.0.0",
            "fd00:ec2::254",
        ] {
            let address: IpAddr = address.parse().unwrap();
            network.answered("redis.internal", address);
            assert!(
                !connects(&network, &SocketAddr::new(address, 80).to_string()),
                "{address}"
            );
        }
        network.answered("localhost", "127.0.0.1".parse().unwrap());
        assert!(
            connects(&network, "127.0.0.1:81"),
            "localhost says so itself"
        );
    }

    #[test]
    fn nothing_else_is_done_with_sockets() {
        let network = network(&["10.0.0.7:6379"]);
        let check = |address: &str, purpose| network.check(address.parse().unwrap(), purpose);
        assert!(check("0.0.0.0:0", SocketAddrUse::TcpBind));
        assert!(!check("0.0.0.0:80", SocketAddrUse::TcpBind));
        assert!(!check("0.0.0.0:0", SocketAddrUse::TcpListen));
        assert!(!check("10.0.0.7:6379", SocketAddrUse::UdpBind));
        assert!(!check("10.0.0.7:6379", SocketAddrUse::UdpSend));
    }
}
