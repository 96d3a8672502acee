//! A backend for a server of lines, with one fault that MUTATION names, or none:
//! what the suite of `backhaul verify` has to find.
//!
//! The server at LINES_ADDR is told the password LINES_PASSWORD in a first line and
//! answers with `+`, and with how many connections it has now. Each line then is an
//! event, and gets a `+` once it is stored or a `-` if it never will be.

use std::cell::RefCell;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, SystemTime};

use backhaul_guest::{Event, Failure, blocking, cloudevent_lines, setting_or};

/// For an answer to come.
const TIMEOUT: Duration = Duration::from_millis(1_500);

/// The longest line the server stores.
const TOO_LARGE: &str = "larger than the server stores";

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    calls: usize,
    closed: usize,
    /// What a mutant keeps and should not.
    kept: Vec<Event>,
    leaked: Vec<Vec<u8>>,
}

struct Connection {
    stream: BufReader<TcpStream>,
    /// How many connections the server had with this one.
    number: usize,
}

fn is(mutation: &str) -> bool {
    setting_or("MUTATION", "none") == mutation
}

struct Mutant;

impl blocking::exports::backhaul::backend::blocking_backend::Guest for Mutant {
    fn name() -> String {
        if is("change-name") {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            return format!("mutant-{}", now.expect("a time").as_nanos());
        }
        "mutant".to_owned()
    }

    fn publish(events: Vec<Event>) -> Result<(), Vec<Failure>> {
        STATE.with_borrow_mut(|state| state.publish(events))
    }

    fn close() -> Result<(), String> {
        STATE.with_borrow_mut(|state| {
            state.closed += 1;
            assert!(
                !(is("trap-in-second-close") && state.closed > 1),
                "closed twice"
            );
            state.connection = None;
            match is("fail-close") && state.calls > 0 {
                true => Err("it will not".to_owned()),
                false => Ok(()),
            }
        })
    }
}

impl State {
    fn publish(&mut self, mut events: Vec<Event>) -> Result<(), Vec<Failure>> {
        self.calls += 1;
        if is("trap-on-none") {
            // As one does who takes the first for granted.
            let _ = &events[0];
        }
        if is("look-around") {
            let _ = std::fs::read("/etc/passwd");
            let _ = TcpStream::connect("127.0.0.1:1");
        }
        if is("use-much") {
            let size: usize = events.iter().map(|event| event.data.len()).sum();
            std::hint::black_box(vec![1_u8; size * 20]);
        }
        if is("leak") {
            self.leaked
                .extend(events.iter().map(|event| event.data.clone()));
        }
        if is("keep-for-the-next-call") {
            let last = events.pop();
            let mut all = std::mem::take(&mut self.kept);
            all.append(&mut events);
            events = all;
            self.kept.extend(last);
        }
        if self.connection.is_none() {
            match Connection::open() {
                Ok(connection) => self.connection = Some(connection),
                Err(error) => return Err(not_open(events.len(), error)),
            }
        }
        let connection = self.connection.as_mut().expect("it is open");
        let published = connection.publish(events);
        if published.is_err() && !is("keep-broken-connection") {
            // It may be in the middle of a batch.
            self.connection = None;
        }
        published
    }
}

/// Why there is no connection: whether the server refused the login, and a text.
struct NotOpen {
    login: bool,
    text: String,
}

fn not_open(count: usize, NotOpen { login, text }: NotOpen) -> Vec<Failure> {
    let text = match is("say-nothing") {
        true => "oops".to_owned(),
        false => text,
    };
    let permanent = is("give-up-unreachable") && !login || is("give-up-login") && login;
    match permanent {
        true => (0..count)
            .map(|index| Failure::permanent(index, text.as_str()))
            .collect(),
        false => Failure::all_retryable(0..count, text),
    }
}

impl Connection {
    fn open() -> Result<Connection, NotOpen> {
        let address = setting_or("LINES_ADDR", "");
        let away = |error: std::io::Error| NotOpen {
            login: false,
            text: format!("cannot connect to {address}: {error}"),
        };
        let stream = TcpStream::connect(&address).map_err(away)?;
        stream.set_read_timeout(Some(TIMEOUT)).map_err(away)?;
        let mut stream = BufReader::new(stream);
        let login = format!("{}\n", setting_or("LINES_PASSWORD", ""));
        stream.get_mut().write_all(login.as_bytes()).map_err(away)?;
        let mut answer = String::new();
        stream.read_line(&mut answer).map_err(away)?;
        let number = match answer.trim_end().strip_prefix('+') {
            Some(number) => number.parse().unwrap_or_default(),
            None if answer.is_empty() => {
                return Err(away(std::io::ErrorKind::UnexpectedEof.into()));
            }
            None => {
                return Err(NotOpen {
                    login: true,
                    text: format!("{address} refused the password"),
                });
            }
        };
        Ok(Connection { stream, number })
    }

    fn publish(&mut self, mut events: Vec<Event>) -> Result<(), Vec<Failure>> {
        let count = events.len();
        let lines = self.lines(&mut events);
        let sent = self.stream.get_mut().write_all(&lines);
        if is("not-wait-for-answers") {
            // They are read before the next batch, if at all.
            return Ok(());
        }
        let mut failures = Vec::new();
        let answers = lines.iter().filter(|byte| **byte == b'\n').count();
        for index in 0..answers {
            let mut answer = [0];
            let read = self.stream.read_exact(&mut answer);
            if let Err(error) = sent.as_ref().and(read.as_ref()) {
                if is("lose-what-is-in-flight") {
                    return Err(failures);
                }
                let lost = format!("no answer from the server: {error}");
                failures.extend((index..count).map(|index| match is("give-up-lost") {
                    true => Failure::permanent(index, lost.as_str()),
                    false => Failure::retryable(index, lost.as_str()),
                }));
                return Err(failures);
            }
            if answer != *b"-" || is("swallow-refusals") {
                continue;
            }
            let index = index + usize::from(is("name-the-wrong-index"));
            failures.push(match is("try-refused-again") {
                true => Failure::retryable(index, TOO_LARGE),
                false => Failure::permanent(index, TOO_LARGE),
            });
            if is("blame-the-whole-batch") {
                failures = (0..count)
                    .map(|index| Failure::permanent(index, TOO_LARGE))
                    .collect();
                return Err(failures);
            }
        }
        match failures.is_empty() {
            true => Ok(()),
            false => Err(failures),
        }
    }

    /// The events as they are sent, and what mutants make of them.
    fn lines(&self, events: &mut Vec<Event>) -> Vec<u8> {
        if is("drop-each-hundredth") {
            let mut number = 0;
            events.retain(|_| {
                number += 1;
                number % 100 != 0
            });
        }
        if is("swap-two") && events.len() > 100 {
            events.swap(99, 100);
        }
        if is("send-one-twice") && events.len() > 100 {
            events.insert(50, events[50].clone());
        }
        if is("lose-beside-others") && self.number > 1 {
            events.truncate(events.len() / 2);
        }
        for event in events.iter_mut() {
            if is("lose-an-attribute") {
                event.attributes.retain(|(name, _)| name != "tracestate");
            }
            if is("lose-the-subject") {
                event.subject = None;
            }
            if is("round-the-time") {
                event.time.nanoseconds = 0;
            }
            if is("cut-long-attributes") {
                for (_, value) in &mut event.attributes {
                    value.truncate(1_024);
                }
            }
            if is("take-data-for-text") && event.data.len() < 1_000 {
                event.data = String::from_utf8_lossy(&event.data)
                    .into_owned()
                    .into_bytes();
            }
            if is("cut-large-data") {
                event.data.truncate(1 << 19);
            }
        }
        cloudevent_lines(events)
    }
}

blocking::export_world!(Mutant with_types_in blocking);
