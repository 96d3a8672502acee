//! The task that carries events from the queue to the backend.
//!
//! A worker holds one window of events, publishes it, settles what was taken or
//! refused for good, and keeps the rest, in order, for the next try. After a
//! publish that moved nothing it offers a single event, and doubles that with
//! each publish that moves something: a backend that is away is asked gently,
//! and an event that it cannot bear is found without offering its neighbours
//! over and over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::Shared;
use crate::backend::{Failure, PublishError};
use crate::event::Event;

/// Runs until the queue is closed and empty, or there are too many workers.
pub(super) async fn deliver(shared: Arc<Shared>) {
    while let Some(events) = shared.queue.take(|| shared.next_batch()).await {
        Window::new(events).settle(&shared).await;
    }
}

/// Events taken from the queue and not settled, the oldest first.
struct Window {
    events: Vec<Event>,
    /// How often each of them has failed, not counting failures of a whole
    /// batch: those are the backend's, not the event's.
    attempts: Vec<u32>,
    /// How many, from the front, have been offered before.
    offered: usize,
    /// How many are offered next.
    limit: usize,
    /// How many publishes in a row have moved nothing.
    failures: u32,
}

impl Window {
    fn new(events: Vec<Event>) -> Window {
        Window {
            attempts: vec![0; events.len()],
            offered: 0,
            limit: events.len(),
            failures: 0,
            events,
        }
    }

    /// Tries until every event is delivered or dead.
    async fn settle(mut self, shared: &Shared) {
        while !self.events.is_empty() {
            let count = self.limit.min(self.events.len());
            let failures = publish(shared, &self.events[..count]).await;
            if self.sort_out(shared, count, failures) > 0 {
                let delay = shared.options.load().retry.backoff(self.failures.max(1));
                tokio::select! {
                    () = tokio::time::sleep(delay) => {}
                    // A delivery that is closed has no time to wait: it tries now.
                    () = shared.queue.closing() => {}
                }
            }
        }
    }

    /// Settles the first `count` events but those that failed and may be tried
    /// again. Returns how many these are.
    fn sort_out(&mut self, shared: &Shared, count: usize, failures: Vec<Failure>) -> usize {
        let counts = &shared.counts;
        let retried = count.min(self.offered);
        counts.retries.fetch_add(retried as u64, Ordering::SeqCst);
        let mut errors: Vec<Option<PublishError>> = vec![None; count];
        for Failure { index, error } in failures {
            match errors.get_mut(index) {
                Some(slot) => *slot = Some(error),
                None => tracing::warn!(
                    backend = shared.backend.name(),
                    index,
                    count,
                    "the backend reports a failure outside the batch; ignored"
                ),
            }
        }
        let waits = |error: &Option<PublishError>| error.as_ref().is_some_and(|e| e.is_retryable());
        let moved = !errors.iter().all(waits);
        let first_error = errors.iter().flatten().next().map(ToString::to_string);

        let (mut kept, mut settled_bytes) = (0, 0);
        for (at, error) in errors.into_iter().enumerate() {
            let attempts = self.attempts[at] + u32::from(moved || count == 1);
            match error {
                Some(error) if self.may_retry(shared, &error, attempts) => {
                    self.events.swap(kept, at);
                    self.attempts[kept] = attempts;
                    kept += 1;
                    continue;
                }
                Some(error) => bury(shared, &self.events[at], &error, attempts),
                None => {
                    counts.delivered.fetch_add(1, Ordering::SeqCst);
                }
            }
            settled_bytes += self.events[at].weight();
        }
        self.events.drain(kept..count);
        self.attempts.drain(kept..count);
        self.offered = self.offered.max(count) - (count - kept);
        shared.queue.settle(count - kept, settled_bytes);
        self.log(shared, count, kept, first_error);
        (self.failures, self.limit) = match moved {
            true => (0, self.limit.saturating_mul(2)),
            false => (self.failures + 1, 1),
        };
        kept
    }

    fn may_retry(&self, shared: &Shared, error: &PublishError, attempts: u32) -> bool {
        error.is_retryable() && shared.options.load().retry.delay_after(attempts).is_some()
    }

    /// One line when a backend begins to fail, and one when it answers again:
    /// an outage of an hour is not an hour of log.
    fn log(&self, shared: &Shared, count: usize, kept: usize, error: Option<String>) {
        let backend = shared.backend.name();
        if kept > 0 && self.failures == 0 {
            tracing::warn!(
                backend,
                failed = kept,
                of = count,
                error = error.unwrap_or_default(),
                "events were not taken and are tried again"
            );
        } else if kept == 0 && self.failures > 0 {
            tracing::info!(
                backend,
                waiting = shared.queue.len() + self.events.len(),
                "the backend takes events again"
            );
        }
    }
}

/// Publishes; a backend that panics has failed like any other.
async fn publish(shared: &Shared, events: &[Event]) -> Vec<Failure> {
    let published = AssertUnwindSafe(shared.backend.publish(events))
        .catch_unwind()
        .await;
    match published {
        Ok(Ok(())) => Vec::new(),
        Ok(Err(failures)) => failures,
        Err(_) => {
            let error = PublishError::Retryable("the backend panicked while publishing".to_owned());
            Failure::all(events.len(), &error)
        }
    }
}

fn bury(shared: &Shared, event: &Event, error: &PublishError, attempts: u32) {
    if shared.buried.may_log(shared.backend.name()) {
        tracing::error!(backend = shared.backend.name(), id = event.id(), source = event.source(),
            event_type = event.event_type(), attempts, %error, "an event is a dead letter");
    }
    shared.dead.push(event.clone(), error.to_string(), attempts);
    shared.counts.dead.fetch_add(1, Ordering::SeqCst);
}
