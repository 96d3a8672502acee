//! The built-in backend: a pool of tasks that run the async handlers.
//!
//! One job is one handler for one event, so that a slow, failing or panicking
//! handler is nobody else's trouble. The queue is bounded: an event whose jobs
//! do not all find room is not taken.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once, OnceLock, PoisonError};
use std::time::Duration;

use async_channel::{Receiver, Sender};
use async_trait::async_trait;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::dead_letters::DeadLetters;
use crate::event::Event;
use crate::handler::{Handler, Handlers};

/// How many workers a pool has unless told otherwise.
pub const DEFAULT_WORKERS: usize = 10;

/// How many jobs a pool's queue holds unless told otherwise.
pub const DEFAULT_QUEUE: usize = 1000;

/// The built-in backend: runs the async handlers in this process.
///
/// Cloning is cheap, and the clones are one pool: keep one to look at the
/// queue or the dead letters after giving the other to the bus.
///
/// The workers are tokio tasks; they start with the first event.
#[derive(Clone)]
pub struct WorkerPool(Arc<Owner>);

/// What the clones share. When it is dropped, so are the workers.
struct Owner {
    workers: NonZeroUsize,
    handlers: OnceLock<Handlers>,
    start: Once,
    tasks: Mutex<JoinSet<()>>,
    queue: Receiver<Job>,
    shared: Arc<Shared>,
}

/// What the pool and its workers share.
struct Shared {
    /// Unbounded by itself; `queued` is what bounds it.
    sender: Sender<Job>,
    capacity: usize,
    /// Jobs that wait for a worker or for their next try; with [`CLOSED`] set,
    /// none is taken any more.
    queued: AtomicUsize,
    /// Jobs that were taken and are not finished.
    unfinished: AtomicUsize,
    /// Told when `unfinished` becomes 0.
    finished: Notify,
    dead: DeadLetters,
}

/// The bit of `queued` that closes the pool. It shares the counter, so that
/// taking room and closing cannot miss each other.
const CLOSED: usize = 1 << (usize::BITS - 1);

struct Job {
    handler: Handler,
    event: Event,
    /// The number of the next try, counted from 1.
    attempt: u32,
}

impl WorkerPool {
    /// A pool of `workers` tasks and a queue of `capacity` jobs. A job is one
    /// handler for one event.
    ///
    /// # Panics
    ///
    /// If either is 0: such a pool could never take an event.
    pub fn new(workers: usize, capacity: usize) -> WorkerPool {
        let workers = NonZeroUsize::new(workers).expect("a worker pool needs a worker");
        assert!(capacity > 0, "a worker pool needs room for a job");
        let (sender, queue) = async_channel::unbounded();
        WorkerPool(Arc::new(Owner {
            workers,
            handlers: OnceLock::new(),
            start: Once::new(),
            tasks: Mutex::default(),
            queue,
            shared: Arc::new(Shared {
                sender,
                capacity,
                queued: AtomicUsize::new(0),
                unfinished: AtomicUsize::new(0),
                finished: Notify::new(),
                dead: DeadLetters::default(),
            }),
        }))
    }

    /// How many jobs wait: for a worker, or for their next try.
    pub fn queue_len(&self) -> usize {
        self.0.shared.queued.load(Ordering::Relaxed) & !CLOSED
    }

    /// How many jobs can wait.
    pub fn queue_capacity(&self) -> usize {
        self.0.shared.capacity
    }

    /// The events whose handler failed at the last try.
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.0.shared.dead
    }

    fn start(&self) {
        self.0.start.call_once(|| {
            let mut tasks = self.0.tasks();
            for _ in 0..self.0.workers.get() {
                tasks.spawn(work(self.0.queue.clone(), self.0.shared.clone()));
            }
        });
    }
}

impl Default for WorkerPool {
    /// A pool of [`DEFAULT_WORKERS`] and [`DEFAULT_QUEUE`].
    fn default() -> WorkerPool {
        WorkerPool::new(DEFAULT_WORKERS, DEFAULT_QUEUE)
    }
}

#[async_trait]
impl AsyncBackend for WorkerPool {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let Some(handlers) = self.0.handlers.get() else {
            return Ok(());
        };
        self.start();
        let shared = &self.0.shared;
        let jobs: Vec<Job> = events
            .iter()
            .flat_map(|event| {
                let handlers = handlers.async_handlers(event.event_type());
                handlers.into_iter().map(|handler| Job {
                    handler,
                    event: event.clone(),
                    attempt: 1,
                })
            })
            .collect();
        shared
            .reserve(jobs.len())
            .map_err(|error| Failure::all(events.len(), &error))?;
        for job in jobs {
            shared.enqueue(job);
        }
        Ok(())
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let shared = &self.0.shared;
        shared.queued.fetch_or(CLOSED, Ordering::SeqCst);
        let drained = tokio::time::timeout(grace, shared.drained()).await;
        self.0.tasks().abort_all();
        drained.map_err(|_| CloseError {
            undelivered: shared.unfinished.load(Ordering::SeqCst),
            reason: format!("their handlers had not finished after {grace:?}"),
        })
    }

    fn name(&self) -> &str {
        "worker-pool"
    }

    fn attach(&self, handlers: Handlers) {
        // A pool serves one bus: the first keeps it.
        if self.0.handlers.set(handlers).is_err() {
            tracing::warn!(
                "this worker pool already serves another bus and ignores this one's handlers"
            );
        }
    }
}

impl Owner {
    fn tasks(&self) -> std::sync::MutexGuard<'_, JoinSet<()>> {
        // Nothing under this lock can leave the set half changed.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Takes room for `jobs` jobs, or for none.
    fn reserve(&self, jobs: usize) -> Result<(), PublishError> {
        // Counted as unfinished first: a `close` that comes after the room was
        // taken then waits for these jobs, one that came before it refuses them.
        self.unfinished.fetch_add(jobs, Ordering::SeqCst);
        // A set CLOSED bit is more than any capacity.
        let room = |queued: usize| queued.checked_add(jobs).filter(|sum| *sum <= self.capacity);
        match self
            .queued
            .fetch_update(Ordering::SeqCst, Ordering::Relaxed, room)
        {
            Ok(_) => Ok(()),
            Err(queued) => {
                self.finish(jobs);
                Err(match queued & CLOSED {
                    0 => PublishError::QueueFull {
                        capacity: self.capacity,
                    },
                    _ => PublishError::Closed,
                })
            }
        }
    }

    /// Gives a job, for which there is room, to the workers.
    fn enqueue(&self, job: Job) {
        self.sender
            .try_send(job)
            .expect("the channel is unbounded and nobody closes it");
    }

    fn finish(&self, jobs: usize) {
        if self.unfinished.fetch_sub(jobs, Ordering::SeqCst) == jobs {
            self.finished.notify_waiters();
        }
    }

    async fn drained(&self) {
        loop {
            let finished = self.finished.notified();
            if self.unfinished.load(Ordering::SeqCst) == 0 {
                return;
            }
            finished.await;
        }
    }

    /// Runs one try of a job and decides what follows.
    async fn run(self: &Arc<Self>, mut job: Job) {
        let Err(error) = job.handler.call(job.event.clone()).await else {
            return self.finish(1);
        };
        let (id, event_type) = (job.event.id(), job.event.event_type());
        match job.handler.retry().delay_after(job.attempt) {
            Some(delay) => {
                tracing::warn!(id, event_type, attempt = job.attempt, ?delay, %error,
                    "a handler failed and is tried again");
                job.attempt += 1;
                // The job keeps its place among the waiting while it waits.
                self.queued.fetch_add(1, Ordering::Relaxed);
                let shared = self.clone();
                tokio::spawn(async move {
                    tokio::time::sleep(delay).await;
                    shared.enqueue(job);
                });
            }
            None => {
                tracing::error!(id, event_type, attempts = job.attempt, %error,
                    "a handler failed; the event is a dead letter");
                self.dead.push(job.event, error.to_string(), job.attempt);
                self.finish(1);
            }
        }
    }
}

async fn work(queue: Receiver<Job>, shared: Arc<Shared>) {
    while let Ok(job) = queue.recv().await {
        shared.queued.fetch_sub(1, Ordering::Relaxed);
        shared.run(job).await;
    }
}
