//! What the host and a compiling program say to each other over standard input
//! and output: one request, one answer. All numbers are little-endian.
//!
//! ```text
//! request   HELLO  mark (32 bytes)  memory (8)  seconds (8)  length (8)  component
//! answer    HELLO  kind (1 byte)    length (8)  code or text
//! ```
//!
//! Both are the same program in almost every case. `HELLO` and the mark are there
//! for the others: a program that is no compiler, and one of another version.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt};

use crate::wasm::engine::EngineMark;

/// How every request and answer begins; the last byte counts changes of what
/// follows.
const HELLO: [u8; 8] = *b"backhau\x01";

/// The longest text of an answer, in bytes.
pub(super) const MAX_TEXT: usize = 1000;

const CODE: u8 = 0;
const REFUSED: u8 = 1;
const OTHER_VERSION: u8 = 2;

/// What stands before the component.
pub(super) struct Request {
    /// Of the engine the code is for.
    pub(super) mark: EngineMark,
    /// The most memory to take, in bytes.
    pub(super) memory: u64,
    /// The most time to take. The host counts it, too, and more exactly.
    pub(super) seconds: u64,
    /// How long the component is, in bytes.
    pub(super) length: u64,
}

impl Request {
    pub(super) const SIZE: usize = 8 + 32 + 3 * 8;

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let numbers = [self.memory, self.seconds, self.length].map(u64::to_le_bytes);
        [&HELLO[..], &self.mark.0, &numbers.concat()].concat()
    }

    /// `None` if it is no request.
    pub(super) fn from_bytes(bytes: &[u8; Request::SIZE]) -> Option<Request> {
        let rest = bytes.strip_prefix(&HELLO)?;
        let (mark, rest) = rest.split_first_chunk()?;
        let (memory, rest) = rest.split_first_chunk()?;
        let (seconds, length) = rest.split_first_chunk()?;
        Some(Request {
            mark: EngineMark(*mark),
            memory: u64::from_le_bytes(*memory),
            seconds: u64::from_le_bytes(*seconds),
            length: u64::from_le_bytes(length.try_into().ok()?),
        })
    }
}

pub(super) enum Answer {
    /// The compiled code.
    Code(Vec<u8>),
    /// There is code, but of more bytes than is taken; it was not read.
    TooLarge(u64),
    /// The component does not compile, and why.
    Refused(String),
    /// The compiler is of this version, which is not the host's.
    OtherVersion(String),
    /// Something else.
    NotACompiler,
}

impl Answer {
    /// The bytes that stand before the code or text.
    pub(super) fn head(&self) -> [u8; 17] {
        let (kind, length) = match self {
            Answer::Code(code) => (CODE, code.len()),
            Answer::Refused(text) => (REFUSED, text.len()),
            Answer::OtherVersion(text) => (OTHER_VERSION, text.len()),
            Answer::TooLarge(_) | Answer::NotACompiler => unreachable!("only the host says so"),
        };
        let mut head = [0; 17];
        head[..8].copy_from_slice(&HELLO);
        head[8] = kind;
        head[9..].copy_from_slice(&(length as u64).to_le_bytes());
        head
    }

    pub(super) fn body(&self) -> &[u8] {
        match self {
            Answer::Code(code) => code,
            Answer::Refused(text) | Answer::OtherVersion(text) => text.as_bytes(),
            Answer::TooLarge(_) | Answer::NotACompiler => &[],
        }
    }

    /// Reads an answer, with code of at most `max_code` bytes.
    ///
    /// # Errors
    ///
    /// If it ends too early.
    pub(super) async fn read(
        from: &mut (impl AsyncRead + Unpin),
        max_code: u64,
    ) -> io::Result<Answer> {
        let mut head = [0; 17];
        from.read_exact(&mut head[..8]).await?;
        if head[..8] != HELLO {
            return Ok(Answer::NotACompiler);
        }
        from.read_exact(&mut head[8..]).await?;
        let length = u64::from_le_bytes(head[9..].try_into().expect("eight bytes"));
        let max = match head[8] {
            CODE => max_code,
            REFUSED | OTHER_VERSION => MAX_TEXT as u64 + 3,
            _ => return Ok(Answer::NotACompiler),
        };
        if length > max {
            return Ok(match head[8] {
                CODE => Answer::TooLarge(length),
                _ => Answer::NotACompiler,
            });
        }
        let mut body = vec![0; length as usize];
        from.read_exact(&mut body).await?;
        let text = |body: Vec<u8>| String::from_utf8_lossy(&body).into_owned();
        Ok(match head[8] {
            CODE => Answer::Code(body),
            REFUSED => Answer::Refused(text(body)),
            _ => Answer::OtherVersion(text(body)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = Request {
            mark: EngineMark([7; 32]),
            memory: 1 << 40,
            seconds: 61,
            length: 12,
        };
        let bytes: [u8; Request::SIZE] = request.to_bytes().try_into().unwrap();
        let read = Request::from_bytes(&bytes).unwrap();
        assert_eq!(read.mark, request.mark);
        assert_eq!((read.memory, read.seconds, read.length), (1 << 40, 61, 12));
        let mut other = bytes;
        other[7] = 9;
        assert!(Request::from_bytes(&other).is_none());
    }

    #[tokio::test]
    async fn code_is_read_whole_or_not_at_all() {
        let answer = Answer::Code(vec![5; 100]);
        let bytes = [&answer.head()[..], answer.body()].concat();
        let read = Answer::read(&mut &bytes[..], 100).await;
        assert!(matches!(read, Ok(Answer::Code(code)) if code == [5; 100]));
        let read = Answer::read(&mut &bytes[..], 99).await;
        assert!(matches!(read, Ok(Answer::TooLarge(100))));
        for cut in [0, 7, 16, 17, 116] {
            assert!(
                Answer::read(&mut &bytes[..cut], 100).await.is_err(),
                "{cut}"
            );
        }
    }

    #[tokio::test]
    async fn what_is_no_answer_is_seen_as_such() {
        let read = Answer::read(&mut &b"usage: true [OPTION]"[..], 100).await;
        assert!(matches!(read, Ok(Answer::NotACompiler)));
        let mut huge = Answer::Refused(String::new()).head();
        huge[9..].fill(0xff);
        let read = Answer::read(&mut &huge[..], 100).await;
        assert!(matches!(read, Ok(Answer::NotACompiler)));
    }
}
