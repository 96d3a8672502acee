//! The step of `wasi:sockets` in which a TCP socket connects, for WASI 0.2 and 0.3.
//!
//! It is in the place of Wasmtime's, to which it hands on, and is where a connection
//! may be led to another address than the guest asked for: to the host's own, where
//! `relay` ends TLS, or to another server. `Network` decides whether and where. All else that is done with sockets is Wasmtime's.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::p2;
use wasmtime_wasi::p2::bindings::io::streams as streams2;
use wasmtime_wasi::p2::bindings::sockets::network as network2;
use wasmtime_wasi::p2::bindings::sockets::tcp as tcp2;
use wasmtime_wasi::p3::bindings::sockets::types as types3;
use wasmtime_wasi::sockets::{ErrorCode, WasiSockets, WasiSocketsView};

use super::grants::Destination;
use super::relay::Relay;
use super::state::State;

/// Puts both versions into `linker`, in place of Wasmtime's.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut tcp = linker.instance("wasi:sockets/tcp@0.2.12")?;
    tcp.func_wrap_async("[method]tcp-socket.start-connect", |store, parameters| {
        Box::new(start_connect(store, parameters))
    })?;
    tcp.func_wrap("[method]tcp-socket.finish-connect", finish_connect)?;
    tcp.func_wrap("[method]tcp-socket.remote-address", remote_address)?;
    let mut types = linker.instance("wasi:sockets/types@0.3.0")?;
    types.func_wrap_concurrent("[method]tcp-socket.connect", |store, (socket, address)| {
        let connected: Pin<Box<dyn Future<Output = _> + Send + '_>> =
            Box::pin(connect(store, socket, address));
        connected
    })?;
    types.func_wrap("[method]tcp-socket.get-remote-address", get_remote_address)?;
    Ok(())
}

/// What the sockets of one instance asked for that were led elsewhere, by their
/// handles. A handle is given again to another socket; each connects once, and is
/// noted then.
#[derive(Debug, Default)]
pub(super) struct Asked(HashMap<u32, SocketAddr>);

impl Asked {
    fn note(&mut self, socket: u32, asked: SocketAddr, destination: &Destination) {
        match destination {
            Destination::Elsewhere(_) | Destination::Tls(..) => self.0.insert(socket, asked),
            Destination::Same | Destination::Denied => self.0.remove(&socket),
        };
    }

    /// What a connected socket is told its server's address is.
    fn of(&self, socket: u32, connected: SocketAddr) -> SocketAddr {
        self.0.get(&socket).copied().unwrap_or(connected)
    }
}

/// Where a socket is connected to.
enum Way {
    To(SocketAddr),
    /// Through this, when the server is connected.
    Relay(Pin<Box<dyn Future<Output = io::Result<Relay>> + Send>>),
}

impl State {
    /// Decides how a socket that asks for `asked` is connected.
    fn way(&mut self, socket: u32, asked: SocketAddr) -> Result<Way, ErrorCode> {
        let destination = self.network.destination(asked);
        self.asked.note(socket, asked, &destination);
        match destination {
            Destination::Same => Ok(Way::To(asked)),
            Destination::Elsewhere(address) => Ok(Way::To(address)),
            Destination::Tls(server, address) => {
                let relay = self.relays.open(server, address);
                Ok(Way::Relay(Box::pin(relay)))
            }
            Destination::Denied => Err(ErrorCode::AccessDenied),
        }
    }
}

type Result2<T> = wasmtime::Result<(Result<T, network2::ErrorCode>,)>;
type Result3<T> = wasmtime::Result<(Result<T, types3::ErrorCode>,)>;

/// What a function of WASI 0.2 returns to the guest.
fn returned2<T>(result: Result<T, p2::SocketError>) -> Result2<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error.downcast()?),
    },))
}

/// What a function of WASI 0.3 returns to the guest.
fn returned3<T>(result: Result<T, wasmtime_wasi::p3::sockets::SocketError>) -> Result3<T> {
    Ok((match result {
        Ok(value) => Ok(value),
        Err(error) => Err(error.downcast()?),
    },))
}

async fn start_connect(
    mut store: StoreContextMut<'_, State>,
    (socket, network, address): (
        Resource<tcp2::TcpSocket>,
        Resource<network2::Network>,
        network2::IpSocketAddress,
    ),
) -> Result2<()> {
    let handle = socket.rep();
    let address = match store.data_mut().way(handle, address.into()) {
        Ok(Way::To(address)) => address,
        // The guest waits here already, not in `finish-connect`.
        Ok(Way::Relay(relay)) => match relay.await {
            Ok(relay) => store.data_mut().relays.add(handle, relay),
            Err(error) => return returned2(Err(ErrorCode::from(error).into())),
        },
        Err(error) => return returned2(Err(error.into())),
    };
    let mut sockets = store.data_mut().sockets();
    returned2(tcp2::HostTcpSocket::start_connect(
        &mut sockets,
        socket,
        network,
        address.into(),
    ))
}

fn finish_connect(
    mut store: StoreContextMut<'_, State>,
    (socket,): (Resource<tcp2::TcpSocket>,),
) -> Result2<(
    Resource<streams2::InputStream>,
    Resource<streams2::OutputStream>,
)> {
    let state = store.data_mut();
    let handle = socket.rep();
    let finished = tcp2::HostTcpSocket::finish_connect(&mut state.sockets(), socket);
    let finished = returned2(finished)?;
    if !matches!(finished, (Err(network2::ErrorCode::WouldBlock),)) {
        let connected = Resource::new_borrow(handle);
        let local = tcp2::HostTcpSocket::local_address(&mut state.sockets(), connected);
        let local = local.ok().filter(|_| finished.0.is_ok());
        state.relays.connected(handle, local.map(Into::into));
    }
    Ok(finished)
}

fn remote_address(
    mut store: StoreContextMut<'_, State>,
    (socket,): (Resource<tcp2::TcpSocket>,),
) -> Result2<network2::IpSocketAddress> {
    let state = store.data_mut();
    let handle = socket.rep();
    let address = tcp2::HostTcpSocket::remote_address(&mut state.sockets(), socket);
    returned2(address.map(|address| state.asked.of(handle, address.into()).into()))
}

async fn connect(
    store: &Accessor<State>,
    socket: Resource<types3::TcpSocket>,
    address: types3::IpSocketAddress,
) -> Result3<()> {
    let asked = SocketAddr::from(address);
    let handle = socket.rep();
    let address = match store.with(|mut store| store.get().way(handle, asked)) {
        Ok(Way::To(address)) => address,
        Ok(Way::Relay(relay)) => match relay.await {
            Ok(relay) => store.with(|mut store| store.get().relays.add(handle, relay)),
            Err(error) => return returned3(Err(ErrorCode::from(error).into())),
        },
        Err(error) => return returned3(Err(error.into())),
    };
    let sockets = store.with_getter::<WasiSockets>(WasiSocketsView::sockets);
    let connecting = <WasiSockets as types3::HostTcpSocketWithStore<State>>::connect(
        &sockets,
        socket,
        address.into(),
    );
    let connected = connecting.await;
    store.with(|mut store| {
        let state = store.get();
        let socket = Resource::new_borrow(handle);
        let local = types3::HostTcpSocket::get_local_address(&mut state.sockets(), socket);
        let local = local.ok().filter(|_| connected.is_ok());
        state.relays.connected(handle, local.map(Into::into));
    });
    returned3(connected)
}

fn get_remote_address(
    mut store: StoreContextMut<'_, State>,
    (socket,): (Resource<types3::TcpSocket>,),
) -> Result3<types3::IpSocketAddress> {
    let state = store.data_mut();
    let handle = socket.rep();
    let address = types3::HostTcpSocket::get_remote_address(&mut state.sockets(), socket);
    returned3(address.map(|address| state.asked.of(handle, address.into()).into()))
}
