//! Sends a request that has been allowed: finds the server, connects, and hands
//! the answer on.

use std::error::Error as _;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::client::conn::http1;
use hyper::{Request, Response};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;
use wasmtime_wasi_http::io::TokioIo;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::Rules;
use super::body::{RequestBody, ResponseBody};
use super::last_word::LastWord;
use super::origin::HttpGrant;
use super::pool::{Connection, Lease, Pool};
use super::tls;

/// The longest a guest may have the host wait for a connection, for the head of
/// a response, or for the next bytes of a body.
const MAX_WAIT: Duration = Duration::from_secs(30);

/// The most bytes of a response's head; also of what is read ahead of a body.
/// Servers send some hundred.
const MAX_HEAD: usize = 64 << 10;

/// The most headers of a response.
const MAX_HEADERS: usize = 100;

/// The most requests one instance may have open; a further one fails at once.
/// One is open until its response's body has ended or is dropped.
const MAX_REQUESTS: usize = 128;

/// The most connections one instance may use at a time; further requests wait.
/// With those that are kept, it bounds the file descriptors and buffers that a
/// guest has the host hold, about a quarter of a MiB for each.
const MAX_CONNECTIONS: usize = 32;

/// How many addresses of a name are tried.
const MAX_ADDRESSES: usize = 8;

/// How long to wait for what: what the guest asks for, within [`MAX_WAIT`].
pub(super) struct Patience {
    connect: Duration,
    first_byte: Duration,
    between_bytes: Duration,
}

impl Patience {
    pub(super) fn new(options: Option<RequestOptions>) -> Patience {
        let capped = |wanted: Option<Duration>| wanted.unwrap_or(MAX_WAIT).min(MAX_WAIT);
        Patience {
            connect: capped(options.and_then(|options| options.connect_timeout)),
            first_byte: capped(options.and_then(|options| options.first_byte_timeout)),
            between_bytes: capped(options.and_then(|options| options.between_bytes_timeout)),
        }
    }
}

/// The client of one instance.
pub(super) struct Client {
    rules: Arc<Rules>,
    pool: Arc<Pool>,
    requests: Arc<Semaphore>,
    connections: Arc<Semaphore>,
}

impl Client {
    pub(super) fn new(rules: Arc<Rules>) -> Client {
        Client {
            rules,
            pool: Arc::default(),
            requests: Arc::new(Semaphore::new(MAX_REQUESTS)),
            connections: Arc::new(Semaphore::new(MAX_CONNECTIONS)),
        }
    }

    /// Sends `request` to `origin`. The receiver ends when the host is done with
    /// the request's body.
    pub(super) async fn send(
        &self,
        origin: HttpGrant,
        request: Request<WasiBody>,
        patience: Patience,
    ) -> Result<(Response<WasiBody>, oneshot::Receiver<()>), Error> {
        let requests = self.requests.clone();
        let Ok(request_place) = requests.try_acquire_owned() else {
            return Err(Error::ConnectionLimitReached);
        };
        let (head, body) = request.into_parts();
        let (body, sent, done) = RequestBody::new(body);
        let mut request = Request::from_parts(head, body);
        let (connection, connection_place, response) = loop {
            let connecting = self.connection(&origin, patience.connect);
            let (mut connection, place, is_new) = timeout(patience.connect, connecting)
                .await
                .map_err(|_| Error::ConnectionTimeout)??;
            let answer = connection.sender.try_send_request(request);
            let answer = timeout(patience.first_byte, answer)
                .await
                .map_err(|_| Error::ConnectionReadTimeout)?;
            match answer {
                Ok(response) => break (connection, place, response),
                Err(mut error) => match error.take_message() {
                    // The server closed a kept connection before anything of the
                    // request went out.
                    Some(unsent) if !is_new => request = unsent,
                    _ => return Err(failed(error.error())),
                },
            }
        };
        let lease = Lease {
            connection,
            pool: self.pool.clone(),
            sent,
            _places: [request_place, connection_place],
        };
        let body = |incoming| ResponseBody::new(incoming, lease, patience.between_bytes);
        Ok((response.map(body).map(BodyExt::boxed_unsync), done))
    }

    /// A connection, and whether it is new.
    async fn connection(
        &self,
        origin: &HttpGrant,
        limit: Duration,
    ) -> Result<(Connection, OwnedSemaphorePermit, bool), Error> {
        let place = self.connections.clone().acquire_owned().await;
        let place = place.map_err(|_| Error::ConnectionLimitReached)?;
        if let Some(connection) = self.pool.take(origin).await {
            return Ok((connection, place, false));
        }
        let mut addresses = self.rules.addresses(origin).await?;
        for address in &mut addresses {
            *address = self.rules.network.instead_of(*address);
        }
        let stream = connect(&addresses, limit).await?;
        let connection = match origin.is_https() {
            false => start(stream, origin).await?,
            true => start(tls::connect(&self.rules, origin, stream).await?, origin).await?,
        };
        Ok((connection, place, true))
    }
}

/// Connects to the first address that lets it; none takes the time of the others.
async fn connect(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, Error> {
    let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let mut failure = Error::DestinationNotFound;
    for address in addresses {
        let share = limit / u32::try_from(addresses.len()).unwrap_or(1);
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => {
                // Without, a small request waits for the acknowledgement of the last.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                tracing::debug!(%address, %error, "cannot connect");
                failure = match error.kind() {
                    io::ErrorKind::ConnectionRefused => Error::ConnectionRefused,
                    _ => Error::DestinationUnavailable,
                };
            }
            Err(_) => failure = Error::ConnectionTimeout,
        }
    }
    Err(failure)
}

/// Starts HTTP/1.1 on a stream.
async fn start<S>(stream: S, origin: &HttpGrant) -> Result<Connection, Error>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    builder.max_buf_size(MAX_HEAD).max_headers(MAX_HEADERS);
    let (sender, connection) = builder
        .handshake(TokioIo::new(LastWord::new(stream)))
        .await
        .map_err(|error| failed(&error))?;
    let driver = tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection of a plugin ended");
        }
    });
    Ok(Connection::new(sender, origin.clone(), driver))
}

/// What a guest is told of an exchange that failed.
pub(super) fn failed(error: &hyper::Error) -> Error {
    tracing::debug!(?error, "a request of a plugin failed");
    let cause = error.source();
    if error.is_user() {
        // Mostly the guest's own body, which was not as long as it said.
        return match cause.and_then(|cause| cause.downcast_ref::<Error>()) {
            Some(Error::HttpRequestBodySize(size)) => Error::HttpRequestBodySize(*size),
            _ => Error::HttpProtocolError,
        };
    }
    if error.is_parse_too_large() {
        return Error::HttpResponseHeaderSectionSize(u32::try_from(MAX_HEAD).ok());
    }
    if error.is_parse() {
        return Error::HttpProtocolError;
    }
    // The one before a head, the other within a body.
    let cut_off = cause.and_then(|cause| cause.downcast_ref::<io::Error>());
    let cut_off = cut_off.is_some_and(|cause| cause.kind() == io::ErrorKind::UnexpectedEof);
    if error.is_incomplete_message() || cut_off {
        return Error::HttpResponseIncomplete;
    }
    if error.is_timeout() {
        return Error::HttpResponseTimeout;
    }
    Error::ConnectionTerminated
}
