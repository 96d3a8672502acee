//! The task that carries events from the queue to the backend.
//!
//! A worker holds one window of events, publishes it, settles what was taken or
//! refused for good, and keeps the rest, in order, for the next try. After a
//! publish that moved nothing it offers one event at a time, so that a backend
//! that is away is asked gently, and one event that a backend cannot bear does
//! not hide behind its batch, until one is taken again.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;

use super::Shared;
use crate::backend::{Failure, PublishError};
use crate::event::Event;

/// Runs until the queue is closed and empty.
pub(super) async fn deliver(shared: Arc<Shared>) {
    let options = &shared.options;
    while let Some(events) = shared.queue.take(options.batch, options.batch_bytes).await {
        Window {
            attempts: vec![0; events.len()],
            events,
            probing: false,
        }
        .settle(&shared)
        .await;
    }
}

/// Events taken from the queue and not settled, the oldest first.
struct Window {
    events: Vec<Event>,
    /// How often each of them has been tried.
    attempts: Vec<u32>,
    /// Whether the last publish moved nothing.
    probing: bool,
}

impl Window {
    /// Tries until every event is delivered or dead.
    async fn settle(mut self, shared: &Shared) {
        while !self.events.is_empty() {
            let count = if self.probing { 1 } else { self.events.len() };
            let failures = publish(shared, &self.events[..count]).await;
            let retry_after = self.sort_out(shared, count, failures);
            if let Some(attempt) = retry_after
                && let Some(delay) = shared.options.retry.delay_after(attempt)
            {
                tokio::time::sleep(delay).await;
            }
        }
    }

    /// Settles the first `count` events but those that failed and may be tried
    /// again. Returns how often the most tried of these has been.
    fn sort_out(&mut self, shared: &Shared, count: usize, failures: Vec<Failure>) -> Option<u32> {
        let counts = &shared.counts;
        let retried = self.attempts[..count]
            .iter()
            .filter(|attempts| **attempts > 0)
            .count();
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

        let first_error = errors.iter().flatten().next().map(ToString::to_string);
        let (mut kept, mut settled_bytes, mut most_tried) = (0, 0, None);
        for (at, error) in errors.into_iter().enumerate() {
            let attempts = self.attempts[at] + 1;
            match error {
                Some(error) if self.may_retry(shared, &error, attempts) => {
                    self.events.swap(kept, at);
                    self.attempts[kept] = attempts;
                    kept += 1;
                    most_tried = most_tried.max(Some(attempts));
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
        shared.queue.settle(count - kept, settled_bytes);
        self.log(shared, count, kept, most_tried, first_error);
        self.probing = kept == count;
        most_tried
    }

    fn may_retry(&self, shared: &Shared, error: &PublishError, attempts: u32) -> bool {
        error.is_retryable() && shared.options.retry.delay_after(attempts).is_some()
    }

    /// One line when a backend begins to fail, and one when it answers again:
    /// an outage of an hour is not an hour of log.
    fn log(
        &self,
        shared: &Shared,
        count: usize,
        kept: usize,
        attempt: Option<u32>,
        error: Option<String>,
    ) {
        let backend = shared.backend.name();
        if kept > 0 && !self.probing {
            tracing::warn!(
                backend,
                failed = kept,
                of = count,
                attempt,
                error = error.unwrap_or_default(),
                "events were not taken and are tried again"
            );
        } else if kept == 0 && self.probing {
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
    tracing::error!(backend = shared.backend.name(), id = event.id(), source = event.source(),
        event_type = event.event_type(), attempts, %error, "an event is a dead letter");
    shared.dead.push(event.clone(), error.to_string(), attempts);
    shared.counts.dead.fetch_add(1, Ordering::SeqCst);
}
