//! Dead letters: what will not be tried again by itself.
//!
//! A bounded list in memory, kept by the worker pool (for handlers) and by each
//! delivery whose events are not kept durably. It can be looked at and drained;
//! when it is full the oldest makes room and is counted.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;

use crate::event::Event;
use crate::pattern::Pattern;

/// How many dead letters are kept.
const CAPACITY: usize = 1000;

/// How many bytes of events they keep in memory, at most.
const CAPACITY_BYTES: usize = 16 << 20;

/// An event that was given up, and why.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// Names this letter among those of a journal, or of this process; later ones
    /// are higher.
    pub id: u64,
    /// Which backend did not take it.
    pub backend: Arc<str>,
    /// The event.
    pub event: Event,
    /// The error of the last try.
    pub error: String,
    /// How many tries there were.
    pub attempts: u32,
    /// When it was first tried.
    pub first_try: Timestamp,
    /// When it was last tried, after which it was given up.
    pub last_try: Timestamp,
}

/// Which dead letters are meant: those that fit all that is given.
#[derive(Clone, Debug, Default)]
pub struct DeadFilter {
    /// One of these; empty for any.
    pub ids: Vec<u64>,
    /// Those of this backend.
    pub backend: Option<String>,
    /// Those with events of such a type.
    pub event_type: Option<Pattern>,
    /// Those that were last tried before.
    pub before: Option<Timestamp>,
}

impl DeadFilter {
    pub(crate) fn fits(&self, id: u64, backend: &str, event_type: &str, last: Timestamp) -> bool {
        (self.ids.is_empty() || self.ids.contains(&id))
            && self.backend.as_ref().is_none_or(|own| own == backend)
            && self
                .event_type
                .as_ref()
                .is_none_or(|pattern| pattern.matches(event_type))
            && self.before.is_none_or(|before| last < before)
    }
}

/// Some of the dead letters that fit a filter.
#[derive(Clone, Debug, Default)]
pub struct DeadPage {
    /// Oldest first.
    pub letters: Vec<DeadLetter>,
    /// How many fit, on this page or not.
    pub total: u64,
    /// The id after which the next page begins; none if this is the last.
    pub next: Option<u64>,
}

/// The dead letters of one backend, the oldest first.
#[derive(Debug)]
pub struct DeadLetters {
    backend: Arc<str>,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    letters: VecDeque<DeadLetter>,
    bytes: usize,
    evicted: u64,
}

/// The id of the next, in whatever list of this process.
static NEXT_ID: AtomicU64 = AtomicU64::new(1);

impl DeadLetters {
    pub(crate) fn new(backend: &str) -> DeadLetters {
        DeadLetters {
            backend: backend.into(),
            kept: Mutex::new(Kept {
                letters: VecDeque::new(),
                bytes: 0,
                evicted: 0,
            }),
        }
    }

    /// Copies of the dead letters kept now.
    pub fn list(&self) -> Vec<DeadLetter> {
        self.peek(usize::MAX)
    }

    /// Copies of the oldest `n`.
    pub fn peek(&self, n: usize) -> Vec<DeadLetter> {
        self.kept().letters.iter().take(n).cloned().collect()
    }

    /// How many are kept now.
    pub fn len(&self) -> usize {
        self.kept().letters.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A copy of the one of that id, if it is there.
    pub fn get(&self, id: u64) -> Option<DeadLetter> {
        let kept = self.kept();
        kept.letters.get(kept.position(id)?).cloned()
    }

    /// Takes the one of that id out, if it is there.
    pub fn take(&self, id: u64) -> Option<DeadLetter> {
        let mut kept = self.kept();
        let at = kept.position(id)?;
        let letter = kept.letters.remove(at)?;
        kept.bytes -= letter.event.weight();
        Some(letter)
    }

    /// Takes all dead letters out.
    pub fn drain(&self) -> Vec<DeadLetter> {
        let mut kept = self.kept();
        kept.bytes = 0;
        kept.letters.drain(..).collect()
    }

    /// How many had to make room for later ones since the start.
    pub fn evicted(&self) -> u64 {
        self.kept().evicted
    }

    /// Adds one; `tries` says how many there were, and when the first and the
    /// last of them began.
    pub(crate) fn push(&self, event: Event, error: String, tries: Tries) {
        let mut kept = self.kept();
        kept.bytes += event.weight();
        while kept.letters.len() == CAPACITY || kept.bytes > CAPACITY_BYTES {
            // The last one stays, however large it is.
            let Some(oldest) = kept.letters.pop_front() else {
                break;
            };
            kept.bytes -= oldest.event.weight();
            kept.evicted += 1;
        }
        // Taken under the lock, so that the list is in the order of the ids.
        let id = NEXT_ID.fetch_add(1, Ordering::Relaxed);
        kept.letters.push_back(DeadLetter {
            id,
            backend: self.backend.clone(),
            event,
            error,
            attempts: tries.count,
            first_try: tries.first,
            last_try: tries.last,
        });
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Nothing under this lock can leave the list half changed.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often an event was tried, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tries {
    pub(crate) count: u32,
    pub(crate) first: Timestamp,
    pub(crate) last: Timestamp,
}

impl Kept {
    fn position(&self, id: u64) -> Option<usize> {
        self.letters
            .binary_search_by_key(&id, |letter| letter.id)
            .ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(dead: &DeadLetters, event: Event) {
        let now = Timestamp::now();
        let tries = Tries {
            count: 1,
            first: now,
            last: now,
        };
        dead.push(event, "no".into(), tries);
    }

    #[test]
    fn a_full_list_evicts_the_oldest_and_counts_it() {
        let dead = DeadLetters::new("test");
        for n in 0..CAPACITY + 2 {
            push(&dead, Event::new(format!("t{n}"), "").unwrap());
        }
        assert_eq!(dead.evicted(), 2);
        assert_eq!(dead.peek(3).len(), 3);
        assert_eq!(dead.peek(1)[0].event.event_type(), "t2");
        assert_eq!(dead.len(), CAPACITY);
        let drained = dead.drain();
        assert_eq!(drained.len(), CAPACITY);
        assert_eq!(drained[0].event.event_type(), "t2");
        assert!(dead.is_empty() && dead.list().is_empty());
    }

    #[test]
    fn one_letter_is_taken_by_its_id_and_only_once() {
        let dead = DeadLetters::new("test");
        for n in 0..5 {
            push(&dead, Event::new(format!("t{n}"), "").unwrap());
        }
        let id = dead.list()[2].id;
        let letter = dead.take(id).unwrap();
        assert_eq!((letter.id, letter.event.event_type()), (id, "t2"));
        assert_eq!(&*letter.backend, "test");
        assert!(dead.take(id).is_none());
        assert_eq!(dead.len(), 4);
        dead.drain();
        push(&dead, Event::new("late", "").unwrap());
        assert!(dead.list()[0].id > id + 2, "an id is never used twice");
    }

    #[test]
    fn the_list_is_bounded_in_bytes_too_but_keeps_the_last() {
        let dead = DeadLetters::new("test");
        for size in [
            CAPACITY_BYTES / 2,
            CAPACITY_BYTES / 3,
            CAPACITY_BYTES / 3,
            CAPACITY_BYTES * 2,
        ] {
            push(&dead, Event::new("t", vec![0; size]).unwrap());
            assert!(dead.len() <= 2);
        }
        assert_eq!((dead.len(), dead.evicted()), (1, 3));
    }
}
