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

mod log_rate;
mod queue;
mod worker;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::dead_letters::DeadLetters;
use crate::event::Event;
use crate::handler::Handlers;
use crate::retry::RetryPolicy;

use log_rate::LogRate;
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
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
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
    /// Whether workers were started: with the first event.
    started: AtomicBool,
    tasks: Mutex<JoinSet<()>>,
    shared: Arc<Shared>,
}

/// What the delivery and its workers share.
struct Shared {
    backend: Arc<dyn AsyncBackend>,
    options: ArcSwap<DeliveryOptions>,
    /// How many workers there are.
    workers: Mutex<usize>,
    queue: Queue,
    counts: Counts,
    dead: DeadLetters,
    /// Bounds what is logged of them.
    buried: LogRate,
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
        options.check();
        Delivery(Arc::new(Owner {
            started: AtomicBool::new(false),
            tasks: Mutex::default(),
            shared: Arc::new(Shared {
                queue: Queue::new(backend.name(), options.queue, options.queue_bytes),
                backend: Arc::new(backend),
                options: ArcSwap::from_pointee(options),
                workers: Mutex::new(0),
                counts: Counts::default(),
                dead: DeadLetters::default(),
                buried: LogRate::default(),
            }),
        }))
    }

    /// Changes the options while events flow, all but the size of the queue. A
    /// batch that is under way keeps the old ones.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new).
    pub fn reconfigure(&self, options: DeliveryOptions) {
        options.check();
        let current = self.0.shared.options.load();
        self.0.shared.options.store(Arc::new(DeliveryOptions {
            queue: current.queue,
            queue_bytes: current.queue_bytes,
            ..options
        }));
        let mut tasks = self.0.tasks();
        if self.0.started.load(Ordering::Relaxed) {
            self.0.hire(&mut tasks);
        }
        drop(tasks);
        // Those that are too many end when they look.
        self.0.shared.queue.wake();
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
        self.0.shared.options.load().queue
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
        if self.0.started.load(Ordering::Relaxed) {
            return;
        }
        let mut tasks = self.0.tasks();
        if !self.0.started.swap(true, Ordering::Relaxed) {
            self.0.hire(&mut tasks);
        }
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

impl DeliveryOptions {
    fn check(&self) {
        assert!(self.queue > 0, "a delivery needs room for an event");
        assert!(self.batch > 0, "a batch holds an event at least");
        assert!(self.workers > 0, "a delivery needs a worker");
    }
}

impl Shared {
    /// How much a worker may take at once; `None` if there is a worker too many
    /// and this one has to end.
    fn next_batch(&self) -> Option<(usize, usize)> {
        let options = self.options.load();
        let mut workers = self.workers();
        if *workers > options.workers {
            *workers -= 1;
            return None;
        }
        Some((options.batch, options.batch_bytes))
    }

    fn workers(&self) -> MutexGuard<'_, usize> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Owner {
    /// Starts the workers that are missing.
    fn hire(&self, tasks: &mut JoinSet<()>) {
        while tasks.try_join_next().is_some() {}
        let mut workers = self.shared.workers();
        while *workers < self.shared.options.load().workers {
            tasks.spawn(worker::deliver(self.shared.clone()));
            *workers += 1;
        }
    }

    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        // Nothing under this lock can leave the set half changed.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
