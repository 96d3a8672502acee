//! The one place that decides about addresses and names, for WASI 0.2 and 0.3
//! alike.
//!
//! A name is looked up only if it is granted, and only addresses that such a
//! look-up answered (or that are granted literally) may be connected to, or be
//! sent datagrams, on the granted port. What a name answered is kept in `answers`.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Semaphore;
use wasmtime_wasi::sockets::SocketAddrUse;

use super::Grants;
use super::answers::{Answers, Misled};
use super::denials::{DenialKind, Denials, Explanation};
use super::host::{Host, MAX_NAME, normalized};
use super::reroute::Reroute;
use super::socket::SocketGrant;
use crate::wasm::tls::Server;

/// How many look-ups of one plugin run side by side. Each holds a thread until
/// the resolver answers or gives up, also when the call that wanted it is over;
/// tokio has 512 such threads, for all plugins and their files together.
const LOOKUPS: usize = 4;

/// How many look-ups of one plugin may wait for their turn.
const WAITING_LOOKUPS: usize = 64;

/// The network as one plugin may use it; its instances share it.
#[derive(Debug)]
pub(in crate::wasm) struct Network {
    tcp: Vec<SocketGrant>,
    udp: Vec<SocketGrant>,
    denials: Arc<Denials>,
    reroute: Reroute,
    /// The addresses the host has put in place of granted ones. A guest that asks
    /// for one of them itself is not led there: see `destination`.
    instead: Mutex<HashSet<SocketAddr>>,
    /// Whether a granted server was ever connected to or sent a datagram.
    used: AtomicBool,
    /// What look-ups of granted names have answered.
    answers: Mutex<HashMap<String, Answers>>,
    /// A permit for each look-up at work; its thread holds it.
    pub(in crate::wasm) lookups: Arc<Semaphore>,
    /// A permit for each look-up a guest waits for.
    pub(in crate::wasm) waiting: Semaphore,
}

/// Where a TCP connection goes that a guest asks for.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::wasm) enum Destination {
    /// To where it asks for.
    Same,
    /// To another address.
    Elsewhere(SocketAddr),
    /// To a server at this address, with TLS, which the host ends.
    Tls(Server, SocketAddr),
    /// Nowhere.
    Denied,
}

impl Network {
    pub(in crate::wasm) fn new(
        grants: &Grants,
        denials: Arc<Denials>,
        reroute: Reroute,
    ) -> Network {
        Network {
            tcp: grants.tcp.clone(),
            udp: grants.udp.clone(),
            denials,
            reroute,
            instead: Mutex::default(),
            used: AtomicBool::new(false),
            answers: Mutex::default(),
            lookups: Arc::new(Semaphore::new(LOOKUPS)),
            waiting: Semaphore::new(WAITING_LOOKUPS),
        }
    }

    /// What a guest may look up under `name`, as it is granted; `None` if it is
    /// not. The guest's own spelling goes no further: upper and lower case in a
    /// query would be a way out for data.
    pub(in crate::wasm) fn may_look_up(&self, name: &str) -> Option<Host> {
        // One more for a final dot. A longer one is not even copied.
        let asked = (name.len() <= MAX_NAME + 1).then(|| match name.parse::<IpAddr>() {
            Ok(address) => Host::Address(address.to_canonical()),
            Err(_) => Host::Name(normalized(name)),
        });
        let granted = asked.filter(|asked| {
            let mut grants = self.tcp.iter().chain(&self.udp);
            grants.any(|grant| grant.host == *asked)
        });
        if granted.is_none() {
            self.denials
                .report(DenialKind::Name, name, |name| Explanation {
                    tried: format!("look up the name {name}"),
                    allow: SocketGrant::shown_for(name).map(|grant| format!("tcp = [\"{grant}\"]")),
                });
        }
        granted
    }

    /// Notes what a granted look-up of `name` answered.
    pub(in crate::wasm) fn answered(&self, name: &str, addresses: &[IpAddr]) {
        if addresses.is_empty() {
            return;
        }
        let mut answers = self.lock();
        let answers = answers
            .entry(name.to_owned())
            .or_insert_with(|| Answers::beginning_with(addresses));
        for address in addresses {
            answers.note(address.to_canonical());
        }
    }

    /// Whether a granted `name` leads to `address`, which it answered; if not, why.
    pub(in crate::wasm) fn leads_to(&self, name: &str, address: IpAddr) -> Result<(), Misled> {
        let answers = self.lock();
        let led = answers
            .get(name)
            .and_then(|answers| answers.lead_to(name, address.to_canonical()));
        // Forgotten since, among more addresses than are remembered.
        led.unwrap_or(Err(Misled::Rebound))
    }

    /// Notes that a granted server is connected to.
    pub(in crate::wasm) fn note_use(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether a granted server was ever connected to: then a call that takes too
    /// long may be that server's fault.
    pub(in crate::wasm) fn was_used(&self) -> bool {
        self.used.load(Ordering::Relaxed)
    }

    /// Decides where a guest is connected to that asks for `asked`.
    pub(in crate::wasm) fn destination(&self, asked: SocketAddr) -> Destination {
        // What leads nowhere is Wasmtime's to refuse.
        if asked.ip().to_canonical().is_unspecified() || asked.port() == 0 {
            return Destination::Same;
        }
        let Some(grant) = self.may_reach(DenialKind::Tcp, asked) else {
            return Destination::Denied;
        };
        let instead = self.instead_of(asked);
        if grant.is_tls() {
            let server = Server::new(grant, &grant.host);
            return match grant.is_nats() {
                true => Destination::Tls(server.after_nats_info(), instead),
                false => Destination::Tls(server, instead),
            };
        }
        if instead == asked {
            return Destination::Same;
        }
        self.lock_instead().insert(instead);
        Destination::Elsewhere(instead)
    }

    /// Where the host connects to in place of `address`, which was allowed.
    pub(in crate::wasm) fn instead_of(&self, address: SocketAddr) -> SocketAddr {
        self.reroute.instead_of(address)
    }

    /// Lets a socket of the plugin be connected to `address`, which is the host's
    /// own, until the result is dropped.
    pub(in crate::wasm) fn lead(self: &Arc<Network>, address: SocketAddr) -> Led {
        self.lock_instead().insert(address);
        Led {
            network: self.clone(),
            address,
        }
    }

    /// The name of the plugin's file.
    pub(in crate::wasm) fn plugin(&self) -> &str {
        self.denials.plugin()
    }

    /// Wasmtime asks this before it does something with an address.
    pub(super) fn check(&self, address: SocketAddr, purpose: SocketAddrUse) -> bool {
        // Connecting and sending bind to a wildcard address first.
        let any = address.ip().is_unspecified() && address.port() == 0;
        match purpose {
            SocketAddrUse::TcpBind if any => true,
            // What the host has put in place of an address was decided about then.
            SocketAddrUse::TcpConnect if self.lock_instead().contains(&address) => true,
            SocketAddrUse::TcpConnect => {
                // Only what is led there goes to a server with TLS.
                self.may_reach(DenialKind::Tcp, address)
                    .is_some_and(|grant| !grant.is_tls())
            }
            SocketAddrUse::UdpBind if any && !self.udp.is_empty() => true,
            SocketAddrUse::UdpBind if any => {
                self.denials
                    .report(DenialKind::Udp, &address.to_string(), |_| Explanation {
                        tried: "use UDP".to_owned(),
                        allow: Some("udp = [\"HOST:PORT\"]".to_owned()),
                    });
                false
            }
            SocketAddrUse::UdpSend => self.may_reach(DenialKind::Udp, address).is_some(),
            // A bound socket receives from everybody; what does not come from a
            // granted server is dropped. It is not the guest's deed.
            SocketAddrUse::UdpReceive => self.grant_for(DenialKind::Udp, address).is_ok(),
            SocketAddrUse::TcpBind
            | SocketAddrUse::TcpListen
            | SocketAddrUse::TcpAccept
            | SocketAddrUse::UdpBind => {
                self.denials
                    .report(DenialKind::Listen, &address.to_string(), |target| {
                        Explanation {
                            tried: format!("listen on {target}"),
                            allow: None,
                        }
                    });
                false
            }
        }
    }

    /// The grant that allows `address`; if there is none, that is reported.
    fn may_reach(&self, kind: DenialKind, address: SocketAddr) -> Option<&SocketGrant> {
        let misled = match self.grant_for(kind, address) {
            Ok(grant) => {
                self.note_use();
                return Some(grant);
            }
            Err(misled) => misled,
        };
        let target = SocketAddr::new(address.ip().to_canonical(), address.port());
        let verb = match kind {
            DenialKind::Udp => "send datagrams to",
            _ => "connect to",
        };
        self.denials
            .report(kind, &target.to_string(), |target| Explanation {
                tried: match misled {
                    None => format!("{verb} {target}"),
                    Some((name, Misled::Inside)) => format!(
                        "{verb} {target}, which is inside this machine and must be granted by \
                         address (the name {name} resolves to it)"
                    ),
                    Some((name, Misled::Rebound)) => format!(
                        "{verb} {target}, which is a private address and must be granted as such \
                         (the name {name} resolves to it now, and resolved to public ones at first)"
                    ),
                },
                allow: Some(format!("{kind} = [\"{target}\"]")),
            });
        None
    }

    /// The grant of `kind` that allows `address`: one with TLS, if there are several.
    /// If there is none, the name that was granted and led there nevertheless, if one
    /// did.
    fn grant_for(
        &self,
        kind: DenialKind,
        address: SocketAddr,
    ) -> Result<&SocketGrant, Option<(String, Misled)>> {
        let ip = address.ip().to_canonical();
        let grants = match kind {
            DenialKind::Udp => &self.udp,
            _ => &self.tcp,
        };
        let answers = self.lock();
        let (mut plain, mut misled) = (None, None);
        for grant in grants {
            // There is no TLS for datagrams, and plain text is not what is granted.
            let wrong = kind == DenialKind::Udp && grant.is_tls();
            if grant.port != address.port() || wrong {
                continue;
            }
            let allows = match &grant.host {
                Host::Address(granted) => *granted == ip,
                Host::Name(name) => {
                    let answers = answers.get(name);
                    match answers.and_then(|answers| answers.lead_to(name, ip)) {
                        Some(Ok(())) => true,
                        Some(Err(why)) => {
                            misled = Some((name.clone(), why));
                            false
                        }
                        None => false,
                    }
                }
            };
            match allows {
                true if grant.is_tls() => return Ok(grant),
                true => plain = plain.or(Some(grant)),
                false => {}
            }
        }
        plain.ok_or(misled)
    }

    fn lock_instead(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.instead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Answers>> {
        // Nothing under this lock can leave the answers half changed.
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address of the host's own that a plugin's sockets may be connected to.
#[derive(Debug)]
pub(in crate::wasm) struct Led {
    network: Arc<Network>,
    address: SocketAddr,
}

impl Led {
    pub(in crate::wasm) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Led {
    fn drop(&mut self) {
        self.network.lock_instead().remove(&self.address);
    }
}

#[cfg(test)]
#[path = "network_tests.rs"]
mod tests;
