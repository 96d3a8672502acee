//! `wasi:sockets/ip-name-lookup`, for granted names only.
//!
//! Wasmtime's own either resolves every name, which is a way out for data, or
//! none. These stand in front of it, for WASI 0.2 and 0.3, ask `Network`
//! first, and tell it what was answered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::p2;
use wasmtime_wasi::p2::DynPollable;
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup as lookup2;
use wasmtime_wasi::p2::bindings::sockets::network as network2;
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup as lookup3;
use wasmtime_wasi::p3::bindings::sockets::types as types3;
use wasmtime_wasi::sockets::WasiSocketsCtxView;

use super::grants::Network;
use super::state::State;

/// Puts both versions into `linker`, in place of Wasmtime's.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    lookup2::add_to_linker::<State, Lookup>(linker, State::lookup)?;
    lookup3::add_to_linker::<State, Lookup>(linker, State::lookup)?;
    Ok(())
}

pub(super) struct Lookup;

impl HasData for Lookup {
    type Data<'a> = LookupView<'a>;
}

pub(super) struct LookupView<'a> {
    sockets: WasiSocketsCtxView<'a>,
    network: Arc<Network>,
    /// The name behind each open stream of answers.
    asked: &'a mut HashMap<u32, String>,
}

impl State {
    fn lookup(&mut self) -> LookupView<'_> {
        // `sockets` borrows all of the state, so the map is lent by itself.
        let network = self.network.clone();
        let (sockets, asked) = self.sockets_and_asked();
        LookupView {
            sockets,
            network,
            asked,
        }
    }
}

impl lookup2::Host for LookupView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<network2::Network>,
        name: String,
    ) -> Result<Resource<lookup2::ResolveAddressStream>, p2::SocketError> {
        if !self.network.may_look_up(&name) {
            return Err(network2::ErrorCode::AccessDenied.into());
        }
        let stream = lookup2::Host::resolve_addresses(&mut self.sockets, network, name.clone())?;
        self.asked.insert(stream.rep(), name);
        Ok(stream)
    }
}

impl lookup2::HostResolveAddressStream for LookupView<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<lookup2::ResolveAddressStream>,
    ) -> Result<Option<network2::IpAddress>, p2::SocketError> {
        let rep = stream.rep();
        let address = self.sockets.resolve_next_address(stream)?;
        if let (Some(address), Some(name)) = (&address, self.asked.get(&rep)) {
            self.network.answered(name, ip2(address));
        }
        Ok(address)
    }

    fn subscribe(
        &mut self,
        stream: Resource<lookup2::ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        lookup2::HostResolveAddressStream::subscribe(&mut self.sockets, stream)
    }

    fn drop(&mut self, stream: Resource<lookup2::ResolveAddressStream>) -> wasmtime::Result<()> {
        self.asked.remove(&stream.rep());
        lookup2::HostResolveAddressStream::drop(&mut self.sockets, stream)
    }
}

// The look-up's errors are those of `wasi:sockets/network`.
impl network2::Host for LookupView<'_> {
    fn convert_error_code(
        &mut self,
        error: p2::SocketError,
    ) -> wasmtime::Result<network2::ErrorCode> {
        self.sockets.convert_error_code(error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<network2::ErrorCode>> {
        self.sockets.network_error_code(error)
    }
}

impl network2::HostNetwork for LookupView<'_> {
    fn drop(&mut self, network: Resource<network2::Network>) -> wasmtime::Result<()> {
        network2::HostNetwork::drop(&mut self.sockets, network)
    }
}

impl lookup3::Host for LookupView<'_> {}

impl<T> lookup3::HostWithStore<T> for Lookup {
    async fn resolve_addresses(
        store: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<types3::IpAddress>, lookup3::ErrorCode>> {
        let network = store.with(|mut view| view.get().network.clone());
        if !network.may_look_up(&name) {
            return Ok(Err(lookup3::ErrorCode::AccessDenied));
        }
        let addresses = match tokio::net::lookup_host((name.as_str(), 0)).await {
            Ok(addresses) => addresses.map(|address| address.ip().to_canonical()),
            Err(error) => {
                tracing::debug!(name, %error, "a granted name does not resolve");
                return Ok(Err(lookup3::ErrorCode::NameUnresolvable));
            }
        };
        let addresses = addresses.inspect(|address| network.answered(&name, *address));
        Ok(Ok(addresses.map(Into::into).collect()))
    }
}

fn ip2(address: &network2::IpAddress) -> IpAddr {
    match *address {
        network2::IpAddress::Ipv4((a, b, c, d)) => IpAddr::from([a, b, c, d]),
        network2::IpAddress::Ipv6((a, b, c, d, e, f, g, h)) => {
            IpAddr::from([a, b, c, d, e, f, g, h])
        }
    }
}
