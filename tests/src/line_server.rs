//! A server that stores lines in a file: the smallest there can be that knows a
//! login, tells what it has stored, and refuses what it does not like.
//!
//! The first line of a connection is a password, answered with `+` and how many
//! connections there are, or with `-`. Each further line is stored, if it is not too
//! long or refused, and then answered with `+`; else with `-`.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The longest line that is stored, in bytes.
pub const MAX_LINE: usize = 2 << 20;

/// A line with this in it is refused.
pub const REFUSED: &str = "\"type\":\"lines:refused\"";

/// A server on a free port of loopback. Dropping it ends it.
pub struct LineServer {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    password: String,
    file: Mutex<File>,
    connections: AtomicUsize,
    stopped: AtomicBool,
}

impl LineServer {
    /// A server that stores what comes, after this password, in `file`.
    pub fn start(password: &str, file: &Path) -> LineServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let file = OpenOptions::new().append(true).create(true).open(file);
        let shared = Arc::new(Shared {
            password: password.to_owned(),
            file: Mutex::new(file.expect("a file for the lines")),
            connections: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let server = LineServer {
            address: listener.local_addr().expect("its address"),
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (Ok(client), shared) = (client, shared.clone()) else {
                    continue;
                };
                std::thread::spawn(move || {
                    let number = shared.connections.fetch_add(1, Ordering::SeqCst) + 1;
                    // A client that goes away is no matter.
                    let _ = shared.serve(&client, number);
                    shared.connections.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    /// `HOST:PORT`
    pub fn address(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for LineServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn serve(&self, mut client: &TcpStream, number: usize) -> std::io::Result<()> {
        client.set_nodelay(true)?;
        let mut reader = BufReader::new(client);
        let mut password = String::new();
        reader.read_line(&mut password)?;
        if password.trim_end() != self.password {
            return client.write_all(b"-\n");
        }
        client.write_all(format!("+{number}\n").as_bytes())?;
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line)? > 0 {
            // One that is cut off was not sent as a whole.
            if !line.ends_with(b"\n") {
                return Ok(());
            }
            let refused = line.len() > MAX_LINE
                || line
                    .windows(REFUSED.len())
                    .take(1_000)
                    .any(|part| part == REFUSED.as_bytes());
            if !refused {
                self.file.lock().expect("the file").write_all(&line)?;
            }
            client.write_all(if refused { b"-" } else { b"+" })?;
            line.clear();
        }
        Ok(())
    }
}
