//! The dead letters on disk: a log of letters and of what became of them.
//!
//! What is in memory of a letter is what it can be found by; the rest is read
//! when it is asked for. A letter keeps its id when its record is written again
//! to make room: the oldest segment goes as soon as none of its letters is left,
//! or what is live of it is little.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;

use jiff::Timestamp;

use super::super::disk::Disk;
use super::super::log::{Damage, Log, LogOptions, LogReader, OpenError, Segment};
use super::record::{self, Letter, Record};
use crate::dead_letters::{DeadFilter, DeadLetter, DeadPage};
use crate::delivery::Burial;

/// How much is read at once.
const CHUNK: usize = 1 << 20;

/// The largest segment.
const MAX_SEGMENT: u64 = 8 << 20;

/// The dead letters of a journal.
pub(in crate::journal) struct Store {
    log: Log,
    reader: LogReader,
    /// When their events have this many bytes, no more are taken.
    limit: u64,
    segment_bytes: u64,
    letters: BTreeMap<u64, Place>,
    /// How many there are of each backend.
    counts: Counts,
    live_bytes: u64,
}

/// How many letters each backend has.
pub(super) type Counts = HashMap<Arc<str>, u64>;

/// Where a letter is, and what it can be found by.
struct Place {
    /// The number of its record.
    at: u64,
    bytes: u64,
    backend: Arc<str>,
    event_type: Box<str>,
    /// The number of its event in the journal.
    seq: u64,
    last_try: Timestamp,
}

impl Store {
    pub(super) fn open(disk: Arc<dyn Disk>, limit: u64) -> Result<(Store, Vec<Damage>), OpenError> {
        let segment_bytes = (limit / 8).min(MAX_SEGMENT);
        let (log, mut damage) = Log::open(disk.clone(), LogOptions { segment_bytes })?;
        let mut store = Store {
            reader: log.reader(),
            log,
            limit,
            segment_bytes,
            letters: BTreeMap::new(),
            counts: HashMap::new(),
            live_bytes: 0,
        };
        let (mut next, end) = (store.log.oldest_seq(), store.log.next_seq());
        let mut reader = store.log.reader();
        while next < end {
            let read = reader.read(next, end, CHUNK, &mut |at, bytes| {
                store.replay(at, bytes);
                true
            });
            let chunk = read.map_err(|source| OpenError::Io {
                path: disk.path(""),
                source,
            })?;
            damage.extend(chunk.damage);
            next = chunk.next;
        }
        Ok((store, damage))
    }

    fn replay(&mut self, at: u64, bytes: &[u8]) {
        match record::read(bytes) {
            Ok(Record::Letter(letter)) => self.enter(at, bytes.len(), &letter),
            Ok(Record::Removed(ids)) => ids.iter().for_each(|id| self.forget(*id)),
            Err(error) => tracing::error!(at, %error, "a record of the dead letters is none"),
        }
    }

    fn enter(&mut self, at: u64, bytes: usize, letter: &Letter) {
        let id = letter.id.unwrap_or(at);
        // One that was just written again may be there twice.
        self.forget(id);
        let known = self.counts.get_key_value(letter.backend.as_str());
        let backend =
            known.map_or_else(|| letter.backend.as_str().into(), |(name, _)| name.clone());
        *self.counts.entry(backend.clone()).or_default() += 1;
        self.live_bytes += bytes as u64;
        let place = Place {
            at,
            bytes: bytes as u64,
            backend,
            event_type: letter.event.event_type().into(),
            seq: letter.seq,
            last_try: letter.last_try,
        };
        self.letters.insert(id, place);
    }

    fn forget(&mut self, id: u64) {
        let Some(place) = self.letters.remove(&id) else {
            return;
        };
        self.live_bytes -= place.bytes;
        if let Some(count) = self.counts.get_mut(&place.backend) {
            *count -= 1;
        }
    }

    /// How many letters each backend has.
    pub(super) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The numbers that the events of a backend's letters have in the journal.
    pub(super) fn seqs(&self, backend: &str) -> Vec<u64> {
        let own = self.letters.values().filter(|p| *p.backend == *backend);
        own.map(|place| place.seq).collect()
    }

    /// One past the highest of these numbers.
    pub(super) fn known_end(&self) -> u64 {
        let seqs = self.letters.values().map(|place| place.seq + 1);
        seqs.max().unwrap_or(0)
    }

    /// The id the next letter will at least have.
    pub(super) fn next_id(&self) -> u64 {
        self.log.next_seq()
    }

    /// Keeps letters durably, all or none.
    pub(super) fn bury(&mut self, backend: &str, burials: &[Burial]) -> io::Result<()> {
        if self.live_bytes >= self.limit {
            return Err(io::Error::other(format!(
                "the {} dead letters there are have the {} KiB they may have; \
                 retry or drop some with `backhaul dead`",
                self.letters.len(),
                self.limit >> 10
            )));
        }
        let letters = burials.iter().map(|burial| Letter {
            id: None,
            backend: backend.to_owned(),
            seq: burial.seq,
            error: burial.error.clone(),
            attempts: burial.attempts,
            first_try: burial.first_try,
            last_try: burial.last_try,
            event: burial.event.clone(),
        });
        self.write(letters.collect())
    }

    fn write(&mut self, letters: Vec<Letter>) -> io::Result<()> {
        let mut written = Vec::new();
        for letter in letters {
            let mut bytes = 0;
            let at = self.log.push(|to| {
                let before = to.len();
                letter.write(to);
                bytes = to.len() - before;
            });
            written.push((at, bytes, letter));
        }
        self.log.commit()?;
        for (at, bytes, letter) in &written {
            self.enter(*at, *bytes, letter);
        }
        Ok(())
    }

    /// Removes letters durably, all or none; returns how many were there.
    pub(super) fn remove(&mut self, ids: &[u64]) -> io::Result<u64> {
        let there = ids.iter().filter(|id| self.letters.contains_key(id));
        let there: Vec<u64> = there.copied().collect();
        if !there.is_empty() {
            self.log.push(|to| record::write_removed(to, &there));
            self.log.commit()?;
        }
        there.iter().for_each(|id| self.forget(*id));
        Ok(there.len() as u64)
    }

    /// Gives back the room of letters that were removed.
    pub(super) fn tidy(&mut self) -> io::Result<()> {
        loop {
            let segments = self.log.segments();
            let [oldest, _, ..] = &segments[..] else {
                return Ok(());
            };
            let live = self.live_in(oldest);
            let wasteful = self.log.size() > 2 * self.live_bytes + 4 * self.segment_bytes;
            if !live.is_empty() {
                if !wasteful {
                    return Ok(());
                }
                self.write_again(oldest, &live)?;
            }
            self.log.remove_below(oldest.end)?;
        }
    }

    fn live_in(&self, segment: &Segment) -> Vec<u64> {
        let inside = |place: &Place| (segment.first..segment.end).contains(&place.at);
        let live = self.letters.iter().filter(|(_, place)| inside(place));
        live.map(|(id, _)| *id).collect()
    }

    fn write_again(&mut self, segment: &Segment, live: &[u64]) -> io::Result<()> {
        let places = live.iter().map(|id| (self.letters[id].at, *id));
        let mut places: BTreeMap<u64, u64> = places.collect();
        let mut letters = Vec::new();
        let mut next = segment.first;
        while next < segment.end {
            let chunk = self
                .reader
                .read(next, segment.end, CHUNK, &mut |at, bytes| {
                    if let Some(id) = places.get(&at).copied()
                        && let Ok(Record::Letter(letter)) = record::read(bytes)
                    {
                        places.remove(&at);
                        let id = Some(id);
                        letters.push(Letter { id, ..letter });
                    }
                    true
                })?;
            next = chunk.next;
        }
        for id in places.into_values() {
            tracing::error!(id, "a dead letter cannot be read any more and is lost");
            self.forget(id);
        }
        self.write(letters)
    }

    /// Letters that fit, with an id above `after`: at most `limit`, with about
    /// `bytes`, one at least.
    pub(super) fn page(
        &mut self,
        filter: &DeadFilter,
        after: u64,
        limit: usize,
        bytes: u64,
    ) -> io::Result<DeadPage> {
        let mut page = DeadPage::default();
        let (mut chosen, mut left) = (Vec::new(), bytes);
        for (id, place) in &self.letters {
            if !filter.fits(*id, &place.backend, &place.event_type, place.last_try) {
                continue;
            }
            page.total += 1;
            if *id <= after || page.next.is_some() {
                continue;
            }
            if chosen.len() == limit || left == 0 {
                page.next = chosen.last().map(|(_, id)| *id);
                continue;
            }
            left = left.saturating_sub(place.bytes);
            chosen.push((place.at, *id));
        }
        // In the order of the disk, so that each segment is gone through once.
        chosen.sort_unstable();
        for (at, id) in chosen {
            page.letters.extend(self.read(at, id)?);
        }
        page.letters.sort_unstable_by_key(|letter| letter.id);
        Ok(page)
    }

    /// None if it cannot be read any more.
    fn read(&mut self, at: u64, id: u64) -> io::Result<Option<DeadLetter>> {
        let mut found = None;
        self.reader.read(at, at + 1, CHUNK, &mut |_, bytes| {
            found = record::read(bytes).ok();
            true
        })?;
        let Some(Record::Letter(letter)) = found else {
            tracing::error!(id, "a dead letter cannot be read any more");
            return Ok(None);
        };
        Ok(Some(DeadLetter {
            id,
            backend: self.letters[&id].backend.clone(),
            event: letter.event,
            error: letter.error,
            attempts: letter.attempts,
            first_try: letter.first_try,
            last_try: letter.last_try,
        }))
    }
}
