//! Frames over a TCP connection: sending, receiving with a deadline, heartbeats.
//!
//! What a server sends is bounded here: no frame is larger than agreed, and no
//! wait goes past its deadline, however slowly the bytes come.

use amq_protocol::frame::{AMQPFrame, WriteContext, gen_frame, parse_frame};
use backhaul_guest::{connect, remaining};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The frame's type, channel and length before what it holds, and its end.
pub(crate) const FRAME_OVERHEAD: usize = 8;

/// For frames before their size is agreed. AMQP says 4,096; RabbitMQ 4 allows twice that.
const FIRST_FRAMES: usize = 8_192;

/// So many bytes are sent before more are put, so that a large event is not in
/// memory twice.
const MUCH: usize = 256 * 1024;

/// So deep tables and arrays may be nested. RabbitMQ has three.
const DEEPEST: usize = 64;

/// A connection, and what was received of the next frame.
pub(crate) struct Frames {
    stream: TcpStream,
    received: Vec<u8>,
    outgoing: Vec<u8>,
    /// Why something could not be sent, until [`send`](Self::send) says so.
    not_sent: Option<Broken>,
    largest: usize,
    heartbeat: Option<Duration>,
    last_sent: Instant,
}

/// Why nothing more can be sent or received.
#[derive(Debug)]
pub(crate) enum Broken {
    Io(io::Error),
    Ended,
    TimedOut,
    /// The first bytes of a server that speaks something else.
    NotAmqp(Vec<u8>),
    Violation(String),
    /// The server closed the connection or the channel, and said why.
    Closed {
        code: u16,
        text: String,
    },
}

impl Frames {
    pub(crate) fn connect(host: &str, port: u16, deadline: Instant) -> Result<Self, Broken> {
        Ok(Self::new(connect((host, port), deadline)?))
    }

    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            outgoing: Vec::new(),
            not_sent: None,
            largest: FIRST_FRAMES,
            heartbeat: None,
            last_sent: Instant::now(),
        }
    }

    /// What was agreed with the server: the size of the largest frame in bytes,
    /// and how often each side lets the other hear something.
    pub(crate) fn agree(&mut self, largest: usize, heartbeat: Option<Duration>) {
        self.largest = largest;
        self.heartbeat = heartbeat;
    }

    pub(crate) fn largest(&self) -> usize {
        self.largest
    }

    /// Adds a frame to what [`send`](Self::send) sends; returns its size.
    pub(crate) fn put(&mut self, frame: &AMQPFrame) -> usize {
        let outgoing = std::mem::take(&mut self.outgoing);
        let before = outgoing.len();
        let written = gen_frame(frame)(WriteContext::from(outgoing));
        (self.outgoing, _) = written.expect("memory takes every frame").into_inner();
        self.outgoing.len() - before
    }

    /// How many bytes wait to be sent.
    pub(crate) fn outgoing(&self) -> usize {
        self.outgoing.len()
    }

    /// Takes back what was put since there were `length` bytes to send.
    pub(crate) fn take_back(&mut self, length: usize) {
        self.outgoing.truncate(length);
    }

    /// Sends what was put if it is much.
    pub(crate) fn send_if_much(&mut self) {
        if self.outgoing.len() >= MUCH {
            self.not_sent = self.send().err();
        }
    }

    pub(crate) fn send(&mut self) -> Result<(), Broken> {
        if let Some(broken) = self.not_sent.take() {
            self.outgoing.clear();
            return Err(broken);
        }
        let sent = self.stream.write_all(&self.outgoing);
        self.outgoing.clear();
        self.last_sent = Instant::now();
        Ok(sent?)
    }

    /// The next frame that is no heartbeat. Sends heartbeats while it waits.
    pub(crate) fn receive(&mut self, deadline: Instant) -> Result<AMQPFrame, Broken> {
        loop {
            match self.next_frame()? {
                Some(AMQPFrame::Heartbeat(_)) => {}
                Some(frame) => return Ok(frame),
                None => self.receive_bytes(deadline)?,
            }
        }
    }

    /// A frame that is there as a whole.
    fn next_frame(&mut self) -> Result<Option<AMQPFrame>, Broken> {
        let Some(size) = self.size_of_next()? else {
            return Ok(None);
        };
        let bytes = &self.received[..size];
        // A body has no tables.
        if matches!(bytes[0], 1 | 2) && is_deep(bytes) {
            let message = format!("it sent tables or arrays nested more than {DEEPEST} deep");
            return Err(Broken::Violation(message));
        }
        let frame = match parse_frame(bytes) {
            Ok(([], frame)) => frame,
            _ => {
                let kind = bytes[0];
                let message = format!("it sent a frame of type {kind} that cannot be read");
                return Err(Broken::Violation(message));
            }
        };
        self.received.drain(..size);
        Ok(Some(frame))
    }

    /// The size of the next frame, once all of it was received.
    fn size_of_next(&self) -> Result<Option<usize>, Broken> {
        match self.received.first() {
            None => return Ok(None),
            Some(1..=3 | 8) => {}
            Some(_) => return Err(Broken::NotAmqp(self.received.clone())),
        }
        let Some(length) = self.received.get(3..7) else {
            return Ok(None);
        };
        let length: [u8; 4] = length.try_into().expect("4 bytes");
        let size = u32::from_be_bytes(length) as usize;
        if size > self.largest - FRAME_OVERHEAD {
            let message = format!(
                "it sent a frame of {size} bytes, {} are allowed",
                self.largest - FRAME_OVERHEAD
            );
            return Err(Broken::Violation(message));
        }
        let size = size + FRAME_OVERHEAD;
        Ok((self.received.len() >= size).then_some(size))
    }

    fn receive_bytes(&mut self, deadline: Instant) -> Result<(), Broken> {
        let mut wait = remaining(deadline).ok_or(Broken::TimedOut)?;
        if let Some(heartbeat) = self.heartbeat {
            // Half of what was agreed, as AMQP's clients do, so that one may be late.
            let due = (heartbeat / 2).saturating_sub(self.last_sent.elapsed());
            if due.is_zero() {
                self.put(&AMQPFrame::Heartbeat(0));
                self.send()?;
                return Ok(());
            }
            wait = wait.min(due);
        }
        self.stream.set_read_timeout(Some(wait))?;
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(Broken::Ended),
            Ok(count) => {
                self.received.extend_from_slice(&bytes[..count]);
                Ok(())
            }
            // The caller comes again, and the deadline decides.
            Err(error) if is_timeout(&error) || error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// Whether tables and arrays may be nested deeper than [`DEEPEST`]. The codec
/// calls itself for each, as deep as the server likes.
///
/// Each begins with its type and its length. Wherever that could be so, one is
/// counted until its end: at least those that there are.
fn is_deep(frame: &[u8]) -> bool {
    let mut ends: Vec<usize> = Vec::with_capacity(DEEPEST);
    for (at, bytes) in frame.windows(5).enumerate() {
        if let [b'F' | b'A', length @ ..] = bytes {
            let length = u32::from_be_bytes(length.try_into().expect("4 bytes")) as usize;
            ends.retain(|end| *end > at);
            let end = length.checked_add(at + 5);
            ends.extend(end.filter(|end| *end <= frame.len()));
            if ends.len() > DEEPEST {
                return true;
            }
        }
    }
    false
}

fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        if is_timeout(&error) {
            Self::TimedOut
        } else {
            Self::Io(error)
        }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(error) => write!(f, "the connection broke: {error}"),
            Self::Ended => f.write_str("it closed the connection"),
            Self::TimedOut => f.write_str("it does not answer in time"),
            Self::NotAmqp(bytes) => {
                let start = &bytes[..bytes.len().min(40)];
                let what = if start.starts_with(b"AMQP") {
                    "it speaks another version of AMQP than 0-9-1"
                } else {
                    "it does not speak AMQP 0-9-1"
                };
                write!(f, "{what}, it sent \"{}\"", start.escape_ascii())
            }
            Self::Violation(message) => f.write_str(message),
            Self::Closed { code, text } => write!(f, "it closed, saying {code} {text}"),
        }
    }
}

#[cfg(test)]
impl Frames {
    /// The next frame, heartbeats among them.
    pub(crate) fn receive_any(&mut self) -> AMQPFrame {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            match self.next_frame().expect("a frame") {
                Some(frame) => return frame,
                None => self.receive_bytes(deadline).expect("bytes"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A content header whose only header is so many tables in each other.
    fn nested(levels: usize) -> Vec<u8> {
        let mut table = Vec::new();
        for _ in 0..levels {
            let length = u32::try_from(table.len()).unwrap().to_be_bytes();
            table = [&[0, b'F'], &length[..], &table].concat();
        }
        let length = u32::try_from(table.len()).unwrap().to_be_bytes();
        [
            &[2, 0, 1],
            &[0; 18][..],
            &[0x20, 0],
            &length[..],
            &table,
            &[0xCE],
        ]
        .concat()
    }

    #[test]
    fn tables_in_tables_are_refused_before_they_are_read() {
        assert!(!is_deep(&nested(3)));
        assert!(!is_deep(&nested(DEEPEST)));
        assert!(is_deep(&nested(DEEPEST + 1)));
        assert!(is_deep(&nested(20_000)));
        // What only looks like one ends beyond the frame, or at once.
        assert!(!is_deep(&b"FAILURE".repeat(10_000)));
        assert!(!is_deep(&b"F\0\0\0\0".repeat(10_000)));
    }
}
