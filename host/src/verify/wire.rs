//! The wire between the plugin and its server, and what can go wrong on it.
//!
//! The engine of a run asks here where each connection goes ([`Wire::route`]). It
//! goes straight to its server, unless a case has put a proxy in between
//! ([`Wire::intercept`]): one on loopback for each address the plugin connects to,
//! for TCP and HTTP alike. The server itself is never touched, and the reader has
//! connections of its own, past this.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::watch;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// Nothing: both sides are connected.
    None,
    /// No new connection is taken.
    Refuse,
    /// Connections are taken and stay open, and nothing gets through either way.
    /// What is on its way goes on when the fault is over.
    Hang,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// From the plugin: requests.
    ToServer,
    /// From the server: replies.
    FromServer,
}

/// Cloning shares it.
#[derive(Clone)]
pub(crate) struct Wire(Arc<Inner>);

struct Inner {
    runtime: Handle,
    proxies: Mutex<Proxies>,
    fault: watch::Sender<Fault>,
    /// Counts how often all connections were cut; each ends when this changes.
    cuts: watch::Sender<u64>,
    /// How many bytes pass until all connections are cut, if that is to happen.
    fuse: Mutex<Option<(Way, u64)>>,
    /// How many connections went through a proxy.
    connections: AtomicU64,
}

#[derive(Default)]
struct Proxies {
    /// Whether connections go through a proxy.
    intercept: bool,
    /// The proxy of each server.
    of: HashMap<SocketAddr, SocketAddr>,
    /// A bound socket that does not listen, by family: a connection there is refused.
    closed: HashMap<bool, TcpSocket>,
}

impl Wire {
    /// A wire without a proxy, whose proxies run on `runtime`.
    pub(crate) fn new(runtime: Handle) -> Wire {
        Wire(Arc::new(Inner {
            runtime,
            proxies: Mutex::default(),
            fault: watch::Sender::new(Fault::None),
            cuts: watch::Sender::new(0),
            fuse: Mutex::default(),
            connections: AtomicU64::new(0),
        }))
    }

    /// Where a connection to `server` goes. A proxy that cannot be had is no proxy:
    /// the case notices that nothing came through one.
    pub(crate) fn route(&self, server: SocketAddr) -> SocketAddr {
        let mut proxies = self.proxies();
        if !proxies.intercept {
            return server;
        }
        let routed = match *self.0.fault.borrow() {
            Fault::Refuse => proxies.closed(server.is_ipv6()),
            _ => self.proxy(&mut proxies, server),
        };
        routed.unwrap_or_else(|error| {
            tracing::error!(%server, %error, "no proxy can be put before the server");
            server
        })
    }

    /// Has new connections go through proxies from now on, without a fault.
    pub(super) fn intercept(&self) {
        self.proxies().intercept = true;
    }

    /// Has new connections go straight to their servers from now on, and ends the
    /// others.
    pub(super) fn release(&self) {
        self.proxies().intercept = false;
        *self.fuse() = None;
        self.set(Fault::None);
        self.cut();
    }

    /// Has `fault` happen from now on, in place of the one before.
    pub(super) fn set(&self, fault: Fault) {
        self.0.fault.send_replace(fault);
    }

    /// Ends every connection that goes through a proxy.
    pub(super) fn cut(&self) {
        self.0.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Ends every connection once so many more bytes have gone this way.
    pub(super) fn cut_after(&self, way: Way, bytes: u64) {
        *self.fuse() = Some((way, bytes));
    }

    /// Whether the cut that was asked for has happened.
    pub(super) fn has_cut(&self) -> bool {
        self.fuse().is_none()
    }

    /// How many connections went through a proxy.
    pub(super) fn connections(&self) -> u64 {
        self.0.connections.load(Ordering::SeqCst)
    }

    fn proxy(&self, proxies: &mut Proxies, server: SocketAddr) -> io::Result<SocketAddr> {
        if let Some(proxy) = proxies.of.get(&server) {
            return Ok(*proxy);
        }
        let listener = std::net::TcpListener::bind(loopback(server.is_ipv6()))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let _on_runtime = self.0.runtime.enter();
        let listener = TcpListener::from_std(listener)?;
        self.0.runtime.spawn(accept(listener, server, self.clone()));
        proxies.of.insert(server, address);
        Ok(address)
    }

    /// How many of `count` bytes may pass, and whether the connections end then.
    fn burn(&self, way: Way, count: usize) -> (usize, bool) {
        let mut fuse = self.fuse();
        let Some((_, left)) = fuse.as_mut().filter(|(burning, _)| *burning == way) else {
            return (count, false);
        };
        let passing = usize::try_from(*left).unwrap_or(usize::MAX).min(count);
        *left -= passing as u64;
        let cut = *left == 0;
        if cut {
            *fuse = None;
        }
        (passing, cut)
    }

    fn proxies(&self) -> MutexGuard<'_, Proxies> {
        self.0
            .proxies
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn fuse(&self) -> MutexGuard<'_, Option<(Way, u64)>> {
        self.0.fuse.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Proxies {
    fn closed(&mut self, v6: bool) -> io::Result<SocketAddr> {
        if let Some(socket) = self.closed.get(&v6) {
            return socket.local_addr();
        }
        let socket = match v6 {
            true => TcpSocket::new_v6()?,
            false => TcpSocket::new_v4()?,
        };
        socket.bind(loopback(v6))?;
        let address = socket.local_addr()?;
        self.closed.insert(v6, socket);
        Ok(address)
    }
}

/// A free port of loopback.
fn loopback(v6: bool) -> SocketAddr {
    match v6 {
        true => (Ipv6Addr::LOCALHOST, 0).into(),
        false => (Ipv4Addr::LOCALHOST, 0).into(),
    }
}

async fn accept(listener: TcpListener, server: SocketAddr, wire: Wire) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                let wire = wire.clone();
                tokio::spawn(async move { serve(client, server, &wire).await });
            }
            // The connection is gone again, or there are too many.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Serves one connection to its end.
async fn serve(client: TcpStream, server: SocketAddr, wire: &Wire) {
    let mut cuts = wire.0.cuts.subscribe();
    cuts.mark_unchanged();
    wire.0.connections.fetch_add(1, Ordering::SeqCst);
    let carried = async {
        flowing(wire).await;
        let server = TcpStream::connect(server).await?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::try_join!(
            carry(from_client, to_server, Way::ToServer, wire),
            carry(from_server, to_client, Way::FromServer, wire),
        )
    };
    // Either way both ends are closed, and whoever is there notices.
    tokio::select! {
        biased;
        _ = cuts.changed() => {}
        _ = carried => {}
    }
}

/// Carries bytes one way until their source ends.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    way: Way,
    wire: &Wire,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        flowing(wire).await;
        let count = from.read(&mut buffer).await?;
        if count == 0 {
            return to.shutdown().await;
        }
        // It may have begun while this waited for something to read.
        flowing(wire).await;
        let (passing, cut) = wire.burn(way, count);
        to.write_all(&buffer[..passing]).await?;
        if cut {
            wire.cut();
            // Not a byte follows the one it is cut after.
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}

/// Waits while nothing gets through.
async fn flowing(wire: &Wire) {
    let mut fault = wire.0.fault.subscribe();
    // The sender is in `wire`.
    let _ = fault.wait_for(|fault| *fault != Fault::Hang).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers each byte with itself.
    async fn echo() -> SocketAddr {
        let listener = TcpListener::bind(loopback(false)).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut from, mut to) = stream.split();
                    let _ = tokio::io::copy(&mut from, &mut to).await;
                });
            }
        });
        address
    }

    async fn ask(stream: &mut TcpStream, text: &str) -> io::Result<String> {
        stream.write_all(text.as_bytes()).await?;
        let mut answer = vec![0; text.len()];
        let mut read = 0;
        while read < answer.len() {
            match stream.read(&mut answer[read..]).await? {
                0 => break,
                count => read += count,
            }
        }
        answer.truncate(read);
        Ok(String::from_utf8(answer).unwrap())
    }

    #[tokio::test]
    async fn each_fault_happens_while_it_is_set_and_ends_with_it() {
        let (server, wire) = (echo().await, Wire::new(Handle::current()));
        assert_eq!(wire.route(server), server);
        wire.intercept();
        let connect = || TcpStream::connect(wire.route(server));
        let mut stream = connect().await.unwrap();
        assert_eq!(ask(&mut stream, "one").await.unwrap(), "one");

        wire.set(Fault::Hang);
        stream.write_all(b"two").await.unwrap();
        let mut answer = [0; 3];
        let read = stream.read_exact(&mut answer);
        let waited = tokio::time::timeout(Duration::from_millis(100), read).await;
        assert!(waited.is_err());
        wire.set(Fault::None);
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"two");

        wire.set(Fault::Refuse);
        let refused = connect().await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        wire.cut();
        assert_eq!(ask(&mut stream, "three").await.unwrap_or_default(), "");

        wire.set(Fault::None);
        for way in [Way::ToServer, Way::FromServer] {
            let mut stream = connect().await.unwrap();
            wire.cut_after(way, 6);
            assert_eq!(ask(&mut stream, "four").await.unwrap(), "four");
            assert!(!wire.has_cut());
            assert!("fi".starts_with(&ask(&mut stream, "five").await.unwrap_or_default()));
            assert!(wire.has_cut());
        }
        wire.release();
        assert_eq!(wire.route(server), server);
        assert_eq!(wire.connections(), 3);
    }
}
