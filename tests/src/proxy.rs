//! A TCP proxy between a plugin and its server: what can go wrong on the way,
//! switched on and off while connections are open.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait_for;

/// What happens to connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing: both sides are connected.
    None,
    /// The port is closed, and so is every connection.
    Refuse,
    /// A connection is taken and stays open, and nothing gets through either way.
    /// What is on its way goes on when the fault is over.
    Silence,
    /// So many bytes a second get through each way of a connection.
    Slow(usize),
    /// A connection ends when so many bytes of replies have come through,
    /// counted from the fault's beginning; also in the middle of a reply.
    CutReplies(usize),
    /// The server gets nothing, and the client an answer that is none.
    Rubbish,
}

/// How long a connection looks at nothing but its socket.
const TICK: Duration = Duration::from_millis(10);

/// The first port of proxies. Below the ports that the system gives to others: a
/// port that is closed for a while must not be taken meanwhile.
const FIRST_PORT: u16 = 20_000;

/// How many ports there are for proxies.
const PORTS: u16 = 10_000;

/// How many proxies this process has tried to start.
static TRIED: AtomicU16 = AtomicU16::new(0);

/// A proxy on loopback. Dropping it closes its connections.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    upstream: String,
    now: Mutex<Now>,
    connections: AtomicUsize,
}

struct Now {
    fault: Fault,
    /// How often the fault has changed.
    changes: usize,
    /// Both ends of each connection.
    open: Vec<TcpStream>,
    /// Whether the thread that accepts is to end.
    closed: bool,
}

impl Proxy {
    /// A proxy to `upstream`, `HOST:PORT`, without a fault.
    pub fn to(upstream: &str) -> Proxy {
        let (listener, address) = listen_somewhere();
        let shared = Arc::new(Shared {
            upstream: upstream.to_owned(),
            now: Mutex::new(Now {
                fault: Fault::None,
                changes: 0,
                open: Vec::new(),
                closed: false,
            }),
            connections: AtomicUsize::new(0),
        });
        let accepting = accept(listener, shared.clone());
        Proxy {
            address,
            shared,
            accepting: Mutex::new(Some(accepting)),
        }
    }

    /// `HOST:PORT`
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// `redis://HOST:PORT`
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// Has `fault` happen from now on, in place of the one before.
    pub fn set(&self, fault: Fault) {
        let before = {
            let mut now = self.shared.now();
            let before = std::mem::replace(&mut now.fault, fault);
            now.changes += 1;
            // The server has missed what a client sent to get rubbish.
            if fault == Fault::Refuse || before == Fault::Rubbish {
                now.cut();
            }
            now.closed = fault == Fault::Refuse;
            before
        };
        if fault == Fault::Refuse {
            self.stop_accepting();
        } else if before == Fault::Refuse {
            let listener = wait_for("the proxy's port to be free", || {
                TcpListener::bind(self.address).ok()
            });
            let accepting = accept(listener, self.shared.clone());
            *self.accepting.lock().expect("the thread") = Some(accepting);
        }
    }

    /// Ends every connection there is.
    pub fn cut_all(&self) {
        self.shared.now().cut();
    }

    fn stop_accepting(&self) {
        if let Some(thread) = self.accepting.lock().expect("the thread").take() {
            // Wakes it.
            let _ = TcpStream::connect(self.address);
            thread.join().expect("the thread that accepts");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut now = self.shared.now();
        now.closed = true;
        // Nobody waits for a silence to end.
        now.fault = Fault::None;
        now.cut();
        drop(now);
        self.stop_accepting();
    }
}

impl Shared {
    fn now(&self) -> std::sync::MutexGuard<'_, Now> {
        self.now.lock().expect("the state of the proxy")
    }
}

impl Now {
    fn cut(&mut self) {
        for stream in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

fn listen_somewhere() -> (TcpListener, SocketAddr) {
    // Each process begins elsewhere.
    let start = std::process::id() as u16 % PORTS;
    wait_for("a port for a proxy", || {
        let tried = TRIED.fetch_add(1, Ordering::SeqCst);
        let port = FIRST_PORT + start.wrapping_add(tried) % PORTS;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        Some((TcpListener::bind(address).ok()?, address))
    })
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for client in listener.incoming() {
            if shared.now().closed {
                return;
            }
            let Ok(client) = client else { continue };
            shared.connections.fetch_add(1, Ordering::SeqCst);
            let shared = shared.clone();
            std::thread::spawn(move || {
                let _ = connect(&client, &shared);
                let _ = client.shutdown(Shutdown::Both);
            });
        }
    })
}

/// Serves one connection to its end.
fn connect(client: &TcpStream, shared: &Arc<Shared>) -> std::io::Result<()> {
    client.set_nodelay(true)?;
    client.set_read_timeout(Some(TICK))?;
    shared.now().open.push(client.try_clone()?);
    // A server that is away ends the connection, once anything gets through.
    while shared.now().fault == Fault::Silence {
        std::thread::sleep(TICK);
    }
    let server = TcpStream::connect(&shared.upstream)?;
    server.set_nodelay(true)?;
    server.set_read_timeout(Some(TICK))?;
    shared.now().open.push(server.try_clone()?);
    std::thread::scope(|scope| {
        let requests = scope.spawn(|| carry(client, &server, shared, false));
        let replies = carry(&server, client, shared, true);
        let _ = client.shutdown(Shutdown::Both);
        let _ = server.shutdown(Shutdown::Both);
        requests
            .join()
            .expect("the thread of requests")
            .and(replies)
    })
}

/// Carries bytes one way until one side ends.
fn carry(
    mut from: &TcpStream,
    mut to: &TcpStream,
    shared: &Shared,
    replies: bool,
) -> std::io::Result<()> {
    let end = || {
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    };
    let mut buffer = [0; 16 << 10];
    let mut current = Current::default();
    loop {
        let most = match current.look(shared) {
            Fault::Slow(bytes) => {
                std::thread::sleep(TICK);
                bytes / 100
            }
            Fault::CutReplies(_) if replies => current.left,
            _ => buffer.len(),
        };
        let most = most.clamp(1, buffer.len());
        let count = match from.read(&mut buffer[..most]) {
            Ok(0) => {
                end();
                return Ok(());
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                continue;
            }
            Err(error) => {
                end();
                return Err(error);
            }
        };
        // The fault may have come while this waited for something to read.
        match current.look(shared) {
            Fault::Rubbish if replies => {}
            Fault::Rubbish => from.write_all(b"\x16\x03?HTTP/1.1 418 what?\r\n\r\n\0\0*$")?,
            Fault::CutReplies(_) if replies => {
                to.write_all(&buffer[..count.min(current.left)])?;
                current.left -= count.min(current.left);
                if current.left == 0 {
                    end();
                    return Ok(());
                }
            }
            _ => to.write_all(&buffer[..count])?,
        }
    }
}

/// The fault, as one direction of a connection knows it.
#[derive(Default)]
struct Current {
    changes: usize,
    /// How many bytes [`Fault::CutReplies`] lets through yet.
    left: usize,
}

impl Current {
    /// The fault there is now, other than silence: that is waited for to end.
    fn look(&mut self, shared: &Shared) -> Fault {
        loop {
            let (fault, changes) = {
                let now = shared.now();
                (now.fault, now.changes)
            };
            if self.changes != changes {
                self.changes = changes;
                self.left = match fault {
                    Fault::CutReplies(bytes) => bytes,
                    _ => 0,
                };
            }
            match fault {
                Fault::Silence => std::thread::sleep(TICK),
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::BufRead as _;
    use std::io::BufReader;
    use std::time::Instant;

    use super::*;

    /// A server that answers each line with itself.
    fn echo() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                std::thread::spawn(move || {
                    let stream = stream.unwrap();
                    let _ = std::io::copy(&mut &stream, &mut &stream);
                });
            }
        });
        address
    }

    fn connected(proxy: &Proxy) -> TcpStream {
        let stream = TcpStream::connect(proxy.address()).unwrap();
        stream.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        stream
    }

    fn ask(mut stream: &TcpStream, line: &str) -> std::io::Result<String> {
        stream.write_all(format!("{line}\n").as_bytes())?;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer)?;
        Ok(answer)
    }

    #[test]
    fn each_fault_happens_while_it_is_set_and_ends_with_it() {
        let proxy = Proxy::to(&echo());
        let stream = connected(&proxy);
        assert_eq!(ask(&stream, "one").unwrap(), "one\n");

        proxy.set(Fault::Silence);
        let silent = connected(&proxy);
        for stream in [&stream, &silent] {
            let short = Some(Duration::from_millis(100));
            stream.set_read_timeout(short).unwrap();
            assert_eq!(
                ask(stream, "two").unwrap_err().kind(),
                ErrorKind::WouldBlock
            );
            stream.set_read_timeout(Some(crate::PATIENCE)).unwrap();
        }
        proxy.set(Fault::None);
        for stream in [&stream, &silent] {
            let mut answer = String::new();
            BufReader::new(stream).read_line(&mut answer).unwrap();
            assert_eq!(answer, "two\n");
        }

        proxy.set(Fault::Refuse);
        assert_eq!(ask(&stream, "three").unwrap_or_default(), "");
        assert_eq!(
            TcpStream::connect(proxy.address()).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );

        proxy.set(Fault::CutReplies(7));
        let stream = connected(&proxy);
        assert_eq!(ask(&stream, "four").unwrap(), "four\n");
        assert_eq!(ask(&stream, "five").unwrap(), "fi");

        proxy.set(Fault::Rubbish);
        assert!(ask(&connected(&proxy), "six").unwrap_or_default() != "six\n");

        proxy.set(Fault::Slow(1000));
        let stream = connected(&proxy);
        let (began, line) = (Instant::now(), "x".repeat(200));
        assert_eq!(ask(&stream, &line).unwrap().len(), 201);
        assert!(began.elapsed() > Duration::from_millis(200));

        proxy.set(Fault::None);
        let stream = connected(&proxy);
        assert_eq!(ask(&stream, "seven").unwrap(), "seven\n");
        proxy.cut_all();
        assert_eq!(ask(&stream, "eight").unwrap_or_default(), "");
        assert_eq!(proxy.connections(), 6);
    }
}
