//! The task that carries events from the window to the backend.
//!
//! A worker holds one batch of events, publishes it, settles what was taken or
//! refused for good, and keeps the rest, in order, for the next try. After a
//! publish that moved nothing it offers a single event, and doubles that with
//! each publish that moves something: a backend that is away is asked gently,
//! and an event that it cannot bear is found without offering its neighbours
//! over and over.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;

use super::Shared;
use super::breaker::{BreakerState, Switch};
use super::feed::{Burial, Outcome};
use super::item::{Batch, Item, Mode, Tried};
use super::window::Settled;
use crate::backend::{Failure, PublishError};
use crate::dead_letters::Tries;
use crate::event::Event;
use crate::retry::RetryPolicy;

/// Runs until the window is closed and empty, or there are too many workers.
pub(super) async fn deliver(shared: Arc<Shared>) {
    while let Some(batch) = shared.window.take(|closed| shared.next_batch(closed)).await {
        Worker::new(batch).settle(&shared).await;
    }
}

struct Worker {
    batch: Batch,
    /// How many are offered next.
    limit: usize,
    /// How many publishes in a row have moved nothing.
    failures: u32,
}

/// One publish, which is over: how many events it had, and when.
#[derive(Clone, Copy)]
struct Offer {
    count: usize,
    began: Timestamp,
    ended: Timestamp,
    /// Whether any event was taken or refused for good.
    moved: bool,
}

/// What becomes of an event after a publish.
enum Fate {
    Delivered,
    Dead(Burial),
    Kept,
}

impl Worker {
    fn new(batch: Batch) -> Worker {
        Worker {
            limit: batch.len(),
            failures: 0,
            batch,
        }
    }

    /// Tries until every event is delivered, dead, or put aside.
    async fn settle(mut self, shared: &Shared) {
        while !self.batch.is_empty() {
            let retry = || shared.options.load().retry;
            let hurry = || shared.window.closing();
            let turn = shared.breaker.turn(retry, hurry).await;
            let count = self.limit.min(turn.limit).min(self.batch.len());
            let began = Timestamp::now();
            let failures = publish(shared, &self.batch.events[..count]).await;
            let offer = Offer {
                count,
                began,
                ended: Timestamp::now(),
                moved: failures.is_empty(),
            };
            let sorted = self.sort_out(shared, offer, failures);
            // The breaker knows how it went: the next may have its turn.
            drop(turn);
            if !sorted.dead.is_empty() {
                self.bury(shared, sorted.dead, sorted.dead_places).await;
            }
            if sorted.kept > 0 && shared.breaker.state() == BreakerState::Closed {
                shared.wait(self.failures.max(1)).await;
            }
        }
    }

    /// Decides what becomes of the events of a publish, and settles what was
    /// delivered, and what is dead if that needs no waiting.
    fn sort_out(&mut self, shared: &Shared, mut offer: Offer, failures: Vec<Failure>) -> Sorted {
        let offered = &self.batch.about[..offer.count];
        let retried = offered.iter().filter(|about| about.tried.is_some());
        match retried.count() {
            0 => {}
            retried => shared.books.retry(retried as u64),
        }
        let mut errors = errors_of(shared, offer.count, failures);
        let may_help = |error: &Option<PublishError>| {
            let error = error.as_ref();
            error.is_some_and(|error| shared.may_help(error))
        };
        offer.moved = errors.is_empty() || !errors.iter().all(may_help);
        let first_error = errors.iter().flatten().next().map(ToString::to_string);
        let taken = |at: &usize| errors.get(*at).is_none_or(Option::is_none);
        let delivered = (0..offer.count).filter(taken);
        let accepted = delivered.map(|at| self.batch.about[at].accepted);
        shared.latency.record(accepted, offer.ended);

        let policy = shared.options.load().retry;
        // What failed by itself need not hold up the others.
        let alone = offer.moved || offer.count == 1;
        let aside = self.batch.mode == Mode::Any && alone;
        let mut sorted = Sorted::default();
        let (mut kept, mut later) = (Vec::new(), Vec::new());
        let (mut places, mut seqs) = (Settled::default(), Vec::new());
        for (at, mut item) in self.batch.drain(offer.count).enumerate() {
            let error = errors.get_mut(at).and_then(Option::take);
            match fate(shared, &policy, offer, &mut item, error) {
                Fate::Kept if aside => {
                    let delay = policy.backoff(item.about.attempts());
                    later.push((Instant::now() + delay, item));
                }
                Fate::Kept => kept.push(item),
                Fate::Dead(burial) => {
                    sorted.dead_places.add(&item);
                    sorted.dead.push(burial);
                }
                Fate::Delivered => {
                    places.add(&item);
                    if shared.feed.is_some() {
                        seqs.push(item.about.seq);
                    }
                }
            }
        }
        let again = kept.len() + later.len();
        sorted.kept = kept.len();
        self.batch.put_back(kept);
        if !later.is_empty() {
            shared.window.put_aside(later);
        }
        match &shared.feed {
            // The feed counts them in the books, in one with its position.
            Some(feed) if !seqs.is_empty() => feed.settle(&seqs, Outcome::Delivered),
            Some(_) => {}
            None => shared.books.deliver(places.events as u64),
        }
        if shared.feed.is_none() {
            shared.keep_dead(std::mem::take(&mut sorted.dead));
            places.append(std::mem::take(&mut sorted.dead_places));
        }
        let last = self.batch.is_empty() && sorted.dead.is_empty();
        shared
            .window
            .settle(places, last.then_some(self.batch.mode));
        shared.note(offer.moved, again, offer.count, first_error);
        (self.failures, self.limit) = match offer.moved {
            true => (0, self.limit.saturating_mul(2)),
            false => (self.failures + 1, 1),
        };
        sorted
    }

    /// Has the feed keep dead letters, however often that takes: until then they
    /// are what they were.
    async fn bury(&self, shared: &Shared, dead: Vec<Burial>, places: Settled) {
        let Some(feed) = &shared.feed else { return };
        let mut failures = 0;
        while let Err(reason) = feed.bury(&dead).await {
            if failures == 0 {
                tracing::error!(
                    backend = shared.backend.name(),
                    letters = dead.len(),
                    reason,
                    "dead letters cannot be kept; tried again until they can"
                );
            }
            failures += 1;
            // For whoever looks at the backend: it takes nothing.
            let _ = shared.breaker.published(false, Some(reason));
            shared.wait(failures).await;
        }
        if failures > 0 {
            let _ = shared.breaker.published(true, None);
        }
        shared.log_dead(&dead);
        let seqs: Vec<u64> = dead.iter().map(|burial| burial.seq).collect();
        feed.settle(&seqs, Outcome::Dead);
        let last = self.batch.is_empty().then_some(self.batch.mode);
        shared.window.settle(places, last);
    }
}

/// What remains of a publish.
#[derive(Default)]
struct Sorted {
    /// How many events are at the front of the batch again.
    kept: usize,
    /// Dead letters for the feed, with their places.
    dead: Vec<Burial>,
    dead_places: Settled,
}

/// What becomes of one event; notes the try if it is kept.
fn fate(
    shared: &Shared,
    policy: &RetryPolicy,
    offer: Offer,
    item: &mut Item,
    error: Option<PublishError>,
) -> Fate {
    let Some(error) = error else {
        return Fate::Delivered;
    };
    let about = &mut item.about;
    let first = about
        .tried
        .as_ref()
        .map_or(offer.began, |tried| tried.first);
    let closed = error == PublishError::Closed && shared.feed.is_some();
    let counts = !closed && (offer.moved || offer.count == 1);
    let attempts = about.attempts() + u32::from(counts);
    let age = offer.ended.duration_since(about.accepted);
    let age = Duration::try_from(age).unwrap_or_default();
    if closed || (error.is_retryable() && !policy.is_over(attempts, age)) {
        about.tried = Some(Box::new(Tried { first, attempts }));
        return Fate::Kept;
    }
    Fate::Dead(Burial {
        seq: about.seq,
        event: item.event.clone(),
        error: error.to_string(),
        attempts: attempts.max(1),
        first_try: first,
        last_try: offer.began,
    })
}

/// The error of each event of a publish; empty if there is none at all.
fn errors_of(shared: &Shared, count: usize, failures: Vec<Failure>) -> Vec<Option<PublishError>> {
    if failures.is_empty() {
        return Vec::new();
    }
    let mut errors = vec![None; count];
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
    errors
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

impl Shared {
    /// Whether offering the event again can help. A backend that was closed under
    /// events that are kept durably is not their end.
    fn may_help(&self, error: &PublishError) -> bool {
        error.is_retryable() || (*error == PublishError::Closed && self.feed.is_some())
    }

    /// Waits before a further try. A delivery that is closed has no time to: it
    /// tries now.
    async fn wait(&self, failures: u32) {
        let delay = self.options.load().retry.backoff(failures);
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            () = self.window.closing() => {}
        }
    }

    /// Keeps dead letters in memory.
    fn keep_dead(&self, dead: Vec<Burial>) {
        if dead.is_empty() {
            return;
        }
        self.log_dead(&dead);
        self.books.bury(dead.len() as u64);
        for burial in dead {
            let tries = Tries {
                count: burial.attempts,
                first: burial.first_try,
                last: burial.last_try,
            };
            self.dead.push(burial.event, burial.error, tries);
        }
    }

    fn log_dead(&self, dead: &[Burial]) {
        let backend = self.backend.name();
        for burial in dead {
            if !self
                .buried
                .may_log(backend, "more events become dead letters")
            {
                return;
            }
            let event = &burial.event;
            tracing::error!(
                backend,
                id = event.id(),
                source = event.source(),
                event_type = event.event_type(),
                attempts = burial.attempts,
                error = burial.error,
                "an event is a dead letter"
            );
        }
    }

    /// Tells the breaker how a publish went. One line when a backend begins to
    /// fail, one when the breaker opens, and one when it takes events again: an
    /// outage of an hour is not an hour of log.
    fn note(&self, moved: bool, failed: usize, of: usize, error: Option<String>) {
        let backend = self.backend.name();
        let text = error.clone().unwrap_or_default();
        let switch = self.breaker.published(moved, error);
        let partly = moved && failed > 0;
        if switch == Some(Switch::Failing)
            || partly && self.failed.may_log(backend, "more publishes fail in part")
        {
            tracing::warn!(
                backend,
                failed,
                of,
                error = text,
                "events were not taken and are tried again"
            );
        } else if switch == Some(Switch::Opened) {
            tracing::warn!(
                backend,
                error = text,
                "the backend takes nothing: from now on one event at a time is offered, until it takes it"
            );
        }
        if let Some(Switch::Closed(after)) = switch {
            let after = format!("{after:.1?}");
            let waiting = self.books.counts().pending();
            tracing::info!(backend, waiting, after, "the backend takes events again");
        }
    }
}
