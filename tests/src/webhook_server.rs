//! An HTTP server that keeps what is posted to it, and answers as a test says.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

/// A request, as it came.
#[derive(Clone, Debug)]
pub struct Request {
    /// The first line, for instance `POST /hook HTTP/1.1`.
    pub line: String,
    /// The headers, names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body.
    pub body: Vec<u8>,
    /// When its head had come.
    pub at: Instant,
}

/// An answer: a status, further lines of its head, and a body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// For instance `204`.
    pub status: u16,
    /// Each with a line end, for instance `Retry-After: 1\r\n`.
    pub headers: String,
    /// The body.
    pub body: String,
}

impl Reply {
    /// An answer with nothing but a status.
    pub fn status(status: u16) -> Reply {
        Reply {
            status,
            headers: String::new(),
            body: String::new(),
        }
    }

    /// The same with a header.
    pub fn with(self, name: &str, value: &str) -> Reply {
        let headers = format!("{}{name}: {value}\r\n", self.headers);
        Reply { headers, ..self }
    }

    /// The same with a body.
    pub fn saying(self, body: &str) -> Reply {
        let body = body.to_owned();
        Reply { body, ..self }
    }
}

/// A server on a free port of loopback. Dropping it ends it.
pub struct WebhookServer {
    address: String,
    shared: Arc<Shared>,
}

/// Makes an answer of a request and the number of those before it.
type Answer = dyn Fn(&Request, usize) -> Reply + Send + Sync;

struct Shared {
    answer: Box<Answer>,
    /// Answers before the body has come, and closes the connection.
    hastily: bool,
    requests: Mutex<Vec<Request>>,
    stopped: AtomicBool,
}

impl WebhookServer {
    /// A server that answers each request with what `answer` makes of it and of
    /// the number of requests before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(answer, false)
    }

    /// The same, but it answers before a body has come, and closes the connection.
    pub fn hasty(answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(answer, true)
    }

    fn with(
        answer: impl Fn(&Request, usize) -> Reply + Send + Sync + 'static,
        hastily: bool,
    ) -> WebhookServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address").to_string();
        let shared = Arc::new(Shared {
            answer: Box::new(answer),
            hastily,
            requests: Mutex::default(),
            stopped: AtomicBool::new(false),
        });
        let server = WebhookServer {
            address,
            shared: shared.clone(),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let shared = shared.clone();
                // A client that goes away is no failure of the server.
                std::thread::spawn(move || serve(stream, &shared));
            }
        });
        server
    }

    /// `http://HOST:PORT`
    pub fn origin(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().expect("the requests").clone()
    }

    /// The header `ce-id` of each request so far.
    pub fn ids(&self) -> Vec<String> {
        let id = |request: Request| request.headers.get("ce-id").cloned();
        self.requests().into_iter().filter_map(id).collect()
    }
}

impl Drop for WebhookServer {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // For the listener to see it.
        let _ = TcpStream::connect(&self.address);
    }
}

fn serve(stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    while !shared.stopped.load(Ordering::SeqCst) {
        let Some(mut request) = head(&mut reader)? else {
            return Ok(());
        };
        let length = request.headers.get("content-length");
        let length = length.map_or(0, |length| length.parse().expect("a length"));
        if !shared.hastily {
            request.body = vec![0; length];
            reader.read_exact(&mut request.body)?;
        }
        let before = {
            let mut requests = shared.requests.lock().expect("the requests");
            requests.push(request.clone());
            requests.len() - 1
        };
        reply(&stream, &(shared.answer)(&request, before))?;
        if shared.hastily {
            return stream.shutdown(Shutdown::Both);
        }
    }
    Ok(())
}

fn head(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = || -> std::io::Result<String> {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    };
    let first = line()?;
    if first.is_empty() {
        return Ok(None);
    }
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(':') {
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    Ok(Some(Request {
        line: first,
        headers,
        body: Vec::new(),
        at: Instant::now(),
    }))
}

fn reply(mut stream: &TcpStream, reply: &Reply) -> std::io::Result<()> {
    let Reply {
        status,
        headers,
        body,
    } = reply;
    let length = body.len();
    let head = format!("HTTP/1.1 {status} Answer\r\n{headers}content-length: {length}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes())
}
