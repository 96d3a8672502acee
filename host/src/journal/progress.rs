//! How far one backend has come: what it was handed and has not settled, where it
//! looks next, and what is kept of that on disk.

use std::collections::BTreeSet;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use super::backends::Backend;
use super::disk::DiskFile;
use super::lock;
use super::position::{History, Position, PositionFile};
use super::recent::Recent;

/// How far a backend has come, and the file it is kept in.
pub(super) struct Progress {
    /// The next event to look at.
    pub(super) cursor: u64,
    /// What was handed out and is not settled.
    open: BTreeSet<u64>,
    /// One past the highest that is settled.
    top: u64,
    /// Below this, what was not settled when it began is in `again`.
    known: u64,
    /// Not settled and not handed out yet since it began, below `known`.
    again: BTreeSet<u64>,
    /// Settled from `known` on when it began: dead letters.
    beyond: BTreeSet<u64>,
    pub(super) history: Option<History>,
    file: PositionFile,
    /// Written since it was last synced.
    unsynced: bool,
    /// What was written last: `settled`, up to where events are counted, retries.
    written: (u64, u64, u64),
    /// Why it cannot be written.
    failure: Option<io::ErrorKind>,
}

impl Progress {
    pub(super) fn from(position: Position, file: PositionFile) -> Progress {
        let again: BTreeSet<u64> = position.open.into_iter().collect();
        let known = position.until.max(position.settled);
        Progress {
            cursor: again.first().map_or(known, |first| *first),
            open: BTreeSet::new(),
            top: known,
            known,
            again,
            beyond: position.beyond.into_iter().collect(),
            history: position.history,
            written: (position.settled, position.counted, position.counts.retries),
            file,
            unsynced: true,
            failure: None,
        }
    }

    /// Its first event that is not settled is this one or a later one.
    pub(super) fn settled(&self) -> u64 {
        let first = self.open.first().or(self.again.first());
        first.map_or(self.cursor.max(self.known), |first| *first)
    }

    /// Up to where its events are counted as accepted.
    pub(super) fn counted(&self) -> u64 {
        self.written.1
    }

    /// The first number of which it knows nothing.
    pub(super) fn known_end(&self) -> u64 {
        let beyond = self.beyond.last().map_or(0, |seq| seq + 1);
        let ends = [self.known, self.written.1, self.settled()];
        ends.into_iter().fold(beyond, u64::max)
    }

    /// Whether it has not come to the events that were accepted with it in mind.
    pub(super) fn in_history(&self) -> bool {
        let history = self.history.as_ref();
        history.is_some_and(|history| history.until.is_none_or(|until| self.cursor < until))
    }

    /// Has the history end at `head`, unless an event for it was met before: those
    /// that follow name it.
    pub(super) fn end_history(&mut self, head: u64) {
        if let Some(history) = &mut self.history {
            history.until.get_or_insert(head);
        }
    }

    /// Whether an event from before it began was settled then.
    pub(super) fn was_settled(&self, seq: u64) -> bool {
        match seq < self.known {
            true => !self.again.contains(&seq),
            false => self.beyond.contains(&seq),
        }
    }

    /// Whether everything that was handed out is settled.
    pub(super) fn is_at_rest(&self) -> bool {
        self.open.is_empty()
    }

    /// Notes what is handed out, and that everything below the cursor was looked
    /// at: what should have been there and was not is unreadable.
    pub(super) fn hand_out(&mut self, seqs: impl Iterator<Item = u64>) {
        for seq in seqs {
            self.again.remove(&seq);
            self.open.insert(seq);
        }
        while self.again.first().is_some_and(|seq| *seq < self.cursor) {
            self.again.pop_first();
        }
    }

    /// Marks events as settled; returns how many were not before.
    pub(super) fn settle(&mut self, seqs: &[u64]) -> u64 {
        let mut settled = 0;
        for seq in seqs {
            if self.open.remove(seq) {
                self.top = self.top.max(seq + 1);
                settled += 1;
            }
        }
        settled
    }

    /// Marks dead letters as settled, which nothing was handed out of yet; returns
    /// those that were not before.
    pub(super) fn settle_dead(&mut self, seqs: &[u64]) -> Vec<u64> {
        let mut unknown = seqs.to_vec();
        unknown.retain(|seq| match *seq < self.known {
            true => self.again.remove(seq),
            false => *seq >= self.cursor && self.beyond.insert(*seq),
        });
        unknown
    }

    /// Begins again with what is not settled, as after a restart.
    pub(super) fn rewind(&mut self) {
        self.known = self.known.max(self.top);
        self.again.append(&mut self.open);
        self.again.split_off(&self.known);
        self.cursor = self.settled_again();
    }

    fn settled_again(&self) -> u64 {
        self.again.first().map_or(self.known, |first| *first)
    }

    /// Passes everything below `head`.
    pub(super) fn pass(&mut self, head: u64) {
        self.open.clear();
        self.again.clear();
        self.beyond.clear();
        self.cursor = head;
        self.known = head;
        self.top = head;
    }

    /// Writes the position, with the books as they are.
    pub(super) fn write(&mut self, backend: &Backend, recent: &Mutex<Recent>) {
        // Under this lock, what is accepted is what is below the head.
        let (head, counts) = {
            let recent = lock(recent);
            (recent.head(), backend.books.counts())
        };
        let settled = self.settled();
        let until = self.top.max(settled);
        let open = self.open.range(..until).chain(&self.again);
        let position = Position {
            id: backend.id,
            name: backend.name.to_string(),
            settled,
            until,
            open: open.copied().collect(),
            beyond: self.beyond.range(until..).copied().collect(),
            met_damage: backend.met_damage.load(Ordering::Relaxed),
            counted: head,
            counts,
            history: self.history.clone(),
        };
        match self.file.write(&position) {
            Ok(()) => {
                self.unsynced = true;
                self.written = (settled, head, counts.retries);
                self.failure = None;
            }
            Err(error) => {
                if self.failure.is_none() {
                    tracing::error!(backend = &*backend.name, %error,
                        "how far the backend has come cannot be written; \
                         after a crash, what it takes from now on would be delivered again");
                }
                self.failure = Some(error.kind());
            }
        }
    }

    /// Whether there is something to write that no settlement will.
    pub(super) fn is_behind(&self, backend: &Backend, head: u64) -> bool {
        self.written != (self.settled(), head, backend.books.counts().retries)
    }

    /// The file, if it was written since it was last synced. What comes of that is
    /// to be told.
    ///
    /// # Errors
    ///
    /// If it could not be written.
    pub(super) fn begin_sync(&mut self) -> io::Result<Option<Arc<dyn DiskFile>>> {
        if let Some(kind) = self.failure {
            return Err(kind.into());
        }
        Ok(std::mem::take(&mut self.unsynced).then(|| self.file.begin_sync()))
    }

    /// Tells how a sync ended. After one that failed, nothing is known of what was
    /// written, and it is written again.
    pub(super) fn end_sync(&mut self, is_durable: bool) {
        self.file.end_sync(is_durable);
        if !is_durable {
            self.unsynced = true;
            self.written.0 = 0;
        }
    }
}
