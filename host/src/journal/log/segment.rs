//! What writer and readers of a log know together: the row of segments.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::damage::Aside;
use super::format::Header;
use crate::journal::disk::Disk;

/// The end of a segment's name.
const SEGMENT: &str = ".log";

/// In the place of a seq: none.
pub(super) const NONE: u64 = u64::MAX;

pub(super) struct Shared {
    pub(super) disk: Arc<dyn Disk>,
    segments: Mutex<Vec<Arc<SegmentState>>>,
    /// All records below are committed.
    pub(super) next: AtomicU64,
    pub(super) aside: Aside,
    /// The last removal of a segment is not yet durable: no other may be, or
    /// a power cut could leave a hole where both were.
    pub(super) unsynced_removal: AtomicBool,
}

pub(super) struct SegmentState {
    pub(super) first: u64,
    /// The first of the segment that was before it when it was made.
    pub(super) previous: u64,
    /// `None` when both headers are bad: no record can be told from rubbish.
    pub(super) salt: Option<u32>,
    /// Its length, without what failed to be written.
    pub(super) bytes: AtomicU64,
    /// The first seq of the group at its end that may never have been accepted.
    pub(super) doubtful: AtomicU64,
    last_write: Mutex<SystemTime>,
}

impl SegmentState {
    pub(super) fn new(header: &Header, bytes: u64, last_write: SystemTime) -> SegmentState {
        SegmentState {
            first: header.first,
            previous: header.previous,
            salt: Some(header.salt),
            bytes: AtomicU64::new(bytes),
            doubtful: AtomicU64::new(NONE),
            last_write: Mutex::new(last_write),
        }
    }

    pub(super) fn wrote(&self, bytes: u64) {
        self.bytes.store(bytes, Ordering::Release);
        *self
            .last_write
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = SystemTime::now();
    }

    pub(super) fn last_write(&self) -> SystemTime {
        *self
            .last_write
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a seq is to be looked for.
pub(super) struct Place {
    pub(super) segment: Arc<SegmentState>,
    /// One more than the last seq the segment can hold.
    pub(super) end: u64,
    /// Segments behind it are missing; this is where the next one begins.
    pub(super) resumes: Option<u64>,
}

impl Shared {
    pub(super) fn new(
        disk: Arc<dyn Disk>,
        segments: Vec<Arc<SegmentState>>,
        next: u64,
        aside: Aside,
    ) -> Shared {
        Shared {
            disk,
            segments: Mutex::new(segments),
            next: AtomicU64::new(next),
            aside,
            unsynced_removal: AtomicBool::new(false),
        }
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, Vec<Arc<SegmentState>>> {
        self.segments.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The segment that holds `seq`, or the oldest one if none does any more.
    pub(super) fn place(&self, seq: u64) -> Option<Place> {
        let next = self.next.load(Ordering::Acquire);
        let segments = self.segments();
        let i = segments
            .partition_point(|s| s.first <= seq)
            .saturating_sub(1);
        let segment = segments.get(i)?.clone();
        let (end, resumes) = end(&segments, i, next);
        Some(Place {
            segment,
            end,
            resumes,
        })
    }

    pub(super) fn has(&self, segment: &Arc<SegmentState>) -> bool {
        self.segments().iter().any(|s| Arc::ptr_eq(s, segment))
    }
}

/// Where the segment at `i` ends, and where the next one begins if others are
/// missing between them.
pub(super) fn end(segments: &[Arc<SegmentState>], i: usize, next: u64) -> (u64, Option<u64>) {
    let segment = &segments[i];
    match segments.get(i + 1) {
        None => (next, None),
        Some(after) if after.previous > segment.first => {
            (after.previous.min(after.first), Some(after.first))
        }
        Some(after) => (after.first, None),
    }
}

pub(super) fn segment_name(first: u64) -> String {
    format!("{first:020}{SEGMENT}")
}

/// The first seq of the segment of this name.
pub(super) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SEGMENT)?;
    let all = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    all.then(|| digits.parse().ok())
        .flatten()
        .filter(|first| (1..NONE).contains(first))
}
