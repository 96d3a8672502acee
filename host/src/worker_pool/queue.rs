//! The pool's queue: bounded, with many who push and many who take.
//!
//! One lock holds everything that is counted, so nothing can be between two
//! counters. Waking a task costs far more than the lock, so a worker is woken
//! only if none is already on its way; the one that comes wakes the next if
//! there is more to do. A burst of small jobs is so run by few workers, and
//! long jobs still spread over all.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::backend::PublishError;

pub(super) struct Queue<T> {
    capacity: usize,
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
        let state = self.state();
        state.waiting.len() + state.parked
    }

    /// Takes all of `jobs`, or none.
    pub(super) fn push(&self, jobs: impl ExactSizeIterator<Item = T>) -> Result<(), PublishError> {
        let mut state = self.state();
        if state.closed {
            return Err(PublishError::Closed);
        }
        let room = self
            .capacity
            .saturating_sub(state.waiting.len() + state.parked);
        if jobs.len() > room {
            return Err(PublishError::QueueFull {
                capacity: self.capacity,
            });
        }
        state.waiting.extend(jobs);
        self.wake_if_needed(state);
        Ok(())
    }

    /// Waits for a job; the worker then has it until it calls
    /// [`finish`](Self::finish) or [`park`](Self::park).
    pub(super) async fn take(&self) -> T {
        loop {
            let woken = self.ready.notified();
            {
                let mut state = self.state();
                if let Some(job) = state.waiting.pop_front() {
                    state.running += 1;
                    self.wake_if_needed(state);
                    return job;
                }
                state.idle += 1;
            }
            woken.await;
            let mut state = self.state();
            state.idle -= 1;
            state.waking = false;
        }
    }

    /// Notes that a job which was taken is done, well or not.
    pub(super) fn finish(&self) {
        let mut state = self.state();
        state.running -= 1;
        if state.unfinished() == 0 {
            self.finished.notify_waiters();
        }
    }

    /// Notes that a job which was taken waits for its next try.
    pub(super) fn park(&self) {
        let mut state = self.state();
        state.running -= 1;
        state.parked += 1;
    }

    /// Puts a parked job into the queue, also when it has been closed.
    pub(super) fn unpark(&self, job: T) {
        let mut state = self.state();
        state.parked -= 1;
        state.waiting.push_back(job);
        self.wake_if_needed(state);
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

    fn wake_if_needed(&self, mut state: MutexGuard<'_, State<T>>) {
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
    fn unfinished(&self) -> usize {
        self.waiting.len() + self.parked + self.running
    }
}
