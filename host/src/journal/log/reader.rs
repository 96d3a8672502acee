//! Reading a log while it is written.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::damage::{Damage, DamageKind};
use super::scan::{Gap, Scan, Step};
use super::segment::{Place, SegmentState, Shared, segment_name};
use crate::journal::disk::DiskFile;

/// What a call of [`LogReader::read`] came to.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// Where to go on.
    pub(crate) next: u64,
    /// What could not be read on the way.
    pub(crate) damage: Vec<Damage>,
}

/// A reader of a log. Cheap while it reads on from where it stopped; from
/// anywhere else it has to go through a segment from its start.
pub(crate) struct LogReader {
    shared: Arc<Shared>,
    cursor: Option<Cursor>,
}

struct Cursor {
    segment: Arc<SegmentState>,
    file: Arc<dyn DiskFile>,
    scan: Scan,
}

impl Clone for LogReader {
    fn clone(&self) -> LogReader {
        LogReader::new(self.shared.clone())
    }
}

/// What one segment had to say.
enum Outcome {
    /// The caller has enough.
    Stop,
    /// Go on at `next`.
    On,
}

struct Progress<'a> {
    next: u64,
    until: u64,
    left: usize,
    damage: Vec<Damage>,
    each: &'a mut dyn FnMut(u64, &[u8]) -> bool,
}

impl LogReader {
    pub(super) fn new(shared: Arc<Shared>) -> LogReader {
        LogReader {
            shared,
            cursor: None,
        }
    }

    /// Reads records from `from` on, below `until` and `next_seq`, up to about
    /// `max_bytes` of them (one at least), in order. `each` may return false
    /// to stop after that record. Records that were removed are passed over:
    /// reading begins at `oldest_seq` then.
    ///
    /// A seq is handed to `each`, is in the `lost` range of one damage, or was
    /// removed, before `next` passes it.
    ///
    /// # Errors
    ///
    /// The disk's, when nothing at all could be read; otherwise what was read
    /// is returned, and the error by the next call.
    pub(crate) fn read(
        &mut self,
        from: u64,
        until: u64,
        max_bytes: usize,
        each: &mut dyn FnMut(u64, &[u8]) -> bool,
    ) -> io::Result<Chunk> {
        let until = until.min(self.shared.next.load(Ordering::Acquire));
        let mut progress = Progress {
            next: from,
            until,
            left: max_bytes,
            damage: Vec::new(),
            each,
        };
        while progress.next < until {
            let Some(place) = self.shared.place(progress.next) else {
                break;
            };
            progress.next = progress.next.max(place.segment.first);
            if progress.next >= until {
                progress.next = until.max(from);
                break;
            }
            match self.read_segment(&place, &mut progress) {
                Ok(Outcome::On) => {}
                Ok(Outcome::Stop) => break,
                Err(error) => {
                    self.cursor = None;
                    if progress.next == from && progress.damage.is_empty() {
                        return Err(error);
                    }
                    break;
                }
            }
        }
        Ok(Chunk {
            next: progress.next,
            damage: progress.damage,
        })
    }

    fn read_segment(&mut self, place: &Place, progress: &mut Progress<'_>) -> io::Result<Outcome> {
        let segment = &place.segment;
        let cursor = self.cursor.take().filter(|cursor| {
            Arc::ptr_eq(&cursor.segment, segment) && cursor.scan.expected() <= progress.next
        });
        let mut cursor = match cursor {
            Some(cursor) => cursor,
            None => {
                let file = match self.shared.disk.open(&segment_name(segment.first)) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        // Unless it has just been removed by the writer,
                        // somebody else did.
                        if self.shared.has(segment) {
                            let end = place.resumes.unwrap_or(place.end);
                            self.missing(progress, segment.first, progress.next..end);
                            progress.next = end.min(progress.until);
                        }
                        return Ok(Outcome::On);
                    }
                    opened => opened?,
                };
                let Some(salt) = segment.salt else {
                    let bytes = segment.bytes.load(Ordering::Acquire);
                    let gap = Gap {
                        offset: 0,
                        bytes,
                        lost: segment.first..place.end,
                    };
                    self.unreadable(progress, segment, &*file, &gap);
                    return Ok(self.leave(place, progress));
                };
                let scan = Scan::new(file.clone(), salt, segment.first);
                Cursor {
                    segment: segment.clone(),
                    file,
                    scan,
                }
            }
        };
        loop {
            let limit = segment.bytes.load(Ordering::Acquire);
            match cursor.scan.step(limit, place.end)? {
                Step::Record { frame, gap, .. } => {
                    if let Some(gap) = gap
                        && frame.seq >= progress.next
                    {
                        self.unreadable(progress, segment, &*cursor.file, &gap);
                        // They are behind, even if the record is not wanted.
                        progress.next = frame.seq.min(progress.until);
                    }
                    if frame.seq < progress.next {
                        continue;
                    }
                    if frame.seq >= progress.until {
                        return Ok(Outcome::Stop);
                    }
                    progress.next = frame.seq + 1;
                    let payload = cursor.scan.payload(&frame);
                    let more = (progress.each)(frame.seq, payload);
                    progress.left = progress.left.saturating_sub(frame.total());
                    if !more || progress.left == 0 || progress.next >= progress.until {
                        self.cursor = Some(cursor);
                        return Ok(Outcome::Stop);
                    }
                }
                Step::End { gap } => {
                    // Behind the last record there may be what a failed commit
                    // left: no damage unless a record is missing.
                    let clean = gap.bytes == 0 && place.resumes.is_some();
                    if !gap.lost.is_empty() && !clean {
                        self.unreadable(progress, segment, &*cursor.file, &gap);
                        progress.next = gap.lost.end.clamp(progress.next, progress.until);
                    }
                    return Ok(self.leave(place, progress));
                }
            }
        }
    }

    /// Goes on behind a segment.
    fn leave(&self, place: &Place, progress: &mut Progress<'_>) -> Outcome {
        let end = place.resumes.unwrap_or(place.end);
        if place.resumes.is_some() {
            self.missing(progress, place.end, progress.next..end);
        }
        progress.next = end.clamp(progress.next, progress.until);
        Outcome::On
    }

    fn unreadable(
        &self,
        progress: &mut Progress<'_>,
        segment: &SegmentState,
        file: &dyn DiskFile,
        gap: &Gap,
    ) {
        let lost = clip(&gap.lost, progress);
        if lost.is_empty() && !gap.lost.is_empty() {
            return;
        }
        let kind = if lost.start >= segment.doubtful.load(Ordering::Relaxed) {
            DamageKind::TornTail
        } else {
            DamageKind::Unreadable
        };
        let disk = &*self.shared.disk;
        let damage = Damage {
            file: disk.path(&segment_name(segment.first)),
            offset: gap.offset,
            bytes: gap.bytes,
            lost,
            kind,
            aside: self
                .shared
                .aside
                .keep(disk, file, segment.first, gap.offset, gap.bytes),
        };
        progress.damage.push(damage);
    }

    fn missing(&self, progress: &mut Progress<'_>, first: u64, lost: Range<u64>) {
        let lost = clip(&lost, progress);
        if !lost.is_empty() {
            progress.damage.push(Damage {
                file: self.shared.disk.path(&segment_name(first)),
                offset: 0,
                bytes: 0,
                lost,
                kind: DamageKind::MissingSegment,
                aside: None,
            });
        }
    }
}

/// What of a lost range was asked for: so each seq is reported once, however
/// the caller divides its reading.
fn clip(lost: &Range<u64>, progress: &Progress<'_>) -> Range<u64> {
    let start = lost.start.max(progress.next);
    start..lost.end.min(progress.until).max(start)
}
