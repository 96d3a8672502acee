//! Servers that do not speak the protocol they are taken for, or abuse it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::books::book;
use crate::host::Workspace;

/// What every connection gets.
#[derive(Clone, Copy, Debug)]
pub enum Misbehaviour {
    /// This at once, and then the end.
    Says(&'static [u8]),
    /// It is taken, and nothing more.
    Silence,
    /// This, one byte every 50 ms, and from its beginning again.
    Drips(&'static [u8]),
    /// The first text once, and the second for ever.
    Floods(&'static [u8], &'static [u8]),
    /// The same, after the client has sent something.
    FloodsWhenAsked(&'static [u8], &'static [u8]),
}

/// A listener on loopback that takes every connection, and treats it badly.
/// Dropping it ends its connections.
pub struct HostileServer {
    address: String,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl HostileServer {
    /// Starts one on a free port.
    pub fn start(misbehaviour: Misbehaviour) -> HostileServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let server = HostileServer {
            address: listener.local_addr().expect("its address").to_string(),
            connections: Arc::default(),
            stopped: Arc::default(),
        };
        let (connections, stopped) = (server.connections.clone(), server.stopped.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let stopped = stopped.clone();
                std::thread::spawn(move || {
                    // A client that goes away ends this.
                    let _ = misbehave(stream, misbehaviour, &stopped);
                });
            }
        });
        server
    }

    /// `HOST:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// How many connections it has taken.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for HostileServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // For the listener to see it.
        let _ = TcpStream::connect(&self.address);
    }
}

fn misbehave(
    mut stream: TcpStream,
    misbehaviour: Misbehaviour,
    stopped: &AtomicBool,
) -> std::io::Result<()> {
    let pause = Duration::from_millis(50);
    stream.set_read_timeout(Some(pause))?;
    stream.set_write_timeout(Some(Duration::from_secs(1)))?;
    let going_on = || !stopped.load(Ordering::SeqCst);
    match misbehaviour {
        Misbehaviour::Says(text) => stream.write_all(text)?,
        Misbehaviour::Silence => while going_on() && is_open(&mut stream) {},
        Misbehaviour::Drips(text) => {
            let mut bytes = text.iter().cycle();
            while going_on() && is_open(&mut stream) {
                stream.write_all(&[*bytes.next().expect("a text")])?;
            }
        }
        Misbehaviour::Floods(first, then) => flood(&mut stream, first, then, going_on)?,
        Misbehaviour::FloodsWhenAsked(first, then) => {
            while stream.peek(&mut [0]).is_err() && going_on() {}
            flood(&mut stream, first, then, going_on)?;
        }
    }
    Ok(())
}

fn flood(
    stream: &mut TcpStream,
    first: &[u8],
    then: &[u8],
    going_on: impl Fn() -> bool,
) -> std::io::Result<()> {
    stream.write_all(first)?;
    let many = then.repeat((64 << 10) / then.len());
    while going_on() {
        stream.write_all(&many)?;
    }
    Ok(())
}

/// Takes what the client sends, for as long as the stream's time-out.
fn is_open(stream: &mut TcpStream) -> bool {
    match stream.read(&mut [0; 4096]) {
        Ok(bytes) => bytes > 0,
        Err(error) => matches!(
            error.kind(),
            std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
        ),
    }
}

/// Has the plugin called `backend`, which is aimed at a hostile server, do its
/// worst: it says `text`, another plugin goes on, the host's memory stays in bounds,
/// and the events are still there.
///
/// # Panics
///
/// If that is not so.
pub fn assert_survived(workspace: &Workspace, backend: &str, text: &str) {
    workspace.add_file_plugin();
    let host = workspace.serve_with(&["--drain", "200ms"]);
    let before = host.resident_bytes();
    assert_eq!(host.post_event("0", "t", "1").status, 202);
    host.wait_for_log(text);
    workspace.wait_for_file_lines(1);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    workspace.wait_for_file_lines(2);
    let grown = host.resident_bytes().saturating_sub(before);
    assert!(grown < 64 << 20, "{grown} bytes");
    let book = book(&host, backend);
    assert_eq!((book.pending, book.dead), (2, 0));
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}
