//! Load: events posted over several connections, and what became of each post.
//!
//! A connection posts one batch after the other and waits for each answer, so
//! that the order in which its events are accepted is known. It speaks HTTP
//! itself: only then is it certain whether a post that failed may have been
//! taken, and that none is sent twice.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::host::Host;

/// How events are posted.
#[derive(Clone, Debug)]
pub struct LoadOptions {
    /// What the ids begin with; another for each load of a test.
    pub prefix: &'static str,
    /// For each connection, how many events it posts at a time.
    pub batches: &'static [usize],
    /// How long a connection waits after an answer.
    pub pause: Duration,
    /// The size of each event's data, about.
    pub data: usize,
    /// The type of the events.
    pub event_type: &'static str,
}

impl Default for LoadOptions {
    fn default() -> LoadOptions {
        LoadOptions {
            prefix: "e",
            batches: &[1, 10, 30],
            pause: Duration::from_millis(5),
            data: 64,
            event_type: "after:signup",
        }
    }
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// Answered 202.
    Accepted,
    /// Answered otherwise.
    Refused,
    /// The connection ended before the answer.
    Unknown,
}

/// A refusal, as it was answered first.
#[derive(Clone, Debug, Default)]
pub struct Refusal {
    /// How many requests were answered so.
    pub requests: usize,
    /// How many of them without `Retry-After`.
    pub without_retry_after: usize,
    /// The first one's body.
    pub body: serde_json::Value,
}

/// What was posted.
#[derive(Clone, Debug, Default)]
pub struct Posted {
    /// Every event that was posted.
    pub fates: HashMap<String, Fate>,
    /// Answers other than 202, by their status.
    pub refusals: BTreeMap<u16, Refusal>,
    /// The longest time until an answer.
    pub longest: Duration,
}

/// Connections that post until [`stop`](Load::stop).
pub struct Load {
    shared: Arc<Shared>,
    connections: Vec<JoinHandle<Posted>>,
}

struct Shared {
    options: LoadOptions,
    /// Where to connect; `None` while nobody should.
    target: Mutex<Option<String>>,
    stopped: AtomicBool,
    accepted: AtomicUsize,
    refused: AtomicUsize,
}

impl Posted {
    /// How many events had this fate.
    pub fn count(&self, fate: Fate) -> usize {
        self.fates.values().filter(|&&own| own == fate).count()
    }

    /// Adds what another load, or a single request, has posted.
    pub fn merge(&mut self, other: Posted) {
        self.fates.extend(other.fates);
        for (status, refusal) in other.refusals {
            let all = self.refusals.entry(status).or_default();
            all.requests += refusal.requests;
            all.without_retry_after += refusal.without_retry_after;
            if all.body.is_null() {
                all.body = refusal.body;
            }
        }
        self.longest = self.longest.max(other.longest);
    }

    /// Notes events that were accepted otherwise.
    pub fn accepted(ids: impl IntoIterator<Item = String>) -> Posted {
        Posted {
            fates: ids.into_iter().map(|id| (id, Fate::Accepted)).collect(),
            ..Posted::default()
        }
    }
}

impl Load {
    /// Begins to post to `host`.
    pub fn start(host: &Host, options: LoadOptions) -> Load {
        let shared = Arc::new(Shared {
            target: Mutex::new(Some(host.address().to_owned())),
            stopped: AtomicBool::new(false),
            accepted: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
            options,
        });
        let connections = (0..shared.options.batches.len()).map(|number| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.post(number))
        });
        Load {
            connections: connections.collect(),
            shared,
        }
    }

    /// From now on connections that end are not made again: the host is about to
    /// end, and its port may soon be somebody else's.
    pub fn expect_the_end(&self) {
        *self.shared.target() = None;
    }

    /// Goes on with another host.
    pub fn aim(&self, host: &Host) {
        *self.shared.target() = Some(host.address().to_owned());
    }

    /// How many events have been accepted so far.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// How many requests have been refused so far.
    pub fn refused(&self) -> usize {
        self.shared.refused.load(Ordering::SeqCst)
    }

    /// Ends the posts; those under way are answered first.
    pub fn stop(self) -> Posted {
        self.shared.stopped.store(true, Ordering::SeqCst);
        let mut posted = Posted::default();
        for connection in self.connections {
            posted.merge(connection.join().expect("a connection of the load"));
        }
        posted
    }
}

impl Shared {
    fn target(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.target.lock().expect("the target")
    }

    /// Posts as connection `number`.
    fn post(&self, number: usize) -> Posted {
        let LoadOptions { prefix, pause, .. } = self.options;
        let batch = self.options.batches[number];
        let mut posted = Posted::default();
        let mut connection: Option<(String, BufReader<TcpStream>)> = None;
        let mut next = 0;
        while !self.stopped.load(Ordering::SeqCst) {
            let target = self.target().clone();
            let current = |(to, _): &&mut (String, _)| target.as_ref().is_none_or(|new| new == to);
            let Some((_, stream)) = connection.as_mut().filter(current) else {
                connection = target.and_then(|to| Some((to.clone(), connect(&to)?)));
                if connection.is_none() {
                    std::thread::sleep(Duration::from_millis(2));
                }
                continue;
            };
            let ids: Vec<String> = (next..next + batch)
                .map(|n| format!("{prefix}{number}-{n}"))
                .collect();
            let request = self.request(&ids);
            let began = Instant::now();
            let outcome = exchange(stream, &request);
            let fate = match &outcome {
                Outcome::NotSent => {
                    connection = None;
                    continue;
                }
                Outcome::Unanswered => Fate::Unknown,
                Outcome::Answered(answer) if answer.status == 202 => Fate::Accepted,
                Outcome::Answered(_) => Fate::Refused,
            };
            next += batch;
            posted.fates.extend(ids.into_iter().map(|id| (id, fate)));
            match outcome {
                Outcome::Answered(answer) => {
                    posted.longest = posted.longest.max(began.elapsed());
                    if fate == Fate::Accepted {
                        self.accepted.fetch_add(batch, Ordering::SeqCst);
                    } else {
                        self.refused.fetch_add(1, Ordering::SeqCst);
                        let refusal = posted.refusals.entry(answer.status).or_default();
                        refusal.requests += 1;
                        refusal.without_retry_after += usize::from(!answer.retry_after);
                        if refusal.body.is_null() {
                            refusal.body = serde_json::from_slice(&answer.body).unwrap_or_default();
                        }
                        // Not so long as it says: a test has no time.
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    if !answer.whole {
                        connection = None;
                    }
                }
                _ => connection = None,
            }
            std::thread::sleep(pause);
        }
        posted
    }

    fn request(&self, ids: &[String]) -> Vec<u8> {
        let LoadOptions {
            data, event_type, ..
        } = self.options;
        let mut body = String::from("[");
        for (at, id) in ids.iter().enumerate() {
            let comma = if at == 0 { "" } else { "," };
            write!(
                body,
                r#"{comma}{{"specversion":"1.0","id":"{id}","source":"/load","type":"{event_type}","data":{{"x":"{:x<data$}"}}}}"#,
                ""
            )
            .expect("room");
        }
        body.push(']');
        let mut request = format!(
            "POST /events HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/cloudevents-batch+json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        )
        .into_bytes();
        request.extend(body.into_bytes());
        request
    }
}

fn connect(address: &str) -> Option<BufReader<TcpStream>> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).ok()?;
    stream.set_read_timeout(Some(crate::PATIENCE)).ok()?;
    Some(BufReader::new(stream))
}

enum Outcome {
    /// Not a byte of it was sent.
    NotSent,
    /// It was sent, wholly or in part, and not answered.
    Unanswered,
    Answered(Answer),
}

struct Answer {
    status: u16,
    retry_after: bool,
    body: Vec<u8>,
    /// Whether it was read to its end.
    whole: bool,
}

fn exchange(stream: &mut BufReader<TcpStream>, request: &[u8]) -> Outcome {
    let sent = match stream.get_mut().write(request) {
        Ok(0) | Err(_) => return Outcome::NotSent,
        Ok(sent) => sent,
    };
    // A host may refuse and close without reading all of it: the answer counts.
    let _ = stream.get_mut().write_all(&request[sent..]);
    let mut line = String::new();
    let status = match stream.read_line(&mut line) {
        Ok(_) if line.ends_with('\n') => line.split(' ').nth(1).and_then(|code| code.parse().ok()),
        _ => None,
    };
    let Some(status) = status else {
        return Outcome::Unanswered;
    };
    let mut answer = Answer {
        status,
        retry_after: false,
        body: Vec::new(),
        whole: false,
    };
    answer.whole = read_rest(stream, &mut answer).is_some();
    Outcome::Answered(answer)
}

/// Reads headers and body. `None` if they end early or the connection is not to
/// be used again.
fn read_rest(stream: &mut BufReader<TcpStream>, answer: &mut Answer) -> Option<()> {
    let (mut length, mut close) = (0, false);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).ok()? == 0 {
            return None;
        }
        let line = line.trim_end().to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().ok()?;
        }
        answer.retry_after |= line.starts_with("retry-after:");
        close |= line == "connection: close";
        if line.is_empty() {
            break;
        }
    }
    answer.body = vec![0; length];
    stream.read_exact(&mut answer.body).ok()?;
    (!close).then_some(())
}
