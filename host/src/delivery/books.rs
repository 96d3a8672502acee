//! The books of a delivery: how many events came in, and where they went.
//!
//! Every event that was accepted is delivered, dead, dropped, or pending, at
//! every moment. Pending is not kept but is what remains; `accepted` is
//! written before and read after the others, so that it is never behind them.

use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

/// The counters of one backend, which may go on from an earlier run.
#[derive(Debug, Default)]
pub(crate) struct Books {
    accepted: AtomicU64,
    delivered: AtomicU64,
    dead: AtomicU64,
    /// By [`DropReason`].
    dropped: [AtomicU64; 3],
    retries: AtomicU64,
}

/// Why an event was neither delivered nor became a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DropReason {
    /// It was left over when its delivery was closed.
    Closed,
    /// What was kept of it cannot be read any more.
    Unreadable,
    /// Its backend was forgotten, with all that waited for it.
    Forgotten,
}

/// What stands in [`Books`], to be kept over a restart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct DeliveryCounts {
    pub(crate) accepted: u64,
    pub(crate) delivered: u64,
    pub(crate) dead: u64,
    pub(crate) dropped_closed: u64,
    pub(crate) dropped_unreadable: u64,
    pub(crate) dropped_forgotten: u64,
    pub(crate) retries: u64,
}

impl Books {
    /// Books that go on from `counts`.
    pub(crate) fn restore(counts: &DeliveryCounts) -> Books {
        Books {
            accepted: counts.accepted.into(),
            delivered: counts.delivered.into(),
            dead: counts.dead.into(),
            dropped: [
                counts.dropped_closed.into(),
                counts.dropped_unreadable.into(),
                counts.dropped_forgotten.into(),
            ],
            retries: counts.retries.into(),
        }
    }

    pub(crate) fn counts(&self) -> DeliveryCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::SeqCst);
        let dropped = |reason: DropReason| read(&self.dropped[reason as usize]);
        // `accepted` is read last: it is never behind the others.
        DeliveryCounts {
            delivered: read(&self.delivered),
            dead: read(&self.dead),
            dropped_closed: dropped(DropReason::Closed),
            dropped_unreadable: dropped(DropReason::Unreadable),
            dropped_forgotten: dropped(DropReason::Forgotten),
            retries: read(&self.retries),
            accepted: read(&self.accepted),
        }
    }

    /// Counts `n` events as taken, before anybody can settle them.
    pub(crate) fn accept(&self, n: u64) {
        self.accepted.fetch_add(n, Ordering::SeqCst);
    }

    pub(crate) fn deliver(&self, n: u64) {
        self.delivered.fetch_add(n, Ordering::SeqCst);
    }

    pub(crate) fn bury(&self, n: u64) {
        self.dead.fetch_add(n, Ordering::SeqCst);
    }

    pub(crate) fn drop_(&self, reason: DropReason, n: u64) {
        self.dropped[reason as usize].fetch_add(n, Ordering::SeqCst);
    }

    /// Counts `n` tries after the first.
    pub(crate) fn retry(&self, n: u64) {
        self.retries.fetch_add(n, Ordering::SeqCst);
    }
}

impl DeliveryCounts {
    /// The counts in the order they are written in files: new ones come last.
    pub(crate) fn to_array(self) -> [u64; 7] {
        [
            self.accepted,
            self.delivered,
            self.dead,
            self.dropped_closed,
            self.dropped_unreadable,
            self.dropped_forgotten,
            self.retries,
        ]
    }

    pub(crate) fn from_array(counts: [u64; 7]) -> DeliveryCounts {
        let [
            accepted,
            delivered,
            dead,
            dropped_closed,
            dropped_unreadable,
            dropped_forgotten,
            retries,
        ] = counts;
        DeliveryCounts {
            accepted,
            delivered,
            dead,
            dropped_closed,
            dropped_unreadable,
            dropped_forgotten,
            retries,
        }
    }

    /// What was accepted and is none of the others.
    pub(crate) fn pending(&self) -> u64 {
        self.accepted.saturating_sub(self.settled())
    }

    /// What is settled and was never counted as accepted.
    pub(crate) fn uncounted(&self) -> u64 {
        self.settled().saturating_sub(self.accepted)
    }

    /// What is delivered, dead or dropped.
    pub(crate) fn settled(&self) -> u64 {
        let dropped = self.dropped_closed + self.dropped_unreadable + self.dropped_forgotten;
        self.delivered + self.dead + dropped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_settled_is_pending_and_books_go_on_where_they_ended() {
        let books = Books::default();
        books.accept(100);
        books.deliver(50);
        books.bury(20);
        books.drop_(DropReason::Closed, 4);
        books.drop_(DropReason::Unreadable, 3);
        books.drop_(DropReason::Forgotten, 2);
        books.retry(7);
        let counts = books.counts();
        assert_eq!(counts.pending(), 21);
        let written = serde_json::to_string(&counts).unwrap();
        let restored = Books::restore(&serde_json::from_str(&written).unwrap());
        assert_eq!(restored.counts(), counts);
        restored.drop_(DropReason::Forgotten, 21);
        assert_eq!(restored.counts().pending(), 0);
        assert_eq!(restored.counts().dropped_forgotten, 23);
    }
}
