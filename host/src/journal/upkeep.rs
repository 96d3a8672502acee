//! What is done now and then: positions are synced, segments that nobody needs
//! are removed, a disk that failed is tried again; and what is done once, at the
//! start: the books are brought up to the log.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::SystemTime;

use super::backends::Backend;
use super::log::{Log, Segment};
use super::{Inner, Trouble, lock, record};

/// How much room there is for what is settled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Room {
    /// As much as it may have.
    Enough,
    /// The journal is nearly full.
    Tight,
    /// The disk is full, or events were refused.
    None,
}

impl Inner {
    /// Beyond this much on disk, what is settled is removed although it could
    /// still be kept.
    pub(super) fn tight(&self) -> u64 {
        self.options.size - 2 * self.segment_bytes
    }

    /// Looks after the journal: what is settled is kept as `room` allows.
    pub(super) fn look_after(&self, log: &mut Log, room: Room) {
        let refused = self.refused.swap(false, Ordering::Relaxed);
        match (self.was_full.swap(refused, Ordering::Relaxed), refused) {
            (false, true) => tracing::warn!("events are refused: {}", self.full()),
            (true, false) => tracing::info!("the journal refuses no events any more"),
            _ => {}
        }
        let room = match self.try_again(log) {
            // What is only kept for those who may come is given up first.
            Err(error) if error.kind() == io::ErrorKind::StorageFull => Room::None,
            _ if refused => Room::None,
            _ => room,
        };
        let backends: Vec<Arc<Backend>> = lock(&self.backends).all().to_vec();
        let head = *self.head.borrow();
        let present = backends.iter().filter(|backend| backend.is_present());
        let read = present.map(|backend| backend.progress().cursor).min();
        lock(&self.recent).forget_below(read.unwrap_or(head));
        // What is removed below must be settled for good: looked up before, synced
        // after.
        let wanted = backends.iter().filter_map(|backend| backend.wants()).min();
        match self.sync_positions(&backends) {
            Ok(()) => {
                self.note_failure(Trouble::Positions, None);
                self.remove_settled(log, wanted.unwrap_or(head), room);
            }
            Err(error) => {
                self.cannot_write(Trouble::Positions, &error);
            }
        }
        if room == Room::None {
            let _ = self.try_again(log);
        }
    }

    /// Whether a disk that failed can be written again.
    fn try_again(&self, log: &mut Log) -> io::Result<()> {
        if !self.has_failed(Trouble::Log) {
            return Ok(());
        }
        let tried = log.probe();
        match &tried {
            Ok(()) => self.note_failure(Trouble::Log, None),
            Err(error) => {
                self.cannot_write(Trouble::Log, error);
            }
        }
        tried
    }

    fn sync_positions(&self, backends: &[Arc<Backend>]) -> io::Result<()> {
        backends.iter().try_for_each(|backend| {
            backend.pass(&self.recent);
            backend.sync(&self.recent)
        })
    }

    /// Returns when what is settled now is so for good.
    pub(super) fn sync_all_positions(&self) -> io::Result<()> {
        let backends: Vec<Arc<Backend>> = lock(&self.backends).all().to_vec();
        let sync = |backend: &Arc<Backend>| backend.sync(&self.recent);
        backends.iter().try_for_each(sync)
    }

    /// Removes the oldest segments that are settled everywhere and need not be
    /// kept any longer.
    fn remove_settled(&self, log: &mut Log, wanted: u64, room: Room) {
        let segments = log.segments();
        let settled = segments.iter().filter(|segment| segment.end <= wanted);
        let mut kept: u64 = settled.clone().map(|segment| segment.bytes).sum();
        let mut size = log.size();
        let mut below = None;
        for segment in settled {
            let needed = match room {
                Room::Enough => false,
                Room::Tight => size > self.tight(),
                Room::None => true,
            };
            if kept <= self.options.retain_size && !self.is_old(segment) && !needed {
                break;
            }
            kept -= segment.bytes;
            size -= segment.bytes;
            below = Some(segment.end);
        }
        if let Some(below) = below
            && let Err(error) = self.remove_below(log, below, room)
        {
            self.cannot_write(Trouble::Log, &error);
        }
        self.size.store(log.size(), Ordering::Relaxed);
        self.oldest.store(log.oldest_seq(), Ordering::Relaxed);
    }

    fn remove_below(&self, log: &mut Log, below: u64, room: Room) -> io::Result<()> {
        // What is old, or in the way, may be in the segment that is written, which
        // no event may follow for long.
        let last = log.segments().pop();
        let is_due = |last: &Segment| room == Room::None || self.is_old(last);
        let begun = match below == log.next_seq() && last.as_ref().is_some_and(is_due) {
            true => log.begin_segment(),
            false => Ok(()),
        };
        log.remove_below(below)?;
        begun
    }

    fn is_old(&self, segment: &Segment) -> bool {
        let age = SystemTime::now().duration_since(segment.last_write);
        age.is_ok_and(|age| age > self.options.retain_age)
    }

    /// Counts what was accepted after the books were last written.
    pub(super) fn count_accepted(&self) -> io::Result<()> {
        let backends: Vec<Arc<Backend>> = lock(&self.backends).all().to_vec();
        let head = *self.head.borrow();
        let counted: Vec<u64> = backends
            .iter()
            .map(|backend| backend.progress().counted())
            .collect();
        let oldest = self.oldest.load(Ordering::Relaxed);
        for (backend, counted) in backends.iter().zip(&counted) {
            // Some of what it had not settled, or was not counted, may be gone.
            if (*counted).max(backend.progress().settled()) < oldest {
                backend.note_damage();
            }
        }
        let mut from = counted.iter().copied().min().unwrap_or(head).max(oldest);
        let mut reader = self.reader();
        while from < head {
            let chunk = reader.read(from, head, 1 << 20, &mut |seq, bytes| {
                for target in record::read_targets(bytes).unwrap_or_default() {
                    let known = backends.iter().zip(&counted);
                    for (backend, _) in
                        known.filter(|(b, counted)| b.id == target && seq >= **counted)
                    {
                        backend.books.accept(1);
                    }
                }
                true
            })?;
            if chunk.damage.iter().any(|damage| !damage.lost.is_empty()) {
                backends.iter().for_each(|backend| backend.note_damage());
            }
            self.note_damage(&chunk.damage, &[]);
            from = chunk.next;
        }
        for backend in &backends {
            backend.progress().write(backend, &self.recent);
        }
        Ok(())
    }
}
