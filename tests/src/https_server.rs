//! A small HTTP and HTTPS server whose paths are behaviours, some of them bad.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use crate::certificates::{Issuer, ServerCertificate};

/// A server on a free port of loopback. Dropping it closes its connections.
///
/// - `/hello`: `200` with the body `hello`; `/echo`: the request's own body.
/// - `/request`: the request's head, as it came.
/// - `/to?URL`: `302` to `URL`.
/// - `/bytes?N`: a body of `N` bytes; `/endless-body`: one without an end.
/// - `/endless-headers`, `/many-headers`: a head without an end, or of too many
///   headers.
/// - `/silent`: no answer. `/stalls`: half a body, and then nothing.
/// - `/cut`: the connection ends within the body.
/// - `/close`: as `/hello`, and the connection is closed.
pub struct HttpsServer {
    address: SocketAddr,
    is_tls: bool,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: AtomicUsize,
    requests: AtomicUsize,
    open: Mutex<Vec<TcpStream>>,
    stopped: std::sync::atomic::AtomicBool,
}

impl HttpsServer {
    /// A server without TLS.
    pub fn plain() -> HttpsServer {
        HttpsServer::start(None)
    }

    /// A server with TLS.
    pub fn tls(certificate: &ServerCertificate) -> HttpsServer {
        HttpsServer::start(Some(certificate.server_config()))
    }

    /// The same, for clients with a certificate of `issuer` alone.
    pub fn tls_for(issuer: &Issuer, certificate: &ServerCertificate) -> HttpsServer {
        HttpsServer::start(Some(certificate.server_config_for(issuer)))
    }

    fn start(tls: Option<Arc<ServerConfig>>) -> HttpsServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::new(Shared::default());
        let server = HttpsServer {
            address,
            is_tls: tls.is_some(),
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                shared.connections.fetch_add(1, Ordering::SeqCst);
                let duplicate = || stream.try_clone().expect("a second handle");
                shared.open.lock().expect("the list").push(duplicate());
                let ended = duplicate();
                let (shared, tls) = (shared.clone(), tls.clone());
                std::thread::spawn(move || {
                    // A client that goes away is no failure of the server.
                    let _ = match tls {
                        None => serve(stream, &shared),
                        Some(config) => {
                            let connection = ServerConnection::new(config).expect("a TLS state");
                            serve(StreamOwned::new(connection, stream), &shared)
                        }
                    };
                    // The list has another handle of it.
                    let _ = ended.shutdown(Shutdown::Write);
                });
            }
        });
        server
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its origin, with `host` for the host.
    pub fn origin(&self, host: &str) -> String {
        let scheme = if self.is_tls { "https" } else { "http" };
        format!("{scheme}://{host}:{}", self.port())
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// How many requests it has read.
    pub fn requests(&self) -> usize {
        self.shared.requests.load(Ordering::SeqCst)
    }

    /// Closes the connections that are open, as a server does that has waited
    /// long enough.
    pub fn close_connections(&self) {
        for stream in self.shared.open.lock().expect("the list").drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for HttpsServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
        self.close_connections();
    }
}

fn serve(stream: impl Read + Write, shared: &Shared) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        let mut length = 0;
        let mut chunked = false;
        loop {
            let start = head.len();
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
            let line = head[start..].trim_end().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().expect("a length");
            }
            chunked |= line == "transfer-encoding: chunked";
            if line.is_empty() {
                break;
            }
        }
        let body = match chunked {
            true => read_chunks(&mut stream)?,
            false => read(&mut stream, length)?,
        };
        shared.requests.fetch_add(1, Ordering::SeqCst);
        let target = head.split(' ').nth(1).expect("a request line").to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let to = stream.get_mut();
        match path {
            "/hello" => answer(to, "200 OK", "", b"hello")?,
            "/echo" => answer(to, "200 OK", "", &body)?,
            "/request" => answer(to, "200 OK", "", head.as_bytes())?,
            "/to" => answer(to, "302 Found", &format!("location: {query}\r\n"), b"")?,
            "/close" => {
                answer(to, "200 OK", "connection: close\r\n", b"hello")?;
                return Ok(());
            }
            "/bytes" => {
                let size: usize = query.parse().expect("a number");
                answer(to, "200 OK", "", &vec![b'x'; size])?;
            }
            "/endless-body" => {
                to.write_all(b"HTTP/1.1 200 OK\r\n\r\n")?;
                loop {
                    to.write_all(&[b'x'; 64 << 10])?;
                }
            }
            "/endless-headers" => {
                to.write_all(b"HTTP/1.1 200 OK\r\n")?;
                loop {
                    to.write_all(b"x-more: and more\r\n")?;
                }
            }
            "/many-headers" => {
                let mut headers = String::new();
                for n in 0..200 {
                    write!(headers, "x-{n}: 1\r\n").expect("room");
                }
                answer(to, "200 OK", &headers, b"hello")?;
            }
            "/silent" => wait_for_the_end(to)?,
            "/stalls" => {
                to.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")?;
                to.flush()?;
                wait_for_the_end(to)?;
            }
            "/cut" => {
                to.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")?;
                to.flush()?;
                return Ok(());
            }
            _ => answer(to, "404 Not Found", "", b"")?,
        }
    }
}

fn answer(to: &mut impl Write, status: &str, headers: &str, body: &[u8]) -> std::io::Result<()> {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n");
    // One write: two small ones wait for each other.
    to.write_all(&[head.as_bytes(), body].concat())?;
    to.flush()
}

fn read(stream: &mut impl Read, length: usize) -> std::io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn read_chunks(stream: &mut impl BufRead) -> std::io::Result<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let mut size = String::new();
        stream.read_line(&mut size)?;
        let size = usize::from_str_radix(size.trim_end(), 16).expect("a chunk's size");
        body.extend(read(stream, size)?);
        read(stream, "\r\n".len())?;
        if size == 0 {
            return Ok(body);
        }
    }
}

fn wait_for_the_end(stream: &mut impl Read) -> std::io::Result<()> {
    std::io::copy(stream, &mut std::io::sink())?;
    Ok(())
}
