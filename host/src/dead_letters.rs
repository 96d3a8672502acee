//! Dead letters: what will not be tried again by itself.
//!
//! A bounded list in memory, kept by the worker pool (for handlers) and by each
//! delivery (for events). It can be looked at and drained; when it is full the
//! oldest makes room and is counted.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use jiff::Timestamp;

use crate::event::Event;

/// How many dead letters are kept.
const CAPACITY: usize = 1000;

/// How many bytes of events they keep in memory, at most.
const CAPACITY_BYTES: usize = 16 << 20;

/// An event that was given up, and why.
#[derive(Clone, Debug)]
pub struct DeadLetter {
    /// The event.
    pub event: Event,
    /// The error of the last try.
    pub error: String,
    /// How many tries there were.
    pub attempts: u32,
    /// When it was given up.
    pub time: Timestamp,
}

/// The dead letters of one backend, the oldest first.
#[derive(Debug, Default)]
pub struct DeadLetters(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    letters: VecDeque<DeadLetter>,
    bytes: usize,
    evicted: u64,
}

impl DeadLetters {
    /// Copies of the dead letters kept now.
    pub fn list(&self) -> Vec<DeadLetter> {
        self.kept().letters.iter().cloned().collect()
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

    pub(crate) fn push(&self, event: Event, error: String, attempts: u32) {
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
        kept.letters.push_back(DeadLetter {
            event,
            error,
            attempts,
            time: Timestamp::now(),
        });
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Kept> {
        // Nothing under this lock can leave the list half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_evicts_the_oldest_and_counts_it() {
        let dead = DeadLetters::default();
        for n in 0..CAPACITY + 2 {
            dead.push(Event::new(format!("t{n}"), "").unwrap(), "no".into(), 1);
        }
        assert_eq!(dead.evicted(), 2);
        let drained = dead.drain();
        assert_eq!(drained.len(), CAPACITY);
        assert_eq!(drained[0].event.event_type(), "t2");
        assert!(dead.list().is_empty());
    }

    #[test]
    fn the_list_is_bounded_in_bytes_too_but_keeps_the_last() {
        let dead = DeadLetters::default();
        for size in [
            CAPACITY_BYTES / 2,
            CAPACITY_BYTES / 3,
            CAPACITY_BYTES / 3,
            CAPACITY_BYTES * 2,
        ] {
            dead.push(Event::new("t", vec![0; size]).unwrap(), "no".into(), 1);
            assert!(dead.list().len() <= 2);
        }
        assert_eq!((dead.list().len(), dead.evicted()), (1, 3));
    }
}
