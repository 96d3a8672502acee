//! TLS that the host ends for a plugin's TCP connections.
//!
//! The guest speaks plain text to a socket of its own, which the host connects to a
//! listener on loopback that it has for this one connection. What comes there it
//! sends to the server by TLS, and back.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::io::{AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::grants::{Led, Network};
use super::nats_info;
use super::tls::{Application, Server, TlsRoots};

/// The most connections with TLS one instance may have open; a further one fails at
/// once. Each takes two file descriptors more than the guest's socket.
const MAX_RELAYS: usize = 64;

/// How long the server may take to accept a connection and to show who it is. It is
/// less than a call may take by default: else that would end first, and nobody be told
/// why.
const SERVER_PATIENCE: Duration = Duration::from_secs(4);

/// How long the guest may take then to have its socket connected.
const GUEST_PATIENCE: Duration = Duration::from_secs(10);

/// The connections with TLS of one instance. They end with it.
pub(super) struct Relays {
    network: Arc<Network>,
    roots: TlsRoots,
    tasks: JoinSet<()>,
    /// Those that wait for the guest's socket, by its handle.
    waiting: HashMap<u32, oneshot::Sender<SocketAddr>>,
}

impl Relays {
    pub(super) fn new(network: Arc<Network>, roots: TlsRoots) -> Relays {
        Relays {
            network,
            roots,
            tasks: JoinSet::new(),
            waiting: HashMap::new(),
        }
    }

    /// Connects to `server` at `address`; the result is for [`add`](Self::add).
    pub(super) fn open(
        &mut self,
        server: Server,
        address: SocketAddr,
    ) -> impl Future<Output = io::Result<Relay>> + Send + use<> {
        while self.tasks.try_join_next().is_some() {}
        let full = self.tasks.len() >= MAX_RELAYS;
        let (roots, network) = (self.roots.clone(), self.network.clone());
        async move {
            if full {
                tracing::warn!(
                    plugin = network.plugin(),
                    "no further connection to {server}: this instance has {MAX_RELAYS} with TLS"
                );
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            Relay::open(roots, network, server, address).await
        }
    }

    /// Has `relay` wait for the guest's socket with this handle, and returns where
    /// that is to connect to.
    pub(super) fn add(&mut self, socket: u32, relay: Relay) -> SocketAddr {
        let address = relay.led.address();
        let (connected, waiting) = oneshot::channel();
        self.waiting.insert(socket, connected);
        self.tasks.spawn(relay.run(waiting));
        address
    }

    /// The guest's socket with this handle is connected, and `local` is its own
    /// address; or it will not be.
    pub(super) fn connected(&mut self, socket: u32, local: Option<SocketAddr>) {
        let waiting = self.waiting.remove(&socket);
        if let (Some(relay), Some(local)) = (waiting, local) {
            // It may have ended.
            let _ = relay.send(local);
        }
    }
}

/// A connection to a server, by TLS, and where the guest's socket gets it.
pub(super) struct Relay {
    server: Server,
    stream: TlsStream<TcpStream>,
    /// What the server said before TLS, for the guest.
    greeting: Vec<u8>,
    listener: TcpListener,
    led: Led,
    roots: TlsRoots,
    network: Arc<Network>,
}

impl Relay {
    async fn open(
        roots: TlsRoots,
        network: Arc<Network>,
        server: Server,
        address: SocketAddr,
    ) -> io::Result<Relay> {
        let deadline = Instant::now() + SERVER_PATIENCE;
        let mut stream = match timeout_at(deadline, TcpStream::connect(address)).await {
            Ok(stream) => stream?,
            Err(_) => return Err(io::ErrorKind::TimedOut.into()),
        };
        stream.set_nodelay(true)?;
        let greeting = match server.has_nats_info() {
            true => match timeout_at(deadline, nats_info::read(&mut stream)).await {
                Ok(greeting) => greeting,
                Err(_) => Err("it does not say its INFO in time".to_owned()),
            },
            false => Ok(Vec::new()),
        };
        let greeting = greeting.map_err(|reason| {
            roots.explain_refusal(network.plugin(), &server, &reason);
            io::Error::from(io::ErrorKind::ConnectionAborted)
        })?;
        let name = server.name().ok_or(io::ErrorKind::InvalidInput)?;
        let config = roots.config(Application::Any).await;
        let connector = TlsConnector::from(config.map_err(io::Error::other)?);
        let shaken = match timeout_at(deadline, connector.connect(name, stream)).await {
            Ok(shaken) => shaken,
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        };
        let stream = shaken.map_err(|error| {
            roots.explain(network.plugin(), &server, &error);
            io::Error::from(io::ErrorKind::ConnectionAborted)
        })?;
        let listener = match address {
            SocketAddr::V4(_) => TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?,
            SocketAddr::V6(_) => TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await?,
        };
        let led = network.lead(listener.local_addr()?);
        Ok(Relay {
            server,
            stream,
            greeting,
            listener,
            led,
            roots,
            network,
        })
    }

    async fn run(mut self, waiting: oneshot::Receiver<SocketAddr>) {
        let listener = self.listener;
        let guest = async move {
            let local = waiting.await.ok()?;
            accept(&listener, local).await
        };
        // The listener is closed, whatever came of it.
        let guest = timeout(GUEST_PATIENCE, guest).await;
        drop(self.led);
        let Ok(Some(mut guest)) = guest else {
            return;
        };
        let _ = guest.set_nodelay(true);
        if guest.write_all(&self.greeting).await.is_err() {
            return;
        }
        if let Err(error) = copy_bidirectional(&mut guest, &mut self.stream).await {
            self.roots
                .explain_end(self.network.plugin(), &self.server, &error);
        }
    }
}

/// The connection from `local`, a socket that is connected: anybody on the machine
/// may have connected, too.
async fn accept(listener: &TcpListener, local: SocketAddr) -> Option<TcpStream> {
    loop {
        let (mut stream, peer) = listener.accept().await.ok()?;
        if peer != local {
            continue;
        }
        // Another from that address is older, and has ended.
        while let Some(Ok(next)) = listener.accept().now_or_never() {
            if next.1 == local {
                stream = next.0;
            }
        }
        return Some(stream);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[tokio::test]
    async fn the_guests_socket_alone_gets_the_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connect = || std::net::TcpStream::connect(address).unwrap();
        let (mut before, guest, mut after) = (connect(), connect(), connect());
        let local = guest.local_addr().unwrap();
        let accepted = timeout(GUEST_PATIENCE, accept(&listener, local))
            .await
            .unwrap();
        assert_eq!(accepted.unwrap().peer_addr().unwrap(), local);

        drop(listener);
        for stranger in [&mut before, &mut after] {
            let read = stranger.read(&mut [0]);
            assert!(matches!(read, Ok(0) | Err(_)), "{read:?}");
        }
        assert!(std::net::TcpStream::connect(address).is_err());
    }
}
