//! A segmented, append-only log of opaque records: one writer, many readers.
//!
//! Records are numbered from 1, without gaps. They are written in groups, one
//! write and one sync each, to the last of a row of segment files; `format`
//! says how the bytes lie.
//!
//! What holds at every moment, whatever the disk does:
//!
//! 1. A record whose `commit` returned `Ok` is read back as it was, in order,
//!    until `remove_below` takes its segment or the disk changes its bytes.
//! 2. Only the last group of a segment can be one that never was accepted:
//!    after any error the writer goes on in a new segment, whose name says
//!    from which seq on the one before is void.
//! 3. A file whose sync failed is not trusted: the system may have dropped the
//!    pages and call the next sync a success. Opening therefore writes the last
//!    group again, with the bytes it has, before it syncs and believes it.
//! 4. A segment has its whole header, and is synced, before it has its name.
//! 5. Segments are removed oldest first, each removal durable before the next.
//! 6. What cannot be read is passed over, reported with the seqs that are lost,
//!    and copied aside; whatever is whole behind it is read.
//!
//! What it cannot see: that the oldest or the last segments were removed by
//! somebody else. Who keeps positions can: they are below `oldest_seq` or above
//! `next_seq` then.

mod damage;
mod format;
mod open;
mod reader;
mod scan;
mod segment;
#[cfg(test)]
mod tests;

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

pub(crate) use damage::Damage;
#[cfg(test)]
pub(crate) use damage::DamageKind;
pub(crate) use format::MAX_RECORD;
pub(crate) use open::OpenError;
pub(crate) use reader::LogReader;

use self::format::{Header, RECORDS};
use self::segment::{NONE, SegmentState, Shared, segment_name};
use crate::journal::disk::{Disk, DiskFile};

/// What a new segment is called until it is whole.
const NEW: &str = ".new";

/// A group's buffer is not kept when it has become larger than this.
const KEPT_GROUP: usize = 8 << 20;

/// How a log is kept.
#[derive(Debug, Clone)]
pub(crate) struct LogOptions {
    /// A new segment is begun when the last one has this many bytes.
    pub(crate) segment_bytes: u64,
}

impl Default for LogOptions {
    fn default() -> LogOptions {
        LogOptions {
            segment_bytes: 64 << 20,
        }
    }
}

/// One file of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// The seq of its first record.
    pub(crate) first: u64,
    /// One more than the seq of its last.
    pub(crate) end: u64,
    /// Its length.
    pub(crate) bytes: u64,
    /// When something was last written to it.
    pub(crate) last_write: SystemTime,
}

/// The writer of a log.
pub(crate) struct Log {
    shared: Arc<Shared>,
    options: LogOptions,
    /// The segment being written; `None` when the next commit begins one.
    active: Option<Active>,
    /// The records pushed since the last commit.
    group: Vec<u8>,
    count: u32,
    /// A record of the group is longer than `MAX_RECORD`.
    too_long: bool,
    /// The seq of the group's first record.
    next: u64,
}

struct Active {
    segment: Arc<SegmentState>,
    file: Arc<dyn DiskFile>,
}

impl Log {
    /// Opens the log, or makes it, and says what of its last segment cannot be
    /// read and which segments are missing. Damage in other segments is found
    /// when they are read. Damage reported here is reported again by the
    /// readers that cross it, but for a torn tail, which is cut off.
    pub(crate) fn open(
        disk: Arc<dyn Disk>,
        options: LogOptions,
    ) -> Result<(Log, Vec<Damage>), OpenError> {
        open::open(disk, options)
    }

    /// The seq of the next record to be committed. The first ever is 1.
    pub(crate) fn next_seq(&self) -> u64 {
        self.next
    }

    /// The lowest seq that is kept; `next_seq` when there is none.
    pub(crate) fn oldest_seq(&self) -> u64 {
        self.shared
            .segments()
            .first()
            .map_or(self.next, |segment| segment.first)
    }

    /// The bytes of all segments.
    pub(crate) fn size(&self) -> u64 {
        self.shared
            .segments()
            .iter()
            .map(|s| s.bytes.load(Ordering::Acquire))
            .sum()
    }

    /// The segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<Segment> {
        let segments = self.shared.segments();
        (0..segments.len())
            .map(|i| Segment {
                first: segments[i].first,
                end: segment::end(&segments, i, self.next).0,
                bytes: segments[i].bytes.load(Ordering::Acquire),
                last_write: segments[i].last_write(),
            })
            .collect()
    }

    /// Adds a record to the group that the next `commit` writes; returns the
    /// seq it will have. `write` appends the payload, at most [`MAX_RECORD`]
    /// bytes, and must leave what is there before it.
    pub(crate) fn push(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
        let seq = self.next + u64::from(self.count);
        self.too_long |= format::push(&mut self.group, seq, write) > MAX_RECORD;
        self.count += 1;
        seq
    }

    /// Writes the group with one write and one sync, and returns its seqs.
    ///
    /// # Errors
    ///
    /// None of the group counts then, and it is gone: its seqs are used again,
    /// and the next commit begins a new segment. `InvalidInput` when a record
    /// is too long, before anything was written.
    pub(crate) fn commit(&mut self) -> io::Result<Range<u64>> {
        let seqs = self.next..self.next + u64::from(self.count);
        let result = if self.too_long {
            Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a record is longer than 64 MiB",
            ))
        } else if seqs.is_empty() {
            Ok(())
        } else {
            self.write_group()
        };
        if result.is_ok() {
            self.next = seqs.end;
        }
        self.group.clear();
        self.group.shrink_to(KEPT_GROUP);
        self.count = 0;
        self.too_long = false;
        result.map(|()| seqs)
    }

    fn write_group(&mut self) -> io::Result<()> {
        let full = self.active.as_ref().is_some_and(|active| {
            active.segment.first < self.next
                && active.segment.bytes.load(Ordering::Relaxed) >= self.options.segment_bytes
        });
        if full || self.active.is_none() {
            self.roll()?;
        }
        let Some(active) = &self.active else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let segment = &active.segment;
        format::seal(
            &mut self.group,
            self.count,
            segment.salt.unwrap_or_default(),
        );
        let offset = segment.bytes.load(Ordering::Relaxed);
        let written = active.file.write_all_at(&self.group, offset);
        if let Err(error) = written.and_then(|()| active.file.sync()) {
            // Only so that less is left to be passed over: the next segment's
            // name makes it void.
            let _ = active.file.set_len(offset);
            self.active = None;
            return Err(error);
        }
        segment.wrote(offset + self.group.len() as u64);
        // After the length, so that a reader that sees the seq sees the bytes.
        self.shared
            .next
            .store(self.next + u64::from(self.count), Ordering::Release);
        Ok(())
    }

    /// Whether writing works again after an error: begins a new segment.
    /// Nothing is done when nothing is wrong.
    pub(crate) fn probe(&mut self) -> io::Result<()> {
        match self.active {
            Some(_) => Ok(()),
            None => self.roll(),
        }
    }

    /// Has the next record begin a segment, so that those before can be removed.
    /// Nothing is done when there is none before.
    pub(crate) fn begin_segment(&mut self) -> io::Result<()> {
        match &self.active {
            Some(active) if active.segment.first == self.next => Ok(()),
            _ => self.roll(),
        }
    }

    /// Has the next record be `seq` at least. For when somebody knows of records
    /// that the log does not: they are gone, and their numbers must not return.
    pub(crate) fn skip_to(&mut self, seq: u64) {
        if seq > self.next {
            self.next = seq;
            self.active = None;
            self.shared.next.store(seq, Ordering::Release);
        }
    }

    /// Begins a segment. Its name may be that of one in which no commit
    /// succeeded, whose place it takes.
    fn roll(&mut self) -> io::Result<()> {
        self.active = None;
        let first = self.next;
        let before = self
            .shared
            .segments()
            .iter()
            .rev()
            .find(|s| s.first < first)
            .cloned();
        let header = Header {
            salt: uuid::Uuid::new_v4().as_fields().0,
            first,
            previous: before.as_ref().map_or(0, |before| before.first),
            doubtful: before.map_or(NONE, |before| before.doubtful.load(Ordering::Relaxed)),
        };
        let disk = &*self.shared.disk;
        let name = segment_name(first);
        let new = format!("{name}{NEW}");
        match disk.remove(&new) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = disk.create(&new)?;
        file.write_all_at(&header.encode(), 0)?;
        file.sync()?;
        disk.rename(&new, &name)?;
        disk.sync()?;
        let segment = Arc::new(SegmentState::new(&header, RECORDS, SystemTime::now()));
        let mut segments = self.shared.segments();
        segments.retain(|s| s.first < first);
        segments.push(segment.clone());
        drop(segments);
        self.active = Some(Active { segment, file });
        Ok(())
    }

    /// Removes whole segments all of whose records are below `seq`, oldest
    /// first; never the one being written. Returns the bytes freed.
    ///
    /// # Errors
    ///
    /// Those removed before stay removed. One whose removal may not be durable
    /// is no longer read, but may be there again after a power cut.
    pub(crate) fn remove_below(&mut self, seq: u64) -> io::Result<u64> {
        let mut freed = 0;
        if self.shared.unsynced_removal.load(Ordering::Relaxed) {
            self.shared.disk.sync()?;
            self.shared.unsynced_removal.store(false, Ordering::Relaxed);
        }
        loop {
            let oldest = {
                let segments = self.shared.segments();
                match &segments[..] {
                    [oldest, second, ..] if second.first <= seq => oldest.clone(),
                    _ => return Ok(freed),
                }
            };
            match self.shared.disk.remove(&segment_name(oldest.first)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            self.shared.segments().retain(|s| !Arc::ptr_eq(s, &oldest));
            freed += oldest.bytes.load(Ordering::Relaxed);
            self.shared.unsynced_removal.store(true, Ordering::Relaxed);
            self.shared.disk.sync()?;
            self.shared.unsynced_removal.store(false, Ordering::Relaxed);
        }
    }

    /// A reader of this log; it sees what is committed later, too.
    pub(crate) fn reader(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }
}
