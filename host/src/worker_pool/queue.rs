//! The pool's queue: bounded, with many who push and many who take.
//!
//! One lock holds everything that is counted, so nothing can be between two
//! counters. Waking a task costs far more than the lock, so a worker is woken
//! only if none is already on its way; the one that comes wakes the next if
//! there is more to do. A burst of small jobs is so run by few workers, and
//! long jobs still spread over all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::backend::PublishError;

pub(super) struct Queue<T> {
    capacity: usize,
    /// How many jobs wait, as it stood when the lock was last given back: an
    /// emit that meets a full queue goes away without troubling the workers.
    len: AtomicUsize,
    state: Mutex<State<T>>,
    /// Tells an idle worker that there is something to take.
    ready: Notify,
    /// Tells who waits for the end that all jobs are finished.
    finished: Notify,
}

struct State<T> {
    waiting: VecDeque<T>,
    /// Jobs that wait for their next try, outside the queue. They keep a place.
    parked: usize,
    running: usize,
    /// Workers that wait for a job.
    idle: usize,
    /// Whether one of them has been woken and has not come yet.
    waking: bool,
    closed: bool,
}

impl<T> Queue<T> {
    pub(super) fn new(capacity: usize) -> Queue<T> {
        Queue {
            capacity,
            len: AtomicUsize::new(0),
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                parked: 0,
                running: 0,
                idle: 0,
                waking: false,
                closed: false,
            }),
            ready: Notify::new(),
            finished: Notify::new(),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.capacity
    }

    /// How many jobs wait: for a worker, or for their next try.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::Acquire)
    }

    /// Takes all of `jobs`, or none.
    pub(super) fn push(&self, jobs: impl ExactSizeIterator<Item = T>) -> Result<(), PublishError> {
        let capacity = self.capacity;
        let fits = |len: usize| match len + jobs.len() <= capacity {
            true => Ok(()),
            false => Err(PublishError::QueueFull {
                backend: super::NAME.into(),
                limit: format!("{capacity} jobs"),
            }),
        };
        if jobs.len() > capacity {
            return Err(PublishError::BatchTooLarge {
                backend: super::NAME.into(),
                events: jobs.len(),
                limit: format!("{capacity} jobs, one for each handler of an event"),
            });
        }
        fits(self.len())?;
        let mut state = self.state();
        if state.closed {
            return Err(PublishError::Closed);
        }
        fits(state.len())?;
        state.waiting.extend(jobs);
        self.give_back(state);
        Ok(())
    }

    /// Waits for a job, which the worker then has until it comes for the next,
    /// or calls [`park`](Self::park). `finished` says that the last one is done.
    pub(super) async fn take(&self, mut finished: bool) -> T {
        loop {
            let woken = self.ready.notified();
            {
                let mut state = self.state();
                if std::mem::take(&mut finished) {
                    state.running -= 1;
                }
                if let Some(job) = state.waiting.pop_front() {
                    state.running += 1;
                    self.give_back(state);
                    return job;
                }
                state.idle += 1;
                if state.unfinished() == 0 {
                    self.finished.notify_waiters();
                }
            }
            woken.await;
            let mut state = self.state();
            state.idle -= 1;
            state.waking = false;
        }
    }

    /// Notes that a job which was taken waits for its next try.
    pub(super) fn park(&self) {
        let mut state = self.state();
        state.running -= 1;
        state.parked += 1;
        self.give_back(state);
    }

    /// Puts a parked job into the queue, also when it has been closed.
    pub(super) fn unpark(&self, job: T) {
        let mut state = self.state();
        state.parked -= 1;
        state.waiting.push_back(job);
        self.give_back(state);
    }

    /// Takes no more jobs.
    pub(super) fn close(&self) {
        self.state().closed = true;
    }

    /// How many jobs were taken and are not finished.
    pub(super) fn unfinished(&self) -> usize {
        self.state().unfinished()
    }

    /// Waits until every job is finished.
    pub(super) async fn drained(&self) {
        loop {
            let finished = self.finished.notified();
            if self.unfinished() == 0 {
                return;
            }
            finished.await;
        }
    }

    /// Ends a change of what waits: wakes a worker if one is needed.
    fn give_back(&self, mut state: MutexGuard<'_, State<T>>) {
        self.len.store(state.len(), Ordering::Release);
        if !state.waiting.is_empty() && state.idle > 0 && !state.waking {
            state.waking = true;
            drop(state);
            self.ready.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> State<T> {
    fn len(&self) -> usize {
        self.waiting.len() + self.parked
    }

    fn unfinished(&self) -> usize {
        self.len() + self.running
    }
}
