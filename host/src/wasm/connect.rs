//! The step of `wasi:sockets` in which a TCP socket connects, for WASI 0.2 and 0.3.
//!
//! It is in the place of Wasmtime's, to which it hands on, and is where a connection
//! may be led to another address than the guest asked for. `Network` decides whether
//! and where. All else that is done with sockets is Wasmtime's.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;

use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource};
use wasmtime_wasi::p2;
use wasmtime_wasi::p2::bindings::sockets::network as network2;
use wasmtime_wasi::p2::bindings::sockets::tcp as tcp2;
use wasmtime_wasi::p3::bindings::sockets::types as types3;
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use super::grants::Destination;
use super::state::State;

/// Puts both versions into `linker`, in place of Wasmtime's.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    let mut tcp = linker.instance("wasi:sockets/tcp@0.2.12")?;
    tcp.func_wrap("[method]tcp-socket.start-connect", start_connect)?;
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
    fn note(&mut self, socket: u32, asked: SocketAddr, destination: Destination) {
        match destination {
            Destination::Elsewhere(_) => self.0.insert(socket, asked),
            Destination::Same | Destination::Denied => self.0.remove(&socket),
        };
    }

    /// What a connected socket is told its server's address is.
    fn of(&self, socket: u32, connected: SocketAddr) -> SocketAddr {
        self.0.get(&socket).copied().unwrap_or(connected)
    }
}

impl State {
    /// Decides where a socket that asks for `asked` connects to; `None` if nowhere.
    fn destination(&mut self, socket: u32, asked: SocketAddr) -> Option<SocketAddr> {
        let destination = self.network.destination(asked);
        self.asked.note(socket, asked, destination);
        match destination {
            Destination::Same => Some(asked),
            Destination::Elsewhere(address) => Some(address),
            Destination::Denied => None,
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

fn start_connect(
    mut store: StoreContextMut<'_, State>,
    (socket, network, address): (
        Resource<tcp2::TcpSocket>,
        Resource<network2::Network>,
        network2::IpSocketAddress,
    ),
) -> Result2<()> {
    let state = store.data_mut();
    let Some(address) = state.destination(socket.rep(), address.into()) else {
        return returned2(Err(network2::ErrorCode::AccessDenied.into()));
    };
    let mut sockets = state.sockets();
    returned2(tcp2::HostTcpSocket::start_connect(
        &mut sockets,
        socket,
        network,
        address.into(),
    ))
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
    let decided = store.with(|mut store| store.get().destination(socket.rep(), asked));
    let Some(address) = decided else {
        return returned3(Err(types3::ErrorCode::AccessDenied.into()));
    };
    let sockets = store.with_getter::<WasiSockets>(WasiSocketsView::sockets);
    let connecting = <WasiSockets as types3::HostTcpSocketWithStore<State>>::connect(
        &sockets,
        socket,
        address.into(),
    );
    returned3(connecting.await)
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
