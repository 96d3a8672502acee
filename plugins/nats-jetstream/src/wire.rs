//! NATS' text protocol as far as a publisher needs it: what a server sends, read
//! within a deadline and within bounds. Whatever it sends, it cannot have more
//! than [`MAX_LINE`] and [`MAX_PAYLOAD`] kept.

use backhaul_guest::remaining;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// The longest line. `INFO` is the longest by far: it lists the servers of a cluster.
const MAX_LINE: usize = 64 << 10;

/// The largest answer. Acknowledgements have about 100 bytes.
const MAX_PAYLOAD: usize = 256 << 10;

/// Why there will be no further answers over this connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Lost {
    Late,
    Closed,
    Broken(String),
    /// The server said so, with `-ERR`.
    Refused(String),
    /// It does not speak NATS, or breaks its rules.
    Protocol(&'static str),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("it does not answer in time"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Broken(error) => f.write_str(error),
            Self::Refused(error) => write!(f, "it refused: {error}"),
            Self::Protocol(fault) => write!(f, "is it a NATS server? {fault}"),
        }
    }
}

/// What a server sends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Frame {
    Info(String),
    Ping,
    Pong,
    Message(Message),
}

/// A message to one of our inboxes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) subject: String,
    /// Of its headers, if it has any: `503` says that nobody listens.
    pub(crate) status: Option<u16>,
    pub(crate) payload: Vec<u8>,
}

pub(crate) struct Wire {
    stream: TcpStream,
    /// What came and is not used yet, from `at` on.
    received: Vec<u8>,
    at: usize,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
            at: 0,
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        let written = self.stream.write_all(bytes);
        written.map_err(|error| Lost::Broken(error.to_string()))
    }

    /// The next frame.
    ///
    /// # Errors
    ///
    /// If there is none before the deadline, or ever. The connection is of no use then.
    pub(crate) fn next(&mut self, deadline: Instant) -> Result<Frame, Lost> {
        loop {
            let line = self.line(deadline)?;
            let (verb, rest) = line.split_once([' ', '\t']).unwrap_or((&line, ""));
            let rest = rest.trim();
            match verb.to_ascii_uppercase().as_str() {
                "MSG" => return self.message(rest, false, deadline).map(Frame::Message),
                "HMSG" => return self.message(rest, true, deadline).map(Frame::Message),
                "PING" => return Ok(Frame::Ping),
                "PONG" => return Ok(Frame::Pong),
                "INFO" => return Ok(Frame::Info(rest.to_owned())),
                "+OK" => {}
                "-ERR" => return Err(Lost::Refused(rest.trim_matches('\'').to_owned())),
                _ => return Err(Lost::Protocol("it sent what NATS does not know")),
            }
        }
    }

    /// `subject sid [reply] [bytes of headers] bytes`, and then so many.
    fn message(
        &mut self,
        arguments: &str,
        has_headers: bool,
        deadline: Instant,
    ) -> Result<Message, Lost> {
        const FAULT: Lost = Lost::Protocol("its message has a wrong head");
        let arguments: Vec<&str> = arguments.split_ascii_whitespace().collect();
        let numbers = 1 + usize::from(has_headers);
        if !(2 + numbers..=3 + numbers).contains(&arguments.len()) {
            return Err(FAULT);
        }
        let number = |text: &str| text.parse::<usize>().map_err(|_| FAULT);
        let size = number(arguments[arguments.len() - 1])?;
        let head = match has_headers {
            true => number(arguments[arguments.len() - 2])?,
            false => 0,
        };
        if size > MAX_PAYLOAD {
            return Err(Lost::Protocol("its answer is larger than any should be"));
        }
        if head > size {
            return Err(FAULT);
        }
        let subject = arguments[0].to_owned();
        let mut payload = self.bytes(size, deadline)?;
        if self.bytes(2, deadline)? != b"\r\n" {
            return Err(FAULT);
        }
        let headers: Vec<u8> = payload.drain(..head).collect();
        Ok(Message {
            subject,
            status: status(&headers),
            payload,
        })
    }

    fn line(&mut self, deadline: Instant) -> Result<String, Lost> {
        let mut seen = 0;
        loop {
            let there = &self.received[self.at..];
            if let Some(end) = there[seen..].iter().position(|byte| *byte == b'\n') {
                let line = self.bytes(seen + end + 1, deadline)?;
                let line = String::from_utf8(line);
                let line = line.map_err(|_| Lost::Protocol("it sent a line that is no text"))?;
                return Ok(line.trim_end().to_owned());
            }
            seen = there.len();
            if seen > MAX_LINE {
                return Err(Lost::Protocol("it sent a line without end"));
            }
            self.receive(deadline)?;
        }
    }

    fn bytes(&mut self, count: usize, deadline: Instant) -> Result<Vec<u8>, Lost> {
        while self.received.len() - self.at < count {
            self.receive(deadline)?;
        }
        let bytes = self.received[self.at..self.at + count].to_vec();
        self.at += count;
        Ok(bytes)
    }

    fn receive(&mut self, deadline: Instant) -> Result<(), Lost> {
        let broken = |error: std::io::Error| Lost::Broken(error.to_string());
        let left = remaining(deadline).ok_or(Lost::Late)?;
        self.stream.set_read_timeout(Some(left)).map_err(broken)?;
        self.received.drain(..self.at);
        self.at = 0;
        let mut some = [0; 16 << 10];
        match self.stream.read(&mut some) {
            Ok(0) => Err(Lost::Closed),
            Ok(count) => {
                self.received.extend_from_slice(&some[..count]);
                Ok(())
            }
            Err(error) => match error.kind() {
                ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(Lost::Late),
                ErrorKind::Interrupted => Ok(()),
                _ => Err(broken(error)),
            },
        }
    }
}

/// Of headers that begin with `NATS/1.0 503`.
fn status(headers: &[u8]) -> Option<u16> {
    let line = headers.split(|byte| *byte == b'\r').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let code = line
        .strip_prefix("NATS/1.0")?
        .split_ascii_whitespace()
        .next()?;
    code.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    /// What is read of a server that sends this, and closes.
    fn frames(sent: &[u8]) -> (Vec<Frame>, Lost) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        let sent = sent.to_owned();
        let sending = std::thread::spawn(move || {
            // The client goes away when it has seen enough.
            let _ = server.write_all(&sent);
        });
        let (mut wire, mut frames) = (Wire::new(stream), Vec::new());
        let deadline = Instant::now() + Duration::from_secs(30);
        let lost = loop {
            match wire.next(deadline) {
                Ok(frame) => frames.push(frame),
                Err(lost) => break lost,
            }
        };
        drop(wire);
        sending.join().unwrap();
        (frames, lost)
    }

    #[test]
    fn frames_are_told_apart() {
        let (frames, lost) = frames(
            b"INFO {\"a\":1} \r\n+OK\r\nPING\r\npong\r\nMSG in.1 1 2\r\nhi\r\n\
              HMSG in.2 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\nMSG in.3 1 reply 0\r\n\r\n",
        );
        let message = |subject: &str, status, payload: &str| {
            Frame::Message(Message {
                subject: subject.into(),
                status,
                payload: payload.into(),
            })
        };
        assert_eq!(
            frames,
            [
                Frame::Info("{\"a\":1}".into()),
                Frame::Ping,
                Frame::Pong,
                message("in.1", None, "hi"),
                message("in.2", Some(503), ""),
                message("in.3", None, ""),
            ]
        );
        assert_eq!(lost, Lost::Closed);
    }

    #[test]
    fn what_is_not_nats_is_an_error_and_is_not_kept() {
        let endless = vec![b'x'; MAX_LINE * 4];
        for (sent, expected) in [
            (
                &b"-ERR 'Authorization Violation'\r\n"[..],
                "it refused: Authorization Violation",
            ),
            (b"HTTP/1.1 400 Bad Request\r\n", "does not know"),
            (b"\xff\xfe\r\n", "no text"),
            (b"MSG a 1 99999999999\r\n", "larger than any"),
            (b"MSG a 1 99999999999999999999999\r\n", "wrong head"),
            (b"MSG a 1 -1\r\n", "wrong head"),
            (b"MSG a\r\n", "wrong head"),
            (b"HMSG a 1 5 2\r\nxx\r\n", "wrong head"),
            (b"MSG a 1 2\r\nhello\r\n", "wrong head"),
            (&endless, "without end"),
        ] {
            let (frames, lost) = frames(sent);
            assert!(frames.is_empty());
            assert!(lost.to_string().contains(expected), "{lost}");
        }
    }
}
