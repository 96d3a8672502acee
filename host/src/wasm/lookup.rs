//! `wasi:sockets/ip-name-lookup`, for granted names only.
//!
//! Wasmtime's own either resolves every name, which is a way out for data, or
//! none, and a guest may have as many look-ups under way as it likes, each on a
//! thread of the host. These are in its place, for WASI 0.2 and 0.3. They ask
//! `Network` first, and tell it what was answered.

use std::net::{IpAddr, ToSocketAddrs};
use std::pin::Pin;
use std::sync::Arc;
use std::vec;

use wasmtime::component::{Accessor, HasData, Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup as lookup2;
use wasmtime_wasi::p2::bindings::sockets::network as network2;
use wasmtime_wasi::p2::{self, DynPollable, Pollable};
use wasmtime_wasi::p3::bindings::sockets::ip_name_lookup as lookup3;
use wasmtime_wasi::p3::bindings::sockets::types as types3;
use wasmtime_wasi::runtime::{self, AbortOnDropJoinHandle};
use wasmtime_wasi::sockets::{WasiSocketsCtxView, WasiSocketsView};

use super::grants::{Host, MAX_ADDRESSES, Network};
use super::state::State;

/// Puts both versions into `linker`, in place of Wasmtime's.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    lookup2::add_to_linker::<State, Lookup>(linker, State::lookup)?;
    lookup3::add_to_linker::<State, Lookup>(linker, State::lookup)?;
    Ok(())
}

/// Why a look-up has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupError {
    NotGranted,
    /// More look-ups wait than one plugin may have.
    TooMany,
    Unresolvable,
}

/// Looks up a name for a guest.
async fn look_up(network: Arc<Network>, name: String) -> Result<Vec<IpAddr>, LookupError> {
    match network.may_look_up(&name) {
        None => Err(LookupError::NotGranted),
        Some(Host::Address(address)) => Ok(vec![address]),
        Some(Host::Name(name)) => resolve(&network, name).await,
    }
}

/// Resolves a name that is granted, and notes the answer.
pub(super) async fn resolve(network: &Network, name: String) -> Result<Vec<IpAddr>, LookupError> {
    let _waiting = network
        .waiting
        .try_acquire()
        .map_err(|_| LookupError::TooMany)?;
    let permit = network.lookups.clone().acquire_owned().await;
    let resolve = {
        let name = name.clone();
        move || {
            // Until the resolver is done, whether or not the guest still waits.
            let _permit = permit;
            (name.as_str(), 0).to_socket_addrs()
        }
    };
    let resolved = tokio::task::spawn_blocking(resolve).await;
    match resolved.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
        Ok(addresses) => {
            let addresses = addresses.map(|address| address.ip().to_canonical());
            let addresses: Vec<IpAddr> = addresses.take(MAX_ADDRESSES).collect();
            network.answered(&name, &addresses);
            Ok(addresses)
        }
        Err(error) => {
            tracing::debug!(name, %error, "a granted name does not resolve");
            Err(LookupError::Unresolvable)
        }
    }
}

struct Lookup;

impl HasData for Lookup {
    type Data<'a> = LookupView<'a>;
}

struct LookupView<'a> {
    sockets: WasiSocketsCtxView<'a>,
    network: Arc<Network>,
}

impl State {
    fn lookup(&mut self) -> LookupView<'_> {
        // `sockets` borrows all of the state.
        let network = self.network.clone();
        LookupView {
            sockets: WasiSocketsView::sockets(self),
            network,
        }
    }
}

/// What stands behind a `resolve-address-stream`: a look-up under way, or what
/// is left of its answer. In the table of handles it is in the place of
/// Wasmtime's own, which nothing else makes or reads.
enum Stream {
    Waiting(AbortOnDropJoinHandle<Result<Vec<IpAddr>, LookupError>>),
    Answered(Result<vec::IntoIter<IpAddr>, LookupError>),
}

impl Stream {
    fn answer(&mut self, answer: Result<Vec<IpAddr>, LookupError>) {
        *self = Stream::Answered(answer.map(Vec::into_iter));
    }
}

#[async_trait::async_trait]
impl Pollable for Stream {
    async fn ready(&mut self) {
        if let Stream::Waiting(task) = self {
            let answer = task.await;
            self.answer(answer);
        }
    }
}

fn ours(stream: &Resource<lookup2::ResolveAddressStream>) -> Resource<Stream> {
    Resource::new_borrow(stream.rep())
}

impl lookup2::Host for LookupView<'_> {
    fn resolve_addresses(
        &mut self,
        network: Resource<network2::Network>,
        name: String,
    ) -> Result<Resource<lookup2::ResolveAddressStream>, p2::SocketError> {
        // Having it is the guest's permission to look up anything at all.
        self.sockets.table.get(&network)?;
        // Refused at once, without a task and a handle.
        if self.network.may_look_up(&name).is_none() {
            return Err(network2::ErrorCode::AccessDenied.into());
        }
        let task = runtime::spawn(look_up(self.network.clone(), name));
        let stream = self.sockets.table.push(Stream::Waiting(task))?;
        Ok(Resource::new_own(stream.rep()))
    }
}

impl lookup2::HostResolveAddressStream for LookupView<'_> {
    fn resolve_next_address(
        &mut self,
        stream: Resource<lookup2::ResolveAddressStream>,
    ) -> Result<Option<network2::IpAddress>, p2::SocketError> {
        let stream = self.sockets.table.get_mut(&ours(&stream))?;
        if let Stream::Waiting(task) = stream {
            match runtime::poll_noop(Pin::new(task)) {
                Some(answer) => stream.answer(answer),
                None => return Err(network2::ErrorCode::WouldBlock.into()),
            }
        }
        match stream {
            Stream::Answered(Ok(addresses)) => Ok(addresses.next().map(Into::into)),
            Stream::Answered(Err(error)) => Err(network2::ErrorCode::from(*error).into()),
            Stream::Waiting(_) => Err(network2::ErrorCode::WouldBlock.into()),
        }
    }

    fn subscribe(
        &mut self,
        stream: Resource<lookup2::ResolveAddressStream>,
    ) -> wasmtime::Result<Resource<DynPollable>> {
        p2::subscribe(self.sockets.table, ours(&stream))
    }

    fn drop(&mut self, stream: Resource<lookup2::ResolveAddressStream>) -> wasmtime::Result<()> {
        let stream: Resource<Stream> = Resource::new_own(stream.rep());
        self.sockets.table.delete(stream)?;
        Ok(())
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
        let answer = look_up(network, name).await;
        Ok(answer
            .map(|addresses| addresses.into_iter().map(Into::into).collect())
            .map_err(Into::into))
    }
}

impl From<LookupError> for network2::ErrorCode {
    fn from(error: LookupError) -> network2::ErrorCode {
        match error {
            LookupError::NotGranted => network2::ErrorCode::AccessDenied,
            LookupError::TooMany => network2::ErrorCode::TemporaryResolverFailure,
            LookupError::Unresolvable => network2::ErrorCode::NameUnresolvable,
        }
    }
}

impl From<LookupError> for lookup3::ErrorCode {
    fn from(error: LookupError) -> lookup3::ErrorCode {
        match error {
            LookupError::NotGranted => lookup3::ErrorCode::AccessDenied,
            LookupError::TooMany => lookup3::ErrorCode::TemporaryResolverFailure,
            LookupError::Unresolvable => lookup3::ErrorCode::NameUnresolvable,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wasm::grants::{Denials, Grants, Reroute};
    use crate::wasm::secrets::Secrets;

    fn network(grant: &str) -> Arc<Network> {
        let grants = Grants {
            tcp: vec![grant.parse().unwrap()],
            ..Grants::default()
        };
        let denials = Denials::new("test".into(), Secrets::default());
        Arc::new(Network::new(&grants, Arc::new(denials), Reroute::default()))
    }

    fn ask(network: &Arc<Network>) -> AbortOnDropJoinHandle<Result<Vec<IpAddr>, LookupError>> {
        runtime::spawn(look_up(network.clone(), "localhost".to_owned()))
    }

    #[tokio::test]
    async fn look_ups_wait_for_a_thread_and_only_so_many_wait() {
        let network = network("localhost:1");
        let permits = network.lookups.available_permits();
        let all = u32::try_from(permits).unwrap();
        let busy = network.lookups.clone().acquire_many_owned(all).await;

        let waiting = network.waiting.available_permits();
        let asked: Vec<_> = (0..waiting).map(|_| ask(&network)).collect();
        while network.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&network).await, Err(LookupError::TooMany));

        drop(busy);
        for answer in asked {
            assert!(answer.await.unwrap().iter().all(IpAddr::is_loopback));
        }
        assert!(ask(&network).await.is_ok());
        assert_eq!(network.lookups.available_permits(), permits);
    }

    #[tokio::test]
    async fn a_look_up_that_nobody_waits_for_gives_its_place_back() {
        let network = network("localhost:1");
        let all = u32::try_from(network.lookups.available_permits()).unwrap();
        let busy = network.lookups.clone().acquire_many_owned(all).await;
        let waiting = network.waiting.available_permits();
        let asked = ask(&network);
        while network.waiting.available_permits() == waiting {
            tokio::task::yield_now().await;
        }
        drop(asked);
        while network.waiting.available_permits() < waiting {
            tokio::task::yield_now().await;
        }
        drop(busy);
    }

    #[tokio::test]
    async fn an_address_is_its_own_answer() {
        let network = network("[::1]:1");
        let answer = look_up(network, "::1".to_owned()).await;
        assert_eq!(answer, Ok(vec!["::1".parse().unwrap()]));
    }
}
