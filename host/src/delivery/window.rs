//! The bounded window of events that a delivery has in memory.
//!
//! Bounded twice, by events and by bytes, because a window of large events is
//! unbounded memory by another name. An event has its place until it is
//! settled, not until it is taken: one that is being retried still occupies it.
//! Who puts events in has room reserved for them first (`reservation`), or asks
//! how much there is (`pump`).
//!
//! Workers are woken one at a time: who takes something and leaves something
//! wakes the next. So each change of what can be taken is followed by a look,
//! and each look that takes something by another.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::item::{Batch, Item, Key, Keys, Mode};

/// How far behind the oldest event a worker looks for one whose key is free.
const SCAN: usize = 1024;

pub(super) struct Window {
    /// Named in errors.
    pub(super) backend: Arc<str>,
    pub(super) capacity: usize,
    pub(super) capacity_bytes: usize,
    keys: Keys,
    state: Mutex<State>,
    /// Told when there is something to take, or the window was closed.
    ready: Notify,
    /// Told when there may be room.
    room: Notify,
    /// Told when the window begins to close, and when it is closed.
    closing: Notify,
    /// Told when events were settled.
    settled: Notify,
}

#[derive(Default)]
pub(super) struct State {
    waiting: VecDeque<Item>,
    /// Events that failed, by when they are to be offered again.
    aside: BTreeMap<(Instant, u64), Item>,
    /// Events that have a place: reserved, waiting, or taken and not settled.
    pub(super) occupied: usize,
    pub(super) occupied_bytes: usize,
    /// Reservations that are neither used nor dropped yet.
    pub(super) reserved: usize,
    /// Whether what is offered from outside is refused.
    closing: bool,
    /// Whether nothing comes any more, from a feed either.
    pub(super) closed: bool,
    /// How many batches are taken, by how they were.
    whole: usize,
    by_key: usize,
    any: usize,
    /// How many events of each key are in batches that were taken by key.
    keys: HashMap<Key, usize>,
    /// The number of the next event that comes without one.
    next: u64,
}

/// What a worker may take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) events: usize,
    pub(super) bytes: usize,
    pub(super) mode: Mode,
}

/// Events of a batch that are settled: their places are free.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) events: usize,
    pub(super) bytes: usize,
    pub(super) keys: Vec<Key>,
}

impl Settled {
    pub(super) fn add(&mut self, item: &Item) {
        self.events += 1;
        self.bytes += item.event.weight();
        self.keys.extend(item.about.key);
    }

    pub(super) fn append(&mut self, mut other: Settled) {
        self.events += other.events;
        self.bytes += other.bytes;
        self.keys.append(&mut other.keys);
    }
}

impl Window {
    pub(super) fn new(backend: &str, capacity: usize, capacity_bytes: usize) -> Window {
        Window {
            backend: backend.into(),
            capacity,
            capacity_bytes,
            keys: Keys::default(),
            state: Mutex::default(),
            ready: Notify::new(),
            room: Notify::new(),
            closing: Notify::new(),
            settled: Notify::new(),
        }
    }

    /// How many events are not taken.
    pub(super) fn len(&self) -> usize {
        let state = self.state();
        state.waiting.len() + state.aside.len()
    }

    pub(super) fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Whether it is closed, or will be when what was accepted is settled.
    pub(super) fn is_closing(&self) -> bool {
        let state = self.state();
        state.closing || state.closed
    }

    /// Waits for room, and says for how many events and bytes.
    pub(super) async fn room(&self) -> (usize, usize) {
        loop {
            {
                let state = self.state();
                let events = self.capacity.saturating_sub(state.occupied);
                let bytes = self.capacity_bytes.saturating_sub(state.occupied_bytes);
                if events > 0 && bytes > 0 {
                    return (events, bytes);
                }
            }
            self.room.notified().await;
        }
    }

    /// Puts events in, which may be a little more than there is room for.
    pub(super) fn fill(&self, items: impl IntoIterator<Item = Item>) {
        let mut state = self.state();
        for item in items {
            state.occupied += 1;
            state.occupied_bytes += item.event.weight();
            state.waiting.push_back(item);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Waits for events and takes the oldest that may be taken: as many, and as
    /// many bytes, as `limits` says, but one at least. Takes what is there
    /// without waiting for more. `None` when the window was closed and is empty,
    /// or `limits`, which is told whether it was closed, says `None`; it is
    /// asked again after each [`wake`](Self::wake).
    pub(super) async fn take(&self, limits: impl Fn(bool) -> Option<Limits>) -> Option<Batch> {
        loop {
            let due = {
                let mut state = self.state();
                let Some(limits) = limits(state.closed) else {
                    // What woke this one may have been meant for any.
                    self.ready.notify_one();
                    return None;
                };
                state.bring_back(limits.mode);
                if let Some(batch) = state.take(&self.keys, limits) {
                    if !state.waiting.is_empty() {
                        self.ready.notify_one();
                    }
                    return Some(batch);
                }
                if state.is_over() {
                    // The other workers wait for the same.
                    self.ready.notify_one();
                    return None;
                }
                state.aside.keys().next().map(|(due, _)| *due)
            };
            match due {
                None => self.ready.notified().await,
                Some(due) => {
                    // A batch that ends before then is as good a reason to look.
                    let _ = tokio::time::timeout_at(due, self.ready.notified()).await;
                }
            }
        }
    }

    /// Frees the places of events that are settled; `last` if the batch that was
    /// taken in that mode is through.
    pub(super) fn settle(&self, settled: Settled, last: Option<Mode>) {
        let mut state = self.state();
        state.occupied -= settled.events;
        state.occupied_bytes -= settled.bytes;
        state.free(&settled.keys);
        if let Some(mode) = last {
            *state.taken(mode) -= 1;
        }
        // Who took everything looks again by itself.
        let others_wait = last != Some(Mode::Whole) && !state.waiting.is_empty();
        drop(state);
        if others_wait {
            self.ready.notify_one();
        }
        self.room.notify_one();
        self.settled.notify_waiters();
    }

    /// Waits until `are_settled`, which is asked again after each settlement.
    pub(super) async fn until(&self, are_settled: impl Fn() -> bool) {
        loop {
            let mut settled = std::pin::pin!(self.settled.notified());
            settled.as_mut().enable();
            if are_settled() {
                return;
            }
            settled.await;
        }
    }

    /// Takes events back that are to be offered again at those times.
    pub(super) fn put_aside(&self, items: Vec<(Instant, Item)>) {
        let mut state = self.state();
        for (due, mut item) in items {
            if let Some(key) = item.about.key.take() {
                state.free(&[key]);
            }
            state.aside.insert((due, item.about.seq), item);
        }
        drop(state);
        self.ready.notify_one();
    }

    /// Has everyone who waits in [`take`](Self::take) look again.
    pub(super) fn wake(&self) {
        self.ready.notify_waiters();
        self.ready.notify_one();
    }

    /// Begins to close: what fails now is tried at once, for once.
    pub(super) fn begin_close(&self) {
        self.state().closing = true;
        self.closing.notify_waiters();
    }

    /// Takes no more reservations; what has one may still be pushed. What was put
    /// aside is not waited for.
    pub(super) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.bring_back_all();
        drop(state);
        self.ready.notify_one();
        self.closing.notify_waiters();
    }

    /// Waits until the window begins to close, or is closed; not if it was before.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Waits until the window is closed.
    pub(super) async fn closed(&self) {
        loop {
            let mut closing = std::pin::pin!(self.closing.notified());
            closing.as_mut().enable();
            if self.is_closed() {
                return;
            }
            closing.await;
        }
    }

    pub(super) fn wake_one(&self) {
        self.ready.notify_one();
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Adds events that have their places already.
    pub(super) fn push(&mut self, events: Vec<crate::event::Event>, now: jiff::Timestamp) {
        let mut next = self.next;
        self.waiting.extend(events.into_iter().map(|event| {
            next += 1;
            Item::new(event, next, now)
        }));
        self.next = next;
    }

    fn taken(&mut self, mode: Mode) -> &mut usize {
        match mode {
            Mode::Whole => &mut self.whole,
            Mode::ByKey => &mut self.by_key,
            Mode::Any => &mut self.any,
        }
    }

    /// Whether nothing waits and nothing can come.
    fn is_over(&self) -> bool {
        let empty = self.waiting.is_empty() && self.aside.is_empty();
        self.closed && self.reserved == 0 && empty
    }

    /// Lets what was put aside wait again: what is due, or all if there is an
    /// order to be kept.
    fn bring_back(&mut self, mode: Mode) {
        if self.aside.is_empty() {
            return;
        }
        if mode != Mode::Any {
            return self.bring_back_all();
        }
        let now = Instant::now();
        while let Some(first) = self.aside.first_entry() {
            if first.key().0 > now {
                break;
            }
            self.waiting.push_front(first.remove());
        }
    }

    /// Puts everything where it was.
    fn bring_back_all(&mut self) {
        if self.aside.is_empty() {
            return;
        }
        let aside = std::mem::take(&mut self.aside);
        self.waiting.extend(aside.into_values());
        let waiting = self.waiting.make_contiguous();
        waiting.sort_by_key(|item| item.about.seq);
    }

    fn take(&mut self, keys: &Keys, limits: Limits) -> Option<Batch> {
        let may = match limits.mode {
            Mode::Whole => self.whole + self.by_key + self.any == 0,
            Mode::ByKey => self.whole + self.any == 0,
            Mode::Any => true,
        };
        if !may || self.waiting.is_empty() {
            return None;
        }
        let batch = match limits.mode {
            Mode::ByKey => self.take_by_key(keys, limits),
            Mode::Whole | Mode::Any => self.take_oldest(limits),
        };
        if batch.is_empty() {
            return None;
        }
        *self.taken(limits.mode) += 1;
        Some(batch)
    }

    fn take_oldest(&mut self, limits: Limits) -> Batch {
        let mut bytes = 0;
        let fits = |item: &&Item| {
            bytes += item.event.weight();
            bytes <= limits.bytes
        };
        let waiting = self.waiting.iter().take(limits.events);
        let count = waiting.take_while(fits).count().max(1);
        let mut batch = Batch::with_capacity(count, limits.mode);
        for item in self.waiting.drain(..count) {
            batch.push(item);
        }
        batch
    }

    fn take_by_key(&mut self, keys: &Keys, limits: Limits) -> Batch {
        let count = self.waiting.len().min(limits.events);
        let mut batch = Batch::with_capacity(count, limits.mode);
        let mut passed = Vec::new();
        let mut bytes = 0;
        for _ in 0..SCAN {
            if batch.len() == limits.events {
                break;
            }
            let Some(mut item) = self.waiting.pop_front() else {
                break;
            };
            let key = keys.of(&item.event);
            if key.is_some_and(|key| self.keys.contains_key(&key)) {
                passed.push(item);
                continue;
            }
            bytes += item.event.weight();
            if bytes > limits.bytes && !batch.is_empty() {
                self.waiting.push_front(item);
                break;
            }
            item.about.key = key;
            batch.push(item);
        }
        for item in passed.into_iter().rev() {
            self.waiting.push_front(item);
        }
        for key in batch.about.iter().filter_map(|about| about.key) {
            *self.keys.entry(key).or_default() += 1;
        }
        batch
    }

    fn free(&mut self, keys: &[Key]) {
        for key in keys {
            if let Some(count) = self.keys.get_mut(key) {
                *count -= 1;
                if *count == 0 {
                    self.keys.remove(key);
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
