//! One thread writes the journal: what comes while it syncs is its next group.
//!
//! Group commit makes the cost of a sync the cost of a group. Nobody waits for a
//! group to fill: the first emit is written at once, and those that come in the
//! meantime together after it.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::backends::Backend;
use super::log::Log;
use super::record::{self, Record, Targets};
use super::upkeep::Room;
use super::{Inner, Trouble, lock};
use crate::event::Event;

/// How large a group may grow before the next is begun.
const GROUP_BYTES: usize = 8 << 20;

/// How often the journal is looked after: positions synced, old segments removed,
/// a disk that failed tried again.
const UPKEEP: Duration = Duration::from_secs(1);

/// How often while it is nearly full, or when it has grown by half a segment.
const TIGHT_UPKEEP: Duration = Duration::from_millis(50);

/// What waits to be written.
#[derive(Default)]
pub(super) struct Intake {
    groups: VecDeque<Waiting>,
    /// About how many bytes that will be.
    pub(super) bytes: u64,
    pub(super) closed: bool,
}

struct Waiting {
    records: Vec<(Event, Targets)>,
    bytes: usize,
    group: Arc<Group>,
}

/// What is written with one sync.
#[derive(Default)]
pub(super) struct Group {
    result: OnceLock<Result<(), String>>,
    done: Notify,
}

impl Group {
    /// Waits until the group is durable, or could not be made so.
    pub(super) async fn written(&self) -> Result<(), String> {
        loop {
            let done = self.done.notified();
            if let Some(result) = self.result.get() {
                return result.clone();
            }
            done.await;
        }
    }

    fn finish(&self, result: Result<(), String>) {
        let _ = self.result.set(result);
        self.done.notify_waiters();
    }
}

impl Intake {
    /// Adds events to the group that is written next; all of them to one.
    pub(super) fn push(&mut self, records: Vec<(Event, Targets)>, bytes: usize) -> Arc<Group> {
        if self
            .groups
            .back()
            .is_none_or(|last| last.bytes + bytes > GROUP_BYTES)
        {
            self.groups.push_back(Waiting {
                records: Vec::new(),
                bytes: 0,
                group: Arc::default(),
            });
        }
        let last = self.groups.back_mut().expect("one was pushed");
        last.records.extend(records);
        last.bytes += bytes;
        self.bytes += bytes as u64;
        last.group.clone()
    }
}

/// Runs until the intake is closed and empty.
pub(super) fn run(inner: &Inner, mut log: Log) {
    let mut upkeep = Instant::now() + UPKEEP;
    // When it is looked after again while it is nearly full.
    let (mut tight, mut grown) = (Instant::now(), 0);
    while let Some(waiting) = next(inner, upkeep) {
        if let Some(waiting) = waiting {
            let group = waiting.group.clone();
            let bytes = waiting.bytes as u64;
            let result = commit(inner, &mut log, waiting);
            lock(&inner.intake).bytes -= bytes;
            group.finish(result);
            if log.size() > inner.tight() && (log.size() > grown || Instant::now() >= tight) {
                inner.look_after(&mut log, Room::Tight);
                tight = Instant::now() + TIGHT_UPKEEP;
                grown = log.size() + inner.segment_bytes / 2;
            }
        }
        if Instant::now() >= upkeep {
            inner.look_after(&mut log, Room::Enough);
            upkeep = Instant::now() + UPKEEP;
        }
    }
    inner.look_after(&mut log, Room::Enough);
}

/// Waits for a group, but not beyond `until`; `None` when there will be none.
fn next(inner: &Inner, until: Instant) -> Option<Option<Waiting>> {
    let mut intake = lock(&inner.intake);
    loop {
        if let Some(waiting) = intake.groups.pop_front() {
            return Some(Some(waiting));
        }
        if intake.closed {
            return None;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Some(None);
        }
        let waited = inner.arrived.wait_timeout(intake, left);
        intake = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

fn commit(inner: &Inner, log: &mut Log, waiting: Waiting) -> Result<(), String> {
    let now = Timestamp::now();
    for (event, targets) in &waiting.records {
        log.push(|to| record::write(to, event, targets, now));
    }
    if let Err(error) = log.commit() {
        return Err(inner.cannot_write(Trouble::Log, &error));
    }
    inner.note_failure(Trouble::Log, None);
    inner.groups.fetch_add(1, Ordering::Relaxed);
    inner.size.store(log.size(), Ordering::Relaxed);
    publish(inner, waiting.records, now);
    Ok(())
}

/// Counts what is durable, and shows it to the feeds.
fn publish(inner: &Inner, records: Vec<(Event, Targets)>, accepted: Timestamp) {
    let backends = inner.by_id.load();
    let mut recent = lock(&inner.recent);
    // Nearly always all go to the same backends.
    let mut run: (Option<Targets>, u64) = (None, 0);
    for (event, targets) in records {
        match &run.0 {
            Some(same) if Arc::ptr_eq(same, &targets) => run.1 += 1,
            _ => {
                count(&backends, &run);
                run = (Some(targets.clone()), 1);
            }
        }
        recent.push(Record {
            event,
            targets,
            accepted,
        });
    }
    count(&backends, &run);
    let head = recent.head();
    drop(recent);
    inner.head.send_replace(head);
}

fn count(backends: &[Option<Arc<Backend>>], (targets, events): &(Option<Targets>, u64)) {
    for target in targets.iter().flat_map(|targets| targets.iter()) {
        if let Some(Some(backend)) = backends.get(usize::from(target.0)) {
            backend.books.accept(*events);
        }
    }
}
