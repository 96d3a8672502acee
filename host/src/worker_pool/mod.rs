//! The built-in backend: a pool of tasks that run the async handlers.
//!
//! One job is one handler for one event, so that a slow, failing or panicking
//! handler is nobody else's trouble. The queue is bounded: an event whose jobs
//! do not all find room is not taken.

mod queue;

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, Once, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use tokio::task::JoinSet;

use crate::backend::{AsyncBackend, CloseError, Failure};
use crate::dead_letters::{DeadLetters, Tries};
use crate::event::Event;
use crate::handler::{Handler, Handlers};
use queue::Queue;

/// How many workers a pool has unless told otherwise.
pub const DEFAULT_WORKERS: usize = 10;

/// What the pool is called as a backend.
const NAME: &str = "worker-pool";

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
    shared: Arc<Shared>,
}

/// What the pool and its workers share.
struct Shared {
    queue: Queue<Job>,
    dead: DeadLetters,
}

/// How long handlers that are ended may take to notice.
const LAST_WAIT: Duration = Duration::from_millis(100);

struct Job {
    handler: Handler,
    event: Event,
    /// The number of the next try, counted from 1.
    attempt: u32,
    accepted: Timestamp,
    /// When it was first tried, if it failed then.
    first_try: Option<Timestamp>,
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
        WorkerPool(Arc::new(Owner {
            workers,
            handlers: OnceLock::new(),
            start: Once::new(),
            tasks: Mutex::default(),
            shared: Arc::new(Shared {
                queue: Queue::new(capacity),
                dead: DeadLetters::new(NAME),
            }),
        }))
    }

    /// How many jobs wait: for a worker, or for their next try.
    pub fn queue_len(&self) -> usize {
        self.0.shared.queue.len()
    }

    /// How many jobs can wait.
    pub fn queue_capacity(&self) -> usize {
        self.0.shared.queue.capacity()
    }

    /// The events whose handler failed at the last try.
    pub fn dead_letters(&self) -> &DeadLetters {
        &self.0.shared.dead
    }

    fn start(&self) {
        self.0.start.call_once(|| {
            let mut tasks = self.0.tasks();
            for _ in 0..self.0.workers.get() {
                tasks.spawn(work(self.0.shared.clone()));
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
        let accepted = Timestamp::now();
        let jobs: Vec<Job> = events
            .iter()
            .flat_map(|event| {
                let handlers = handlers.async_handlers(event.event_type());
                handlers.into_iter().map(|handler| Job {
                    handler,
                    event: event.clone(),
                    attempt: 1,
                    accepted,
                    first_try: None,
                })
            })
            .collect();
        let pushed = self.0.shared.queue.push(jobs.into_iter());
        pushed.map_err(|error| Failure::all(events.len(), &error))?;
        // Whoever emits without end gives way now and then, as it would at a
        // channel of tokio's: the workers may be waiting for this very thread.
        tokio::task::coop::consume_budget().await;
        Ok(())
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let queue = &self.0.shared.queue;
        queue.close();
        let drained = tokio::time::timeout(grace, queue.drained()).await;
        let mut tasks = std::mem::take(&mut *self.0.tasks());
        // A handler that never waits cannot be ended.
        let _ = tokio::time::timeout(LAST_WAIT, tasks.shutdown()).await;
        drained.map_err(|_| CloseError {
            undelivered: queue.unfinished(),
            reason: format!("their handlers had not finished after {grace:.1?}"),
        })
    }

    fn name(&self) -> &str {
        NAME
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
    fn tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        // Nothing under this lock can leave the set half changed.
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn work(shared: Arc<Shared>) {
    let mut finished = false;
    loop {
        let job = shared.queue.take(finished).await;
        finished = run(&shared, job).await;
    }
}

/// Runs one try of a job and decides what follows; returns whether nothing does.
async fn run(shared: &Arc<Shared>, mut job: Job) -> bool {
    let began = Timestamp::now();
    let Err(error) = job.handler.call(job.event.clone()).await else {
        return true;
    };
    let first_try = *job.first_try.get_or_insert(began);
    let (id, event_type) = (job.event.id(), job.event.event_type());
    let policy = *job.handler.retry();
    let age = Timestamp::now().duration_since(job.accepted);
    let age = Duration::try_from(age).unwrap_or_default();
    match policy.is_over(job.attempt, age) {
        false => {
            let delay = policy.backoff(job.attempt);
            tracing::warn!(id, event_type, attempt = job.attempt, ?delay, %error,
                "a handler failed and is tried again");
            job.attempt += 1;
            shared.queue.park();
            let shared = shared.clone();
            tokio::spawn(async move {
                tokio::time::sleep(delay).await;
                shared.queue.unpark(job);
            });
            false
        }
        true => {
            tracing::error!(id, event_type, attempts = job.attempt, %error,
                "a handler failed; the event is a dead letter");
            let tries = Tries {
                count: job.attempt,
                first: first_try,
                last: began,
            };
            shared.dead.push(job.event, error.to_string(), tries);
            true
        }
    }
}
