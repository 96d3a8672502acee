//! Where the host connects to in place of the servers it has allowed: nowhere
//! else, unless whoever made the engine says so.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// What an address that a plugin may reach is replaced by. Clones share it.
#[derive(Clone, Default)]
pub(in crate::wasm) struct Reroute(Option<Arc<dyn Fn(SocketAddr) -> SocketAddr + Send + Sync>>);

impl Reroute {
    pub(in crate::wasm) fn new(
        route: impl Fn(SocketAddr) -> SocketAddr + Send + Sync + 'static,
    ) -> Reroute {
        Reroute(Some(Arc::new(route)))
    }

    /// The address to connect to in place of `address`.
    pub(in crate::wasm) fn instead_of(&self, address: SocketAddr) -> SocketAddr {
        match &self.0 {
            Some(route) => route(address),
            None => address,
        }
    }
}

impl fmt::Debug for Reroute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reroute").field(&self.0.is_some()).finish()
    }
}
