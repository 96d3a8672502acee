//! The bytes of a segment file: its header and the frame of a record.
//!
//! All numbers are little-endian.
//!
//! A segment is named `{first:020}.log` after the seq of its first record. It
//! begins with two copies of this header, at 0 and at 4096, so that one bad
//! page does not take it; records begin behind the second copy.
//!
//! ```text
//!  0  magic         8  "BKHLLOG\n"
//!  8  version       4  1
//! 12  salt          4  random, part of every checksum of a record's frame
//! 16  first         8  as in the name
//! 24  previous      8  first of the segment before it; 0: none
//! 32  doubtful      8  first seq of the group at the end of the segment before
//!                      that may never have been accepted; all ones: none
//! 40  zero          4
//! 44  crc32         4  of the 44 bytes before
//! ```
//!
//! The place of magic, version, and the checksum over the first 44 bytes stays
//! the same in every version, so that an older program can tell a newer file
//! from a damaged one.
//!
//! A record is a frame of 32 bytes and its payload:
//!
//! ```text
//!  0  marker        4  b5 4c 9e 0a
//!  4  length        4  of the payload, at most 64 MiB
//!  8  seq           8
//! 16  index         4  its place in the group that was committed at once
//! 20  count         4  how many records that group has
//! 24  payload crc32 4
//! 28  frame crc32   4  of the 28 bytes before, begun with the salt
//! ```
//!
//! The frame has a checksum of its own: with a bad payload it still says which
//! seq is lost and where the next record is, and a length is never believed,
//! nor allocated, before it is checked. The salt is why a payload that holds
//! the image of a record (an event whose author knows this format, or a copy
//! of a journal) is not taken for one when records are looked for after damage.

pub(super) const MAGIC: [u8; 8] = *b"BKHLLOG\n";
pub(super) const VERSION: u32 = 1;
/// The bytes of one header.
pub(super) const HEADER: usize = 48;
/// Where the second copy of the header is.
pub(super) const SECOND_HEADER: u64 = 4096;
/// Where the records begin.
pub(super) const RECORDS: u64 = SECOND_HEADER + HEADER as u64;
/// The bytes of a record's frame.
pub(super) const FRAME: usize = 32;
pub(super) const MARKER: [u8; 4] = [0xb5, 0x4c, 0x9e, 0x0a];
/// The most bytes of one record: what a damaged or forged length can make a
/// reader allocate.
pub(crate) const MAX_RECORD: usize = 64 << 20;

/// What a segment's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) salt: u32,
    pub(super) first: u64,
    pub(super) previous: u64,
    pub(super) doubtful: u64,
}

/// What one copy of a header was found to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    Good(Header),
    Newer(u32),
    /// `ours`: enough of the magic is left to say that this was a segment.
    Bad {
        ours: bool,
    },
}

impl Header {
    /// The bytes a new segment begins with: both copies, zeros between them.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(RECORDS as usize);
        bytes.extend_from_slice(&MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.salt.to_le_bytes());
        bytes.extend_from_slice(&self.first.to_le_bytes());
        bytes.extend_from_slice(&self.previous.to_le_bytes());
        bytes.extend_from_slice(&self.doubtful.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        let crc = crc32fast::hash(&bytes);
        bytes.extend_from_slice(&crc.to_le_bytes());
        bytes.resize(SECOND_HEADER as usize, 0);
        bytes.extend_from_within(..HEADER);
        bytes
    }

    /// Reads one copy.
    pub(super) fn decode(bytes: &[u8; HEADER]) -> Found {
        if bytes[..8] != MAGIC || u32_at(bytes, 44) != crc32fast::hash(&bytes[..44]) {
            let alike = bytes.iter().zip(MAGIC).filter(|(a, b)| **a == *b).count();
            // Zeros are what a lost page looks like.
            return Found::Bad {
                ours: alike >= 4 || bytes[..8] == [0; 8],
            };
        }
        match u32_at(bytes, 8) {
            VERSION => Found::Good(Header {
                salt: u32_at(bytes, 12),
                first: u64_at(bytes, 16),
                previous: u64_at(bytes, 24),
                doubtful: u64_at(bytes, 32),
            }),
            newer => Found::Newer(newer),
        }
    }
}

/// What a record's frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) len: usize,
    pub(super) seq: u64,
    pub(super) index: u32,
    pub(super) count: u32,
    payload_crc: u32,
}

impl Frame {
    /// The frame at the start of `bytes`, if there is a whole one.
    pub(super) fn decode(bytes: &[u8], salt: u32) -> Option<Frame> {
        if bytes.len() < FRAME || bytes[..4] != MARKER {
            return None;
        }
        let len = u32_at(bytes, 4) as usize;
        if len > MAX_RECORD || u32_at(bytes, 28) != frame_crc(&bytes[..28], salt) {
            return None;
        }
        Some(Frame {
            len,
            seq: u64_at(bytes, 8),
            index: u32_at(bytes, 16),
            count: u32_at(bytes, 20),
            payload_crc: u32_at(bytes, 24),
        })
    }

    /// Frame and payload.
    pub(super) fn total(&self) -> usize {
        FRAME + self.len
    }

    pub(super) fn holds(&self, payload: &[u8]) -> bool {
        crc32fast::hash(payload) == self.payload_crc
    }

    /// The seqs of the group it was committed with.
    pub(super) fn group(&self) -> std::ops::Range<u64> {
        let first = self.seq.saturating_sub(self.index.into());
        first..first.saturating_add(self.count.into())
    }
}

/// Adds a record to a group, without what only `seal` knows.
pub(super) fn push(group: &mut Vec<u8>, seq: u64, write: impl FnOnce(&mut Vec<u8>)) -> usize {
    let start = group.len();
    group.resize(start + FRAME, 0);
    write(group);
    let len = group.len() - start - FRAME;
    let crc = crc32fast::hash(&group[start + FRAME..]);
    let frame = &mut group[start..start + FRAME];
    frame[..4].copy_from_slice(&MARKER);
    // A longer record is refused by `commit`, before any of it is written.
    frame[4..8].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes());
    frame[8..16].copy_from_slice(&seq.to_le_bytes());
    frame[24..28].copy_from_slice(&crc.to_le_bytes());
    len
}

/// Finishes the frames of a group of `count` records, none of them too long.
pub(super) fn seal(group: &mut [u8], count: u32, salt: u32) {
    let mut at = 0;
    for index in 0..count {
        let frame = &mut group[at..at + FRAME];
        frame[16..20].copy_from_slice(&index.to_le_bytes());
        frame[20..24].copy_from_slice(&count.to_le_bytes());
        let crc = frame_crc(&frame[..28], salt);
        frame[28..32].copy_from_slice(&crc.to_le_bytes());
        at += FRAME + u32_at(frame, 4) as usize;
    }
}

fn frame_crc(bytes: &[u8], salt: u32) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&salt.to_le_bytes());
    crc.update(bytes);
    crc.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut number = [0; 4];
    number.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(number)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut number = [0; 8];
    number.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(number)
}
