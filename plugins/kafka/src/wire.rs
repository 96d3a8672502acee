//! Requests and answers over a TCP connection, within a deadline and within bounds:
//! whatever a server sends, no more than [`LARGEST`] bytes are kept.

use crate::fields::{Fields, Put, Unreadable};
use backhaul_guest::remaining;
use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Instant;

/// The largest answer. That about a topic of 10,000 partitions has less than a MiB.
const LARGEST: usize = 2 << 20;

/// Why there will be no further answers over this connection.
#[derive(Debug)]
pub(crate) enum Lost {
    Late,
    Closed,
    Broken(std::io::Error),
    /// There never was a connection.
    Unreachable(std::io::Error),
    /// These are the first bytes of what should be an answer, its length.
    Oversized([u8; 4]),
    /// It does not speak Kafka's protocol, or breaks its rules.
    Protocol(&'static str),
    /// It lacks something, or does not let us in; the text says what to do.
    Refused(String),
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("it does not answer in time"),
            Self::Closed => f.write_str("it closed the connection"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::Unreachable(error) => write!(f, "it cannot be reached: {error}"),
            Self::Oversized([0x15, 3, ..]) => f.write_str(
                "it speaks TLS; grant it as tcp = [\"tls://HOST:PORT\"], then the host does, too",
            ),
            Self::Oversized(bytes) => write!(
                f,
                "is it a Kafka broker? It announces an answer of {} bytes; it sent \"{}\"",
                u32::from_be_bytes(*bytes),
                bytes.escape_ascii()
            ),
            Self::Protocol(fault) => write!(f, "is it a Kafka broker? {fault}"),
            Self::Refused(text) => f.write_str(text),
        }
    }
}

impl From<std::io::Error> for Lost {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => Self::Late,
            _ => Self::Broken(error),
        }
    }
}

impl From<Unreadable> for Lost {
    fn from(_: Unreadable) -> Self {
        Self::Protocol("its answer cannot be read")
    }
}

/// A request in its version.
#[derive(Clone, Copy)]
pub(crate) struct Api {
    pub(crate) key: i16,
    pub(crate) version: i16,
}

pub(crate) struct Wire {
    stream: TcpStream,
    /// How many requests were sent.
    sent: i32,
    outgoing: Vec<u8>,
    /// What came and was not taken yet.
    received: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            sent: 0,
            outgoing: Vec::new(),
            received: Vec::new(),
        }
    }

    /// Sends a request; `body` appends what follows its head. Returns its number.
    pub(crate) fn send(&mut self, api: Api, body: impl FnOnce(&mut Vec<u8>)) -> Result<i32, Lost> {
        self.sent = self.sent.wrapping_add(1);
        let out = &mut self.outgoing;
        out.clear();
        // The length, when it is known.
        out.put_i32(0);
        out.put_i16(api.key);
        out.put_i16(api.version);
        out.put_i32(self.sent);
        out.put_text("backhaul");
        body(out);
        let length = i32::try_from(out.len() - 4).expect("memory holds less than 2 GiB");
        out[..4].copy_from_slice(&length.to_be_bytes());
        let written = self.stream.write_all(out);
        if out.capacity() > LARGEST {
            *out = Vec::new();
        }
        written?;
        Ok(self.sent)
    }

    /// The answer to the request of this number, which must be the next one.
    ///
    /// # Errors
    ///
    /// If there is none before the deadline, or ever. The connection is of no use then.
    pub(crate) fn receive(&mut self, number: i32, deadline: Instant) -> Result<Vec<u8>, Lost> {
        while self.received.len() < 4 {
            self.read(deadline)?;
        }
        let (length, _) = self.received.split_first_chunk().expect("4 bytes");
        let announced = u32::from_be_bytes(*length) as usize;
        if announced > LARGEST {
            return Err(Lost::Oversized(*length));
        }
        // Room is made for what has come, not for what was announced.
        while self.received.len() < 4 + announced {
            self.read(deadline)?;
        }
        let mut answer: Vec<u8> = self.received.drain(..4 + announced).skip(4).collect();
        match Fields::new(&answer).i32() {
            Ok(answered) if answered == number => {
                answer.drain(..4);
                Ok(answer)
            }
            _ => Err(Lost::Protocol("its answer is to another request")),
        }
    }

    /// Takes what is there, or waits for something.
    fn read(&mut self, deadline: Instant) -> Result<(), Lost> {
        let left = remaining(deadline).ok_or(Lost::Late)?;
        self.stream.set_read_timeout(Some(left))?;
        let mut some = [0; 8 << 10];
        match self.stream.read(&mut some) {
            Ok(0) => Err(Lost::Closed),
            Ok(count) => {
                self.received.extend_from_slice(&some[..count]);
                Ok(())
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;
    use std::time::Duration;

    /// What becomes of a request whose answer is this, and the end.
    fn answer(sent: &[u8]) -> Result<Vec<u8>, Lost> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        server.write_all(sent).unwrap();
        let mut wire = Wire::new(stream);
        let api = Api { key: 3, version: 4 };
        let number = wire.send(api, |out| out.put_i8(9)).unwrap();
        let mut request = [0; 23];
        server.read_exact(&mut request).unwrap();
        assert_eq!(
            request,
            *b"\0\0\0\x13\0\x03\0\x04\0\0\0\x01\0\x08backhaul\x09"
        );
        server.shutdown(std::net::Shutdown::Write).unwrap();
        wire.receive(number, Instant::now() + Duration::from_secs(20))
    }

    #[test]
    fn an_answer_to_the_request_is_taken_and_nothing_else() {
        assert_eq!(answer(b"\0\0\0\x06\0\0\0\x01ok").unwrap(), b"ok");
        assert_eq!(answer(b"\0\0\0\x04\0\0\0\x01").unwrap(), b"");
        for (sent, expected) in [
            (&b"\0\0\0\x06\0\0\0\x02ok"[..], "to another request"),
            (b"\0\0\0\x01\0", "to another request"),
            (b"\0\0\0\x06\0\0\0\x01o", "closed the connection"),
            (b"HTTP/1.1 400 Bad Request\r\n", "it sent \"HTTP\""),
            (b"\x7f\xff\xff\xff", "an answer of 2147483647 bytes"),
            (b"\xff\xff\xff\xff", "an answer of 4294967295 bytes"),
            (b"\x15\x03\x03\0\x02\x02\x46", "it speaks TLS"),
            (b"", "closed the connection"),
        ] {
            let lost = answer(sent).unwrap_err().to_string();
            assert!(lost.contains(expected), "{lost}");
        }
    }
}
