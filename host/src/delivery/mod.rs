//! Delivery: what stands between an emit and a backend that may be slow or away.
//!
//! A [`Delivery`] wraps any [`AsyncBackend`] and is one itself. Its events are in
//! a bounded `window`; its own tasks (`worker`) form batches, call the wrapped
//! backend, and try again what may work later. It knows neither plugins nor
//! Wasm. There are two kinds:
//!
//! - [`Delivery::new`]: `publish` takes a place in the window (`reservation`),
//!   which is all there is. What waits when the delivery is closed is dropped.
//! - `Delivery::fed`: events come from a `feed`, which keeps them durably; a
//!   task (`pump`) reads ahead while the window has room. What is not settled
//!   when the time to close is over stays with the feed.
//!
//! Invariants, for each delivery at every moment:
//!
//! - accepted = delivered + dead + dropped + pending ([`DeliveryStats`]).
//! - An event leaves `pending` only when the backend took it, or refused it for
//!   good, or its tries are used up, or the delivery was closed and has no feed.
//! - With one worker, events reach the backend in the order they were accepted:
//!   later ones wait while an earlier one is tried again. With several, this
//!   holds among events of the same key (`item`).
//! - A backend that takes nothing is asked for one event at a time, after waits
//!   that grow (`breaker`).

mod books;
mod breaker;
mod feed;
mod item;
mod latency;
mod log_rate;
mod options;
mod pump;
mod reservation;
mod stats;
mod window;
mod worker;

#[cfg(test)]
mod fed_tests;
#[cfg(test)]
mod model;
#[cfg(test)]
mod test_feed;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use tokio::task::JoinSet;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::dead_letters::DeadLetters;
use crate::event::Event;
use crate::handler::Handlers;

pub(crate) use books::{Books, DeliveryCounts, DropReason};
pub use breaker::BreakerState;
pub(crate) use feed::{Burial, Entry, Feed, Outcome};
pub use latency::LatencySnapshot;
pub use options::DeliveryOptions;
pub(crate) use reservation::Reservation;
pub use stats::{DeliveryStats, Dropped};

use breaker::Breaker;
use item::Mode;
use latency::Latency;
use log_rate::LogRate;
use window::{Limits, Window};

/// What the wrapped backend's `close` gets at least, however long draining took.
const SHORTEST_CLOSE: Duration = Duration::from_secs(1);

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

/// What the delivery and its tasks share.
struct Shared {
    backend: Arc<dyn AsyncBackend>,
    /// Where the events come from, if they are kept durably.
    feed: Option<Arc<dyn Feed>>,
    options: ArcSwap<DeliveryOptions>,
    /// How many workers there are.
    workers: Mutex<usize>,
    window: Window,
    breaker: Breaker,
    books: Arc<Books>,
    latency: Latency,
    /// Stays empty if there is a feed.
    dead: DeadLetters,
    /// Bounds what is logged of dead letters.
    buried: LogRate,
    /// Bounds what is logged of publishes that failed in part.
    failed: LogRate,
}

impl Delivery {
    /// A delivery to `backend`, whose events are in memory only.
    ///
    /// # Panics
    ///
    /// If the queue, the batch or the number of workers is 0.
    pub fn new(backend: impl AsyncBackend, options: DeliveryOptions) -> Delivery {
        Delivery::with(Arc::new(backend), options, None)
    }

    /// A delivery to `backend` of what `feed` has for it. Starts at once, in the
    /// runtime of the caller.
    ///
    /// # Panics
    ///
    /// As [`new`](Self::new), and outside a tokio runtime.
    pub(crate) fn fed(
        backend: impl AsyncBackend,
        options: DeliveryOptions,
        feed: Arc<dyn Feed>,
    ) -> Delivery {
        let delivery = Delivery::with(Arc::new(backend), options, Some(feed.clone()));
        delivery.start();
        let shared = delivery.0.shared.clone();
        delivery.0.tasks().spawn(async move {
            pump::pump(&shared.window, feed).await;
        });
        delivery
    }

    fn with(
        backend: Arc<dyn AsyncBackend>,
        options: DeliveryOptions,
        feed: Option<Arc<dyn Feed>>,
    ) -> Delivery {
        options.check();
        Delivery(Arc::new(Owner {
            started: AtomicBool::new(false),
            tasks: Mutex::default(),
            shared: Arc::new(Shared {
                books: feed.as_ref().map(|feed| feed.books()).unwrap_or_default(),
                feed,
                window: Window::new(backend.name(), options.queue, options.queue_bytes),
                dead: DeadLetters::new(backend.name()),
                backend,
                options: ArcSwap::from_pointee(options),
                workers: Mutex::new(0),
                breaker: Breaker::new(),
                latency: Latency::default(),
                buried: LogRate::default(),
                failed: LogRate::default(),
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
        // Once it was closed, the workers that are there finish; `close` would
        // not wait for another.
        if self.0.started.load(Ordering::Relaxed) && !self.0.shared.window.is_closed() {
            self.0.hire(&mut tasks);
        }
        drop(tasks);
        // Those that are too many end when they look.
        self.0.shared.window.wake();
    }

    /// Where the events are now, and how the backend fares.
    pub fn stats(&self) -> DeliveryStats {
        let shared = &self.0.shared;
        DeliveryStats::new(&shared.books.counts(), &shared.breaker)
    }

    /// How long the events took from being accepted to being delivered, since
    /// the delivery was made.
    pub fn latency(&self) -> LatencySnapshot {
        self.0.shared.latency.snapshot()
    }

    /// How many events are in memory and wait for a worker.
    pub fn queue_len(&self) -> usize {
        self.0.shared.window.len()
    }

    /// How many events can wait in memory.
    pub fn queue_capacity(&self) -> usize {
        self.0.shared.options.load().queue
    }

    /// The events that were given up. A delivery whose events are kept durably
    /// has none here: so are its dead letters.
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.0.shared.dead
    }

    /// Puts dead letters back into the queue, as events that are accepted now;
    /// `ids` names them. Those for which there is no room stay dead letters.
    /// Returns how many were put back.
    pub fn retry_dead(&self, ids: &[u64]) -> usize {
        let dead = self.dead_letters();
        let retry = |id: &u64| {
            let Some(letter) = dead.get(*id) else {
                return false;
            };
            let Ok(room) = self.reserve(std::slice::from_ref(&letter.event)) else {
                return false;
            };
            // Somebody else may have taken it since.
            let taken = dead.take(*id).is_some();
            if taken {
                self.accept(room, vec![letter.event]);
            }
            taken
        };
        ids.iter().filter(|id| retry(id)).count()
    }

    /// Takes room for `events` without taking them yet, so that a batch can be
    /// given to several deliveries or to none. Room that is not used is free
    /// again when the reservation is dropped. Not for deliveries with a feed,
    /// which accepts by itself.
    ///
    /// # Errors
    ///
    /// [`PublishError::QueueFull`], [`PublishError::Closed`], or
    /// [`PublishError::BatchTooLarge`] for a batch that never fits.
    pub(crate) fn reserve(&self, events: &[Event]) -> Result<Reservation<'_>, PublishError> {
        debug_assert!(self.0.shared.feed.is_none(), "events come from the feed");
        self.0.shared.window.reserve(events)
    }

    /// Takes `events`, for which `reservation` holds room.
    pub(crate) fn accept(&self, reservation: Reservation<'_>, events: Vec<Event>) {
        self.start();
        let shared = &self.0.shared;
        // Before a worker can settle them: `stats` never sees more settled than
        // accepted.
        shared.books.accept(events.len() as u64);
        shared.window.push(reservation, events);
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
        let all = |error| Failure::all(events.len(), &error);
        let shared = &self.0.shared;
        match &shared.feed {
            Some(_) if shared.window.is_closing() => Err(all(PublishError::Closed)),
            Some(feed) => feed.append(events).await.map_err(all),
            None => {
                let reservation = self.reserve(events).map_err(all)?;
                self.accept(reservation, events.to_vec());
                Ok(())
            }
        }
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let shared = &self.0.shared;
        // None if it is too far away to be a time.
        let deadline = Instant::now().checked_add(grace);
        // Workers that never started could not take what is reserved now.
        self.start();
        let rest = || deadline.map_or(grace, |end| end.saturating_duration_since(Instant::now()));
        if shared.feed.is_some() {
            // What is on disk and was not read yet is delivered too, if there is time.
            shared.window.begin_close();
            let accepted = shared.books.counts().accepted;
            let drained = shared
                .window
                .until(|| shared.books.counts().settled() >= accepted);
            let _ = tokio::time::timeout(grace, drained).await;
        }
        shared.window.close();
        let mut tasks = std::mem::take(&mut *self.0.tasks());
        let drained = async { while tasks.join_next().await.is_some() {} };
        let drained = tokio::time::timeout(rest(), drained).await.is_ok();
        tasks.shutdown().await;

        let closed = shared.backend.close(rest().max(SHORTEST_CLOSE)).await;
        if let Some(feed) = &shared.feed {
            // What is not settled is where it was.
            feed.release().await;
            return closed;
        }

        let pending = shared.books.counts().pending();
        shared.books.drop_(DropReason::Closed, pending);
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

impl Shared {
    /// What a worker may take at once; `None` if there is a worker too many and
    /// this one has to end. When the window is closed, all that are there stay.
    fn next_batch(&self, closed: bool) -> Option<Limits> {
        let options = self.options.load();
        let mut workers = self.workers();
        if *workers > options.workers && !closed {
            *workers -= 1;
            return None;
        }
        Some(Limits {
            events: options.batch,
            bytes: options.batch_bytes,
            mode: match (options.ordered, options.workers) {
                (false, _) => Mode::Any,
                (true, 1) => Mode::Whole,
                (true, _) => Mode::ByKey,
            },
        })
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
