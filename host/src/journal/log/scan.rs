//! Going through one segment, record by record and over what is damaged.
//!
//! Who calls it: `open`, for the last segment, and the reader.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::format::{FRAME, Frame, MARKER, RECORDS};
use crate::journal::disk::{DiskFile, read_full};

/// How much is read at once. A larger record makes the buffer larger while it
/// is read.
const BUFFER: usize = 256 << 10;

/// A place in a segment.
pub(super) struct Scan {
    file: Arc<dyn DiskFile>,
    salt: u32,
    /// The next byte to look at.
    offset: u64,
    /// The next seq to find.
    expected: u64,
    /// Of the last whole frame seen, even when its payload was bad.
    last_frame: Option<Frame>,
    buffer: Vec<u8>,
    /// The offset in the file of the buffer's first byte.
    start: u64,
}

/// A stretch that is no whole record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) lost: Range<u64>,
}

/// What comes next.
pub(super) enum Step {
    /// A record at `offset`; `gap` is what had to be passed to come here.
    Record {
        frame: Frame,
        offset: u64,
        gap: Option<Gap>,
    },
    /// No further record below the given end. What is left are `gap.bytes` bytes.
    End { gap: Gap },
}

impl Scan {
    pub(super) fn new(file: Arc<dyn DiskFile>, salt: u32, first: u64) -> Scan {
        Scan {
            file,
            salt,
            offset: RECORDS,
            expected: first,
            last_frame: None,
            buffer: Vec::new(),
            start: 0,
        }
    }

    /// The seq of the record that comes next.
    pub(super) fn expected(&self) -> u64 {
        self.expected
    }

    /// The last whole frame seen, even when its payload was bad.
    pub(super) fn last_frame(&self) -> Option<Frame> {
        self.last_frame
    }

    /// The next whole record with a seq below `end`, in the first `limit` bytes
    /// of the file.
    pub(super) fn step(&mut self, limit: u64, end: u64) -> io::Result<Step> {
        let salt = self.salt;
        let mut bad = None;
        loop {
            let at = self.offset;
            let frame = match self.bytes(at, FRAME, limit)? {
                Some(bytes) => Frame::decode(bytes, salt),
                None => {
                    let offset = bad.unwrap_or(at.min(limit));
                    return Ok(self.end(offset, limit - offset, end));
                }
            };
            let Some(frame) = frame else {
                bad.get_or_insert(at);
                self.offset = self.find_marker(at + 1, limit)?;
                continue;
            };
            if frame.seq >= end {
                // Left by a commit that failed; its seqs were used again.
                let offset = bad.unwrap_or(at);
                return Ok(self.end(offset, at - offset, end));
            }
            let payload = at + FRAME as u64;
            let whole = match self.bytes(payload, frame.len, limit)? {
                Some(bytes) => frame.holds(bytes),
                None => {
                    bad.get_or_insert(at);
                    self.last_frame = Some(frame);
                    self.offset = self.find_marker(at + 1, limit)?;
                    continue;
                }
            };
            self.offset = at + frame.total() as u64;
            if !whole || frame.seq < self.expected {
                bad.get_or_insert(at);
                if frame.seq >= self.expected {
                    self.last_frame = Some(frame);
                }
                continue;
            }
            self.last_frame = Some(frame);
            let lost = self.expected..frame.seq;
            self.expected = frame.seq + 1;
            let gap = (bad.is_some() || !lost.is_empty()).then(|| {
                let offset = bad.unwrap_or(at);
                Gap {
                    offset,
                    bytes: at - offset,
                    lost,
                }
            });
            return Ok(Step::Record {
                frame,
                offset: at,
                gap,
            });
        }
    }

    /// The payload of the record that `step` has just returned.
    pub(super) fn payload(&self, frame: &Frame) -> &[u8] {
        let end = (self.offset - self.start) as usize;
        &self.buffer[end - frame.len..end]
    }

    fn end(&self, offset: u64, bytes: u64, end: u64) -> Step {
        Step::End {
            gap: Gap {
                offset,
                bytes,
                lost: self.expected..end.max(self.expected),
            },
        }
    }

    /// Where the next frame may begin; `limit` when nowhere.
    fn find_marker(&mut self, from: u64, limit: u64) -> io::Result<u64> {
        let mut at = from;
        while let Some(bytes) = self.some_bytes(at, MARKER.len(), limit)? {
            match bytes
                .windows(MARKER.len())
                .position(|window| window == MARKER)
            {
                Some(found) => return Ok(at + found as u64),
                // The last bytes may be the start of a marker.
                None => at += (bytes.len() - MARKER.len() + 1) as u64,
            }
        }
        Ok(limit)
    }

    fn bytes(&mut self, at: u64, len: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        Ok(self.some_bytes(at, len, limit)?.map(|bytes| &bytes[..len]))
    }

    /// At least `least` bytes at `at`, or `None` when there are fewer in the
    /// first `limit` bytes of the file.
    fn some_bytes(&mut self, at: u64, least: usize, limit: u64) -> io::Result<Option<&[u8]>> {
        if limit.saturating_sub(at) < least as u64 {
            return Ok(None);
        }
        let held = self.start..self.start + self.buffer.len() as u64;
        if at < held.start || at + least as u64 > held.end {
            // Never beyond `limit`: what is there may be half written, and
            // would be remembered so.
            let want = (limit - at).min(least.max(BUFFER) as u64) as usize;
            if self.buffer.capacity() > 4 * BUFFER && want <= BUFFER {
                self.buffer = Vec::new();
            }
            self.buffer.resize(want, 0);
            let got = match read_full(&*self.file, &mut self.buffer, at) {
                Ok(got) => got,
                Err(error) => {
                    self.buffer.clear();
                    return Err(error);
                }
            };
            self.buffer.truncate(got);
            self.start = at;
            if got < least {
                // Somebody cut the file behind the host's back.
                return Ok(None);
            }
        }
        Ok(Some(&self.buffer[(at - self.start) as usize..]))
    }
}
