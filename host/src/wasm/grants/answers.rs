//! What a granted name was resolved to, and whether it may lead there: not inside
//! the machine, and not to a private network after it began as a public name.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::reach::{Reach, reach};

/// How many addresses of a name are remembered, and how many of one look-up are
/// passed on; beyond that the oldest are forgotten. Only granted names are
/// remembered, so this bounds all of it.
pub(in crate::wasm) const MAX_ADDRESSES: usize = 64;

/// What a name was resolved to.
#[derive(Debug)]
pub(super) struct Answers {
    /// Whether the first answer held public addresses alone.
    began_public: bool,
    /// The last one answered is the last.
    addresses: VecDeque<IpAddr>,
}

/// Why a granted name does not lead to an address it answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::wasm) enum Misled {
    /// The address is this machine's own, or of its provider's services.
    Inside,
    /// The address is private, and the name began with public ones.
    Rebound,
}

impl Answers {
    /// What a name is known to be after its first look-up.
    pub(super) fn beginning_with(addresses: &[IpAddr]) -> Answers {
        let public = |address: &IpAddr| reach(*address) == Reach::Public;
        Answers {
            began_public: addresses.iter().all(public),
            addresses: VecDeque::new(),
        }
    }

    pub(super) fn note(&mut self, address: IpAddr) {
        self.addresses.retain(|known| *known != address);
        if self.addresses.len() == MAX_ADDRESSES {
            self.addresses.pop_front();
        }
        self.addresses.push_back(address);
    }

    /// Whether `name` leads to `address`; `None` if it did not answer it.
    pub(super) fn lead_to(&self, name: &str, address: IpAddr) -> Option<Result<(), Misled>> {
        if !self.addresses.contains(&address) {
            return None;
        }
        Some(match reach(address) {
            // It says so itself.
            _ if name == "localhost" && address.is_loopback() => Ok(()),
            // A public name that points inside the machine is how a plugin
            // would be led to what its manifest does not say.
            Reach::Inside => Err(Misled::Inside),
            Reach::Private if self.began_public => Err(Misled::Rebound),
            Reach::Private | Reach::Public => Ok(()),
        })
    }
}
