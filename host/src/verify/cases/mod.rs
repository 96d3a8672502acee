//! The cases: what is claimed of every backend, and how it is found out.
//!
//! A case starts the backend anew, publishes events of its own, and says what it
//! saw. It ends early, by `?`, with why it failed, does not apply, or cannot be
//! decided.

mod close;
mod contents;
mod contract;
mod errors;
mod faults;
mod order;
mod refusals;
mod resources;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use super::arrivals::Arrivals;
use super::events::Events;
use super::judge::{Judgement, counted};
use super::profile::Profile;
use super::readers::ReaderError;
use super::target::{Changes, Target};
use super::wire::Wire;
use crate::backend::{AsyncBackend, Failure, PublishError};
use crate::event::Event;
use crate::wasm::{LoadError, WasmBackend};

/// How many events the cases publish that need many.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scale {
    /// In order.
    pub(crate) events: usize,
    /// While memory is looked at.
    pub(crate) memory_events: usize,
    /// While the way to the server breaks.
    pub(crate) fault_events: usize,
}

impl Default for Scale {
    fn default() -> Scale {
        Scale {
            events: 10_000,
            memory_events: 100_000,
            fault_events: 3_000,
        }
    }
}

/// One case.
pub(super) struct Case {
    pub(super) name: &'static str,
    /// What is claimed of every backend.
    pub(super) claim: &'static str,
    pub(super) run: Run,
}

type Run = for<'a> fn(&'a Context<'a>) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>>;

/// What was seen, or why a case ends early.
pub(super) type Verdict<T = String> = Result<T, Stop>;

/// Why a case ends early.
#[derive(Debug)]
pub(super) enum Stop {
    /// The backend does not do what is claimed.
    Failed(String),
    /// The claim says nothing about this backend.
    NotApplicable(String),
    /// Something else is in the way.
    Undecided(String),
}

macro_rules! cases {
    ($($name:literal $function:path: $claim:literal,)*) => {
        &[$(Case { name: $name, claim: $claim, run: |context| Box::pin($function(context)) },)*]
    };
}

/// Every case, in the order they run.
pub(super) const CASES: &[Case] = cases![
    "name" contract::name:
        "every instance gives the same valid name",
    "single" contract::single:
        "one event arrives, before anything follows it",
    "batch" contract::batch:
        "a batch arrives as a whole",
    "empty-batch" contract::empty_batch:
        "a batch of none is taken and nothing arrives",
    "grants" contract::grants:
        "it tries nothing the manifest does not grant",
    "order" order::many:
        "many events arrive once and in order",
    "attributes" contents::attributes:
        "every attribute arrives as it was",
    "data" contents::data:
        "data of any kind arrive byte for byte",
    "refused-event" refusals::refused_event:
        "an event that is refused is named by its index, as permanent; the others arrive",
    "too-large" refusals::too_large:
        "an event too large for the server is permanent; the others arrive",
    "credentials" errors::wrong_credentials:
        "wrong credentials are retryable, and the error says so",
    "unreachable" errors::unreachable:
        "a server that is away is retryable, and the error says so",
    "cut" faults::cut:
        "nothing is lost when connections break in the middle of a batch",
    "restart" faults::restart:
        "nothing is lost when the server goes away and comes back",
    "hang" faults::hang:
        "nothing is lost when the server stops answering for a while",
    "real-restart" faults::real_restart:
        "nothing is lost when the server is really started again",
    "repeats" order::repeats:
        "an event that is published again is there once",
    "close" close::close:
        "what was published is there after close, and a second close does no harm",
    "instances" resources::instances:
        "instances side by side lose nothing and keep the order of each",
    "limits" resources::limits:
        "the largest batch a host makes fits the limits",
    "memory" resources::memory:
        "memory does not grow with the number of events",
];

/// What a case has at hand.
pub(super) struct Context<'a> {
    pub(super) case: &'static str,
    pub(super) target: &'a Target,
    pub(super) profile: &'a Profile,
    pub(super) arrivals: &'a Arrivals,
    pub(super) wire: &'a Wire,
    pub(super) run: &'a str,
    /// The type of the events.
    pub(super) event_type: &'a str,
    pub(super) scale: Scale,
    /// What starts the server again.
    pub(super) restart_command: Option<&'a str>,
}

impl Context<'_> {
    /// Begins the case: what arrives of it is kept from now on.
    pub(super) fn begin(&self) {
        self.arrivals.begin(self.events().source());
    }

    /// The events of this case.
    fn events(&self) -> Events {
        Events::new(self.run, self.case, self.event_type)
    }

    /// The largest event the server takes, in bytes of data, if that is known.
    fn max_event(&self) -> Option<u64> {
        self.profile.max_event.or(self.arrivals.max_event())
    }

    /// Ends a case about a server for a backend that has none.
    fn needs_server(&self) -> Verdict<()> {
        match self.target.has_server() {
            true => Ok(()),
            false => not_applicable("the manifest grants no server (tcp, http)"),
        }
    }

    /// The backend, started as its manifest says.
    async fn start(&self) -> Verdict<WasmBackend> {
        self.start_with(Changes::default()).await
    }

    async fn start_with(&self, changes: Changes) -> Verdict<WasmBackend> {
        Ok(self.target.start(changes).await?)
    }

    /// Publishes `events` in batches as a host makes them. No call may fail.
    async fn publish(&self, backend: &WasmBackend, events: &[Event]) -> Verdict<()> {
        for batch in self.batches(events) {
            if let Err(failures) = backend.publish(batch).await
                && let Some(first) = failures.first()
            {
                return Err(Stop::Failed(format!(
                    "a publish of {} failed for {} of them, first for event {}: {}",
                    counted(batch.len(), "event", "events"),
                    failures.len(),
                    first.index,
                    told(&first.error),
                )));
            }
        }
        Ok(())
    }

    /// The events in batches as a host makes them.
    fn batches<'e>(&self, mut events: &'e [Event]) -> Vec<&'e [Event]> {
        let (most, most_bytes) = self.target.largest_batch();
        let mut batches = Vec::new();
        while !events.is_empty() {
            let mut bytes = 0;
            let fits = events.iter().take(most).take_while(|event| {
                bytes += event.weight();
                bytes <= most_bytes
            });
            let (batch, rest) = events.split_at(fits.count().max(1));
            batches.push(batch);
            events = rest;
        }
        batches
    }

    /// What has arrived of `sent`, once all has or nothing more comes.
    fn arrived(&self, sent: usize) -> Verdict<Vec<Event>> {
        Ok(tokio::task::block_in_place(|| self.arrivals.settled(sent))?)
    }

    /// Judges what arrived of `sent`. Repeats are no fault where `repeats` says so,
    /// and are counted.
    fn judge(&self, sent: &[Event], repeats: Repeats) -> Verdict<usize> {
        let arrived = self.arrived(sent.len())?;
        let Profile {
            order, attributes, ..
        } = self.profile;
        let judgement = Judgement::of(sent, &arrived, *order, attributes);
        let exactly_once = repeats == Repeats::Wrong && !self.profile.repeats;
        let faults = judgement.faults(exactly_once);
        match faults.is_empty() {
            true => Ok(judgement.repeats),
            false => Err(Stop::Failed(faults.join("; "))),
        }
    }
}

/// Whether an event may arrive more than once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeats {
    /// No call has failed, so nothing was published twice.
    Wrong,
    /// It was offered again after a failure.
    Allowed,
}

/// An error, with its kind.
fn told(error: &PublishError) -> String {
    match error {
        PublishError::Permanent(text) => format!("permanent: {text}"),
        other => format!("retryable: {other}"),
    }
}

/// The failures of a publish by index; empty if it had none.
fn by_index(published: Result<(), Vec<Failure>>) -> BTreeMap<usize, PublishError> {
    let failures = published.err().unwrap_or_default().into_iter();
    failures
        .map(|failure| (failure.index, failure.error))
        .collect()
}

fn failed<T>(text: impl Into<String>) -> Verdict<T> {
    Err(Stop::Failed(text.into()))
}

fn not_applicable<T>(text: impl Into<String>) -> Verdict<T> {
    Err(Stop::NotApplicable(text.into()))
}

impl From<LoadError> for Stop {
    fn from(error: LoadError) -> Stop {
        Stop::Failed(format!("it does not start: {error}"))
    }
}

impl From<ReaderError> for Stop {
    fn from(error: ReaderError) -> Stop {
        Stop::Undecided(format!("what arrives cannot be read any more: {error}"))
    }
}
