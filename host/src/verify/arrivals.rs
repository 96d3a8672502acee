//! What has arrived, read all the while on a thread of its own: a queue that keeps
//! little must not forget what a case will ask for.

use std::collections::HashSet;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::readers::{Reader, ReaderError};
use crate::event::Event;

/// How long the thread waits when nothing has come.
const PAUSE: Duration = Duration::from_millis(10);

/// How long it waits when the reader has failed.
const PAUSE_AFTER_FAILURE: Duration = Duration::from_millis(200);

pub(super) struct Arrivals {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    place: String,
    max_event: Option<u64>,
    quiet: Duration,
    patience: Duration,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Whose events are kept.
    source: String,
    events: Vec<Event>,
    /// The ids of those.
    ids: HashSet<String>,
    /// When one of them last came.
    last: Option<Instant>,
    /// How often, since then, the reader has found nothing.
    empty_reads: usize,
    /// Why nothing can be told any more.
    failed: Option<ReaderError>,
    stopped: bool,
}

impl Arrivals {
    /// Reads with `reader` from now on. After the last event of a case has come, or
    /// was to, another may take `patience` to.
    pub(super) fn of(reader: Box<dyn Reader>, patience: Duration) -> Arrivals {
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            changed: Condvar::new(),
        });
        Arrivals {
            place: reader.place(),
            max_event: reader.max_event(),
            quiet: reader.quiet(),
            patience,
            thread: Some(std::thread::spawn({
                let shared = shared.clone();
                move || follow(reader, &shared)
            })),
            shared,
        }
    }

    /// Where it reads.
    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// The largest event the server takes, if it tells.
    pub(super) fn max_event(&self) -> Option<u64> {
        self.max_event
    }

    /// Keeps the events of `source` from now on, and forgets the others.
    pub(super) fn begin(&self, source: &str) {
        let mut state = self.shared.state();
        source.clone_into(&mut state.source);
        state.events.clear();
        state.ids.clear();
    }

    /// What has arrived, once `expected` different events have and nothing more is on
    /// its way, or nothing more comes. Blocks.
    ///
    /// # Errors
    ///
    /// If the reader cannot tell any more.
    pub(super) fn settled(&self, expected: usize) -> Result<Vec<Event>, ReaderError> {
        let began = Instant::now();
        let mut state = self.shared.state();
        state.empty_reads = 0;
        loop {
            if let Some(error) = &state.failed {
                return Err(error.clone());
            }
            if self.thread.as_ref().is_none_or(JoinHandle::is_finished) {
                return Err(ReaderError("the reader has ended".to_owned()));
            }
            let since = state.last.map_or(began, |last| last.max(began)).elapsed();
            let wait = match state.ids.len() >= expected {
                true => self.quiet,
                false => self.patience,
            };
            if since >= wait && state.empty_reads >= 2 {
                return Ok(state.events.clone());
            }
            state = self.shared.wait(state);
        }
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.shared.state().stopped = true;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State>) -> MutexGuard<'a, State> {
        let waited = self.changed.wait_timeout(state, PAUSE);
        waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

fn follow(mut reader: Box<dyn Reader>, shared: &Shared) {
    let mut failing: Option<Instant> = None;
    while !shared.state().stopped {
        let read = reader.read();
        let mut state = shared.state();
        let pause = match read {
            Ok(events) => {
                failing = None;
                match state.take(events) {
                    true => Duration::ZERO,
                    false => PAUSE,
                }
            }
            Err(error) => {
                let since = *failing.get_or_insert_with(Instant::now);
                if since.elapsed() >= reader.longest_outage() {
                    state.failed = Some(error);
                }
                PAUSE_AFTER_FAILURE
            }
        };
        drop(state);
        shared.changed.notify_all();
        std::thread::sleep(pause);
    }
    reader.close();
}

impl State {
    /// Keeps those of `events` that are asked for; whether there were any.
    fn take(&mut self, events: Vec<Event>) -> bool {
        let before = self.events.len();
        for event in events {
            if event.source() == self.source {
                self.ids.insert(event.id().to_owned());
                self.events.push(event);
            }
        }
        let found = self.events.len() > before;
        match found {
            true => (self.last, self.empty_reads) = (Some(Instant::now()), 0),
            false => self.empty_reads += 1,
        }
        found
    }
}
