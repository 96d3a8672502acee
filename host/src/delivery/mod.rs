//! Delivery: what stands between an emit and a backend that may be slow or away.
//!
//! A [`Delivery`] wraps any [`AsyncBackend`] and is one itself. Its `publish`
//! only takes a place in a bounded queue (`queue`); its own tasks
//! (`worker`) form batches, call the wrapped backend, and try again what may
//! work later. It knows neither plugins nor Wasm.
//!
//! Invariants, for each delivery at every moment:
//!
//! - accepted = delivered + dead + dropped + pending ([`DeliveryStats`]).
//! - An event leaves `pending` only when the backend took it, or refused it for
//!   good, or its tries are used up, or the delivery was closed.
//! - With one worker, events reach the backend in the order they were accepted:
//!   later ones wait while an earlier one is tried again.

mod queue;
mod worker;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Once, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::dead_letters::DeadLetters;
use crate::event::Event;
use crate::handler::Handlers;
use crate::retry::RetryPolicy;

use queue::Queue;
pub(crate) use queue::Reservation;

/// What the wrapped backend's `close` gets at least, however long draining took.
const SHORTEST_CLOSE: Duration = Duration::from_secs(1);

/// How a [`Delivery`] queues, batches and tries again.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryOptions {
    /// The most events that wait or are under way. Default 10,000.
    pub queue: usize,
    /// The most bytes those events keep in memory. Default 64 MiB.
    pub queue_bytes: usize,
    /// The most events in one publish. Default 256.
    pub batch: usize,
    /// The most bytes of events in one publish; a single larger event goes
    /// alone. Default 4 MiB.
    pub batch_bytes: usize,
    /// How many publishes may be under way at a time. 1, the default, keeps
    /// the order of the events.
    pub workers: usize,
    /// When what may work later is tried again. Default: without end.
    pub retry: RetryPolicy,
}

impl Default for DeliveryOptions {
    fn default() -> DeliveryOptions {
        DeliveryOptions {
            queue: 10_000,
            queue_bytes: 64 << 20,
            batch: 256,
            batch_bytes: 4 << 20,
            workers: 1,
            retry: RetryPolicy::default(),
        }
    }
}

/// Where the events of one delivery are, as counts since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeliveryStats {
    /// Taken from the bus.
    pub accepted: u64,
    /// Taken by the backend.
    pub delivered: u64,
    /// Given up; see [`Delivery::dead_letters`].
    pub dead: u64,
    /// Left over when the delivery was closed.
    pub dropped: u64,
    /// Waiting or under way: what of `accepted` is none of the above.
    pub pending: u64,
    /// Tries after the first, over all events.
    pub retries: u64,
}

/// A queue, batches and retries around a backend.
///
/// Cloning is cheap, and the clones are one delivery: keep one to look at the
/// figures after giving the other to the bus.
///
/// Its tasks start with the first event and end with [`close`](AsyncBackend::close)
/// or when the last clone is dropped; what waits then is dropped with them.
#[derive(Clone)]
pub struct Delivery(Arc<Owner>);

struct Owner {
    start: Once,
    tasks: Mutex<JoinSet<()>>,
    shared: Arc<Shared>,
}

/// What the delivery and its workers share.
struct Shared {
    backend: Arc<dyn AsyncBackend>,
    options: DeliveryOptions,
    queue: Queue,
    counts: Counts,
    dead: DeadLetters,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    delivered: AtomicU64,
    dead: AtomicU64,
    dropped: AtomicU64,
    retries: AtomicU64,
}

impl Delivery {
    /// A delivery to `backend`.
    ///
    /// # Panics
    ///
    /// If the queue, the batch or the number of workers is 0.
    pub fn new(backend: impl AsyncBackend, options: DeliveryOptions) -> Delivery {
        assert!(options.queue > 0, "a delivery needs room for an event");
        assert!(options.batch > 0, "a batch holds an event at least");
        assert!(options.workers > 0, "a delivery needs a worker");
        Delivery(Arc::new(Owner {
            start: Once::new(),
            tasks: Mutex::default(),
            shared: Arc::new(Shared {
                queue: Queue::new(backend.name(), options.queue, options.queue_bytes),
                backend: Arc::new(backend),
                options,
                counts: Counts::default(),
                dead: DeadLetters::default(),
            }),
        }))
    }

    /// Where the events are now.
    pub fn stats(&self) -> DeliveryStats {
        let counts = &self.0.shared.counts;
        // `accepted` is read last: it is never behind the others.
        let mut stats = DeliveryStats {
            delivered: counts.delivered.load(Ordering::SeqCst),
            dead: counts.dead.load(Ordering::SeqCst),
            dropped: counts.dropped.load(Ordering::SeqCst),
            retries: counts.retries.load(Ordering::SeqCst),
            accepted: counts.accepted.load(Ordering::SeqCst),
            pending: 0,
        };
        let settled = stats.delivered + stats.dead + stats.dropped;
        stats.pending = stats.accepted.saturating_sub(settled);
        stats
    }

    /// How many events wait for a worker.
    pub fn queue_len(&self) -> usize {
        self.0.shared.queue.len()
    }

    /// How many events can wait.
    pub fn queue_capacity(&self) -> usize {
        self.0.shared.options.queue
    }

    /// The events that were given up.
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.0.shared.dead
    }

    /// Takes room for `events` without taking them yet, so that a batch can be
    /// given to several deliveries or to none. Room that is not used is free
    /// again when the reservation is dropped.
    ///
    /// # Errors
    ///
    /// [`PublishError::QueueFull`], [`PublishError::Closed`], or
    /// [`PublishError::BatchTooLarge`] for a batch that never fits.
    pub(crate) fn reserve(&self, events: &[Event]) -> Result<Reservation<'_>, PublishError> {
        self.0.shared.queue.reserve(events)
    }

    /// Takes `events`, for which `reservation` holds room.
    pub(crate) fn accept(&self, reservation: Reservation<'_>, events: Vec<Event>) {
        self.start();
        let shared = &self.0.shared;
        shared
            .counts
            .accepted
            .fetch_add(events.len() as u64, Ordering::SeqCst);
        shared.queue.push(reservation, events);
    }

    fn start(&self) {
        self.0.start.call_once(|| {
            let mut tasks = self.0.tasks();
            for _ in 0..self.0.shared.options.workers {
                tasks.spawn(worker::deliver(self.0.shared.clone()));
            }
        });
    }
}

#[async_trait]
impl AsyncBackend for Delivery {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let reservation = self
            .reserve(events)
            .map_err(|error| Failure::all(events.len(), &error))?;
        self.accept(reservation, events.to_vec());
        Ok(())
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let shared = &self.0.shared;
        // None if it is too far away to be a time.
        let deadline = Instant::now().checked_add(grace);
        // Workers that never started could not take what is reserved now.
        self.start();
        shared.queue.close();
        let mut tasks = std::mem::take(&mut *self.0.tasks());
        let drained = async { while tasks.join_next().await.is_some() {} };
        let drained = tokio::time::timeout(grace, drained).await.is_ok();
        tasks.shutdown().await;

        let rest = deadline.map_or(grace, |end| end.saturating_duration_since(Instant::now()));
        let closed = shared.backend.close(rest.max(SHORTEST_CLOSE)).await;

        let pending = self.stats().pending;
        shared.counts.dropped.fetch_add(pending, Ordering::SeqCst);
        if pending == 0 {
            return closed;
        }
        let name = shared.backend.name();
        let mut error = CloseError {
            undelivered: pending as usize,
            reason: match drained {
                true => format!("backend `{name}` stopped taking them"),
                false => format!("backend `{name}` had not taken them after {grace:.1?}"),
            },
        };
        if let Err(inner) = closed {
            error.undelivered += inner.undelivered;
            error.reason = format!("{}; {}", error.reason, inner.reason);
        }
        Err(error)
    }

    fn name(&self) -> &str {
        self.0.shared.backend.name()
    }

    fn attach(&self, handlers: Handlers) {
        self.0.shared.backend.attach(handlers);
    }
}

impl Owner {
    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        // Nothing under this lock can leave the set half changed.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
