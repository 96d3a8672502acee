//! The calls of one batch: some side by side, within the time the settings give.
//!
//! - After a call that failed for a reason the others share no further one begins.
//! - After a message of a FIFO target that is to be tried again none of its group is sent.
//! - A call the service refuses because of one of its messages, without saying which,
//!   is made again with each message alone.

use crate::Service;
use crate::call;
use crate::entry::Entry;
use crate::fault::Fault;
use crate::plan::{self, Lane, Limits};
use crate::settings::Settings;
use backhaul_guest::{Event, Failure, PublishError, http};
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;

#[derive(Clone)]
enum Fate {
    Waiting,
    Sent,
    Taken,
    /// Not sent, because an earlier message of its group is to be tried again.
    Held,
    Failed(PublishError),
}

/// A batch under way, and what became of it.
struct Batch<'a> {
    settings: &'a Settings,
    /// One for each event.
    fates: &'a RefCell<Vec<Fate>>,
    lanes: &'a [Lane],
    /// The next lane to be begun.
    next: Cell<usize>,
    /// Targets and groups with a message that is to be tried again.
    held: RefCell<HashSet<(&'a str, &'a str)>>,
    stopped: Cell<bool>,
}

/// Publishes a batch; returns the events that were not published.
pub(crate) async fn publish<S: Service>(settings: &Settings, events: &[Event]) -> Vec<Failure> {
    let mut fates = vec![Fate::Waiting; events.len()];
    let mut entries = Vec::with_capacity(events.len());
    for (index, event) in events.iter().enumerate() {
        match Entry::of::<S>(settings, index, event) {
            Ok(entry) => entries.push(entry),
            Err(text) => fates[index] = Fate::Failed(PublishError::Permanent(text)),
        }
    }
    let limits = Limits {
        max_bytes: settings.max_bytes,
        concurrency: settings.concurrency.get().into(),
        strict: settings.strict,
    };
    let lanes = plan::lanes(entries, &limits);
    let fates = RefCell::new(fates);
    let stopped = {
        let batch = Batch {
            settings,
            fates: &fates,
            lanes: &lanes,
            next: Cell::new(0),
            held: RefCell::default(),
            stopped: Cell::new(false),
        };
        let senders = (0..settings.concurrency.get()).map(|_| batch.send_lane_by_lane::<S>());
        // What has no answer when the time is over is told by its fate.
        let _ = http::within(settings.timeout, join_all(senders)).await;
        batch.stopped.get()
    };
    failures::<S>(settings, fates.into_inner(), stopped)
}

impl<'a> Batch<'a> {
    async fn send_lane_by_lane<S: Service>(&self) {
        while let Some(lane) = self.lanes.get(self.next.get()) {
            self.next.set(self.next.get() + 1);
            for call in lane {
                if self.stopped.get() {
                    return;
                }
                let entries = self.not_held(&call.entries);
                if !entries.is_empty() {
                    self.send::<S>(&entries).await;
                }
            }
        }
    }

    /// Those of a call that do not wait for another one. The others are marked.
    fn not_held(&self, entries: &'a [Entry]) -> Vec<&'a Entry> {
        let held = self.held.borrow();
        let is_held = |entry: &&Entry| group(entry).is_some_and(|group| held.contains(&group));
        let (held, free): (Vec<_>, Vec<_>) = entries.iter().partition(is_held);
        for entry in held {
            self.set(entry, Fate::Held);
        }
        free
    }

    async fn send<S: Service>(&self, entries: &[&'a Entry]) {
        let Some(fault) = self.call::<S>(entries).await else {
            return;
        };
        if fault != Fault::Message || entries.len() == 1 {
            return;
        }
        for entry in entries {
            // An earlier one of them may have been of its group.
            if !self.stopped.get() && !self.not_held(std::slice::from_ref(entry)).is_empty() {
                self.call::<S>(&[entry]).await;
            }
        }
    }

    /// Makes a call and notes what became of its entries. Gives what is at fault if it failed as
    /// a whole.
    async fn call<S: Service>(&self, entries: &[&'a Entry]) -> Option<Fault> {
        for entry in entries {
            self.set(entry, Fate::Sent);
        }
        match call::make::<S>(self.settings, entries).await {
            Ok(fates) => {
                for (entry, fate) in entries.iter().zip(fates) {
                    self.settle(entry, fate);
                }
                None
            }
            Err(failed) => {
                if failed.fault.is_general() {
                    self.stopped.set(true);
                }
                for entry in entries {
                    let text = failed.text.clone();
                    let error = if failed.fault == Fault::Message && entries.len() == 1 {
                        PublishError::Permanent(text)
                    } else {
                        PublishError::Retryable(text)
                    };
                    self.set(entry, Fate::Failed(error));
                }
                Some(failed.fault)
            }
        }
    }

    fn settle(&self, entry: &'a Entry, fate: Result<(), PublishError>) {
        if matches!(fate, Err(PublishError::Retryable(_))) {
            self.held.borrow_mut().extend(group(entry));
        }
        self.set(entry, fate.map_or_else(Fate::Failed, |()| Fate::Taken));
    }

    fn set(&self, entry: &Entry, fate: Fate) {
        self.fates.borrow_mut()[entry.index] = fate;
    }
}

/// What an entry's order is about; nothing if it has none.
fn group(entry: &Entry) -> Option<(&str, &str)> {
    let fifo = entry.fifo.as_ref()?;
    Some((&entry.target, &fifo.group))
}

fn failures<S: Service>(settings: &Settings, fates: Vec<Fate>, stopped: bool) -> Vec<Failure> {
    let (name, origin) = (S::NAME, &settings.origin);
    let timeout = humantime::format_duration(settings.timeout);
    let failure = |(index, fate)| match fate {
        Fate::Taken => None,
        Fate::Failed(PublishError::Permanent(text)) => Some(Failure::permanent(index, text)),
        Fate::Failed(PublishError::Retryable(text)) => Some(Failure::retryable(index, text)),
        Fate::Sent => Some(Failure::retryable(
            index,
            format!("{origin} did not answer in time ({name}_TIMEOUT, {timeout} for a batch)"),
        )),
        Fate::Held => {
            let text = "not sent: an event of its group before it is to be tried again";
            Some(Failure::retryable(index, text))
        }
        Fate::Waiting if stopped => {
            let text = "not sent: a call for events before it failed";
            Some(Failure::retryable(index, text))
        }
        Fate::Waiting => Some(Failure::retryable(
            index,
            format!(
                "not sent: the time for a batch was over ({name}_TIMEOUT, {timeout}); \
                 a smaller limits.batch or more {name}_CONCURRENCY helps"
            ),
        )),
    };
    fates.into_iter().enumerate().filter_map(failure).collect()
}
