//! TLS to the servers that the manifest grants so, with its roots and its certificate.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::{PATIENCE, ReaderError, Setup};

impl Setup<'_> {
    /// What the server at `host` and `port` is spoken TLS with; `None` if it is granted
    /// without.
    pub(super) fn tls(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Option<Arc<ClientConfig>>, ReaderError> {
        if !self.grants.is_tls(host, port) {
            return Ok(None);
        }
        let config = Handle::current().block_on(self.grants.tls.client_config());
        let failed = |error| ReaderError(format!("cannot read root certificates: {error}"));
        config.map(Some).map_err(failed)
    }

    /// A tunnel to the server at `host` and `port`, for a client that speaks no TLS;
    /// `None` if none is needed.
    pub(super) fn tunnel(&self, host: &str, port: u16) -> Result<Option<Tunnel>, ReaderError> {
        let Some(config) = self.tls(host, port)? else {
            return Ok(None);
        };
        let server = format!("{host}:{port}");
        let opened = Handle::current().block_on(Tunnel::open(config, host, &server));
        let failed = |error| ReaderError::at("speak TLS with", &server, error);
        opened.map(Some).map_err(failed)
    }
}

/// A port on loopback that leads to a server by TLS, for whoever of this machine connects
/// to it. It is closed, and connections end, when this is dropped.
pub(super) struct Tunnel {
    address: SocketAddr,
    task: JoinHandle<()>,
}

/// Where a tunnel leads.
#[derive(Clone)]
struct Server {
    address: String,
    name: ServerName<'static>,
    connector: TlsConnector,
}

impl Tunnel {
    async fn open(config: Arc<ClientConfig>, host: &str, server: &str) -> std::io::Result<Tunnel> {
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let name = ServerName::try_from(bare.to_owned()).map_err(std::io::Error::other)?;
        let server = Server {
            address: server.to_owned(),
            name,
            connector: TlsConnector::from(config),
        };
        // What is wrong with the server is better said now than by a client that is
        // cut off.
        server.connect().await?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let task = tokio::spawn(accept(listener, server));
        Ok(Tunnel { address, task })
    }

    /// Where its client connects to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn connect(&self) -> std::io::Result<TlsStream<TcpStream>> {
        let connect = async {
            let stream = TcpStream::connect(&self.address).await?;
            stream.set_nodelay(true)?;
            self.connector.connect(self.name.clone(), stream).await
        };
        timeout(PATIENCE, connect)
            .await
            .unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
    }
}

async fn accept(listener: TcpListener, server: Server) {
    let mut connections = JoinSet::new();
    while let Ok((mut client, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        let server = server.clone();
        connections.spawn(async move {
            // The client's own error says that the connection ended.
            if let Ok(mut stream) = server.connect().await {
                let _ = client.set_nodelay(true);
                let _ = copy_bidirectional(&mut client, &mut stream).await;
            }
        });
    }
}
