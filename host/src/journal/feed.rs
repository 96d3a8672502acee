//! What one backend gets out of a journal.
//!
//! A feed walks over the log and hands out what is its backend's: from memory
//! where the newest events are, else from disk. What is settled moves the
//! backend's position, which is written at once and synced now and then.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::OwnedSemaphorePermit;

use super::backends::{Backend, BackendId};
use super::log::LogReader;
use super::progress::Progress;
use super::recent::Recent;
use super::record::{self, Record, Targets};
use super::{Journal, Trouble, lock};
use crate::backend::PublishError;
use crate::delivery::{Books, Burial, DropReason, Entry, Feed, Outcome};
use crate::event::Event;

/// How much is read from disk at once.
const CHUNK: usize = 1 << 20;

/// How many events are looked at under one lock.
const SCAN: usize = 4096;

/// How long to wait after the disk could not be read.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// The feed of one backend.
pub(super) struct JournalFeed {
    journal: Journal,
    backend: Arc<Backend>,
    targets: Targets,
    reader: Arc<Mutex<LogReader>>,
    /// The right to move the backend's position, once this feed has it.
    permit: tokio::sync::Mutex<Option<OwnedSemaphorePermit>>,
}

impl JournalFeed {
    pub(super) fn new(journal: Journal, backend: Arc<Backend>) -> JournalFeed {
        JournalFeed {
            targets: [backend.id].into(),
            reader: Arc::new(Mutex::new(journal.inner().reader())),
            journal,
            backend,
            permit: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until the feed before this one has let go of the backend.
    async fn begin(&self) {
        let mut permit = self.permit.lock().await;
        if permit.is_none() {
            let free = self.backend.in_use.clone().acquire_owned().await;
            *permit = Some(free.expect("it is never closed"));
            // Those of the feed before, which may have been cut off.
            let _buried = self.backend.burying.write().await;
            self.backend.progress().rewind();
            self.journal.inner().settle_dead(&self.backend);
        }
    }

    /// Hands out what is in memory. `Err` says from where on, and up to where, the
    /// disk has to be read.
    fn read_memory(&self, events: usize, bytes: usize) -> Result<Vec<Entry>, (u64, u64)> {
        let mut progress = self.backend.progress();
        let recent = lock(&self.journal.inner().recent);
        if progress.cursor < recent.first() {
            return Err((progress.cursor, recent.first()));
        }
        let mut out = Handout::new(events, bytes);
        for (seq, record) in recent.from(progress.cursor).take(SCAN) {
            if out.is_full() {
                break;
            }
            progress.cursor = seq + 1;
            if is_for(&self.backend, &mut progress, seq, record) {
                out.push(seq, record.clone());
            }
        }
        self.hand_out(&mut progress, &recent, out)
    }

    fn hand_out(
        &self,
        progress: &mut Progress,
        recent: &Recent,
        out: Handout,
    ) -> Result<Vec<Entry>, (u64, u64)> {
        let seqs = out.entries.iter().map(|entry| entry.seq);
        progress.hand_out(seqs);
        self.write_off(progress, recent);
        Ok(out.entries)
    }

    /// Reads what lies between from disk, and hands out what is for the backend.
    async fn read_disk(
        &self,
        (from, until): (u64, u64),
        events: usize,
        bytes: usize,
    ) -> Vec<Entry> {
        let id = self.backend.id;
        // Below is only what was settled everywhere.
        let oldest = self.journal.inner().oldest.load(Ordering::Relaxed);
        let from = from.max(oldest).min(until);
        let everything = self.backend.progress().history.is_some();
        let reader = self.reader.clone();
        let read = tokio::task::spawn_blocking(move || {
            read(
                &mut lock(&reader),
                (from, until),
                events,
                bytes.min(CHUNK),
                id,
                everything,
            )
        });
        let stretch = match read.await {
            Ok(Ok(stretch)) => {
                self.journal.inner().note_failure(Trouble::Reading, None);
                stretch
            }
            Ok(Err(error)) => {
                self.journal.inner().cannot_read(&error);
                tokio::time::sleep(READ_AGAIN).await;
                return Vec::new();
            }
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        };
        if stretch.is_damaged() {
            self.backend.note_damage();
            self.journal
                .inner()
                .note_damage(&stretch.damage, &stretch.malformed);
        }
        let mut progress = self.backend.progress();
        let recent = lock(&self.journal.inner().recent);
        let mut out = Handout::new(usize::MAX, usize::MAX);
        for (seq, record) in stretch.records {
            if is_for(&self.backend, &mut progress, seq, &record) {
                out.push(seq, record);
            }
        }
        progress.cursor = stretch.next;
        if progress.cursor == from {
            // There is nothing at all where something should be: its files are gone.
            progress.cursor = until;
            self.backend.note_damage();
        }
        self.hand_out(&mut progress, &recent, out)
            .unwrap_or_default()
    }

    /// Once everything else is settled, what is left in the books is what could not
    /// be read.
    fn write_off(&self, progress: &mut Progress, recent: &Recent) {
        if !self.backend.met_damage.load(Ordering::Relaxed)
            || progress.cursor < recent.head()
            || !progress.is_at_rest()
        {
            return;
        }
        let unreadable = self.backend.books.counts().pending();
        self.backend.books.drop_(DropReason::Unreadable, unreadable);
        self.backend.met_damage.store(false, Ordering::Relaxed);
    }
}

#[async_trait]
impl Feed for JournalFeed {
    async fn append(&self, events: &[Event]) -> Result<(), PublishError> {
        let to = |event: &Event| (event.clone(), self.targets.clone());
        self.journal.append(events.iter().map(to).collect()).await
    }

    async fn next(&self, events: usize, bytes: usize) -> Vec<Entry> {
        self.begin().await;
        let mut head = self.journal.inner().head.subscribe();
        loop {
            let end = *head.borrow_and_update();
            let found = match self.read_memory(events, bytes) {
                Ok(found) => found,
                Err(stretch) => self.read_disk(stretch, events, bytes).await,
            };
            if !found.is_empty() {
                return found;
            }
            if self.backend.progress().cursor < end {
                tokio::task::yield_now().await;
            } else if head.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    fn settle(&self, seqs: &[u64], outcome: Outcome) {
        let mut progress = self.backend.progress();
        let settled = progress.settle(seqs);
        match outcome {
            Outcome::Delivered => self.backend.books.deliver(settled),
            Outcome::Dead => self.backend.books.bury(settled),
        }
        let recent = &self.journal.inner().recent;
        self.write_off(&mut progress, &lock(recent));
        progress.write(&self.backend, recent);
    }

    async fn bury(&self, letters: &[Burial]) -> Result<(), String> {
        self.journal.bury(&self.backend, letters).await
    }

    async fn release(&self) {
        let mut permit = self.permit.lock().await;
        if permit.is_some() {
            let inner = self.journal.inner();
            let mut progress = self.backend.progress();
            progress.rewind();
            // What is accepted while it is away is not for it.
            progress.end_history(lock(&inner.recent).head());
        }
        *permit = None;
    }

    fn books(&self) -> Arc<Books> {
        self.backend.books.clone()
    }
}

/// Whether the event is the backend's, and not settled already.
fn is_for(backend: &Backend, progress: &mut Progress, seq: u64, record: &Record) -> bool {
    let targeted = record.targets.contains(&backend.id);
    if let Some(history) = &mut progress.history {
        if targeted {
            history.until.get_or_insert(seq);
        } else if history.until.is_none_or(|until| seq < until)
            && matches(&history.events, &record.event)
        {
            if seq >= history.counted {
                history.counted = seq + 1;
                backend.books.accept(1);
            }
            return !progress.was_settled(seq);
        }
    }
    targeted && !progress.was_settled(seq)
}

fn matches(patterns: &[crate::pattern::Pattern], event: &Event) -> bool {
    let matches = |pattern: &crate::pattern::Pattern| pattern.matches(event.event_type());
    patterns.iter().any(matches)
}

/// What is about to be handed out.
struct Handout {
    entries: Vec<Entry>,
    events: usize,
    bytes: usize,
}

impl Handout {
    fn new(events: usize, bytes: usize) -> Handout {
        Handout {
            entries: Vec::new(),
            events,
            bytes,
        }
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= self.events || self.bytes == 0
    }

    fn push(&mut self, seq: u64, record: Record) {
        self.bytes = self.bytes.saturating_sub(record.event.weight());
        self.entries.push(Entry {
            seq,
            event: record.event,
            accepted: record.accepted,
        });
    }
}

/// What was read from disk.
struct Stretch {
    records: Vec<(u64, Record)>,
    next: u64,
    damage: Vec<super::log::Damage>,
    /// The numbers of records that are whole and yet no events.
    malformed: Vec<u64>,
}

impl Stretch {
    fn is_damaged(&self) -> bool {
        !self.malformed.is_empty() || self.damage.iter().any(|damage| !damage.lost.is_empty())
    }
}

fn read(
    reader: &mut LogReader,
    (from, until): (u64, u64),
    events: usize,
    bytes: usize,
    id: BackendId,
    everything: bool,
) -> std::io::Result<Stretch> {
    let (mut records, mut malformed) = (Vec::new(), Vec::new());
    let chunk = reader.read(from, until, bytes, &mut |seq, bytes| {
        // Whose a record is that cannot be read, nobody can tell.
        let record = match record::read_targets(bytes) {
            Ok(ids) if !everything && !ids.contains(&id) => Ok(None),
            Ok(_) => record::read(bytes).map(Some),
            Err(error) => Err(error),
        };
        match record {
            Ok(Some(record)) => records.push((seq, record)),
            Ok(None) => {}
            Err(error) => {
                malformed.push(seq);
                tracing::error!(seq, %error, "a record of the journal is not an event");
            }
        }
        records.len() < events
    })?;
    Ok(Stretch {
        records,
        next: chunk.next,
        damage: chunk.damage,
        malformed,
    })
}
