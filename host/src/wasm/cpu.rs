//! How much processor time a call has used.
//!
//! The engine's epoch, of 10 ms, interrupts a guest that computes; here is what
//! an interrupted guest is told: go on later, or no further. What is counted is
//! the time between the moments a call is taken up and put down again, host
//! calls included and waiting left out.

use std::fmt;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};
use wasmtime::{Store, UpdateDeadline};

use super::engine::EPOCH;

/// The processor time of the call an instance is in. Clones count together.
#[derive(Clone)]
pub(super) struct CpuMeter(Arc<Mutex<Used>>);

struct Used {
    limit: Duration,
    used: Duration,
    /// Since when the call has been at work.
    since: Since,
    /// Whether it has given way since an epoch found it at work.
    busy: bool,
}

#[derive(Clone, Copy)]
enum Since {
    /// It is not.
    Waiting,
    /// By the clock on the wall. Right for a call that is done at once, which is
    /// almost every one, and reading it takes a tenth of what the other takes.
    Wall(Instant),
    /// By the processor time of the thread, which leaves out the time other
    /// threads and programs had. For calls that compute for long.
    Thread(Duration),
}

/// A call used more than the limit.
#[derive(Debug)]
pub(super) struct CpuExceeded;

impl fmt::Display for CpuExceeded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the limit of processor time was reached")
    }
}

impl std::error::Error for CpuExceeded {}

impl CpuMeter {
    /// A meter that stops what runs in `store` when a call has used `limit`.
    pub(super) fn new<T>(limit: Duration, store: &mut Store<T>) -> CpuMeter {
        let meter = CpuMeter(Arc::new(Mutex::new(Used {
            limit,
            used: Duration::ZERO,
            since: Since::Waiting,
            busy: false,
        })));
        let in_store = meter.clone();
        // The next epoch that counts begins after the guest has given way and
        // has been taken up again: the deadline is set then.
        store.epoch_deadline_callback(move |_| match in_store.epoch() {
            true => Ok(UpdateDeadline::Yield(1)),
            false => Err(CpuExceeded.into()),
        });
        meter
    }

    /// Runs a call, counted from zero.
    pub(super) async fn measure<R>(&self, call: impl Future<Output = R>) -> R {
        self.begin();
        let mut call = pin!(call);
        std::future::poll_fn(|context| {
            self.resume();
            let polled = call.as_mut().poll(context);
            self.pause();
            polled
        })
        .await
    }

    fn begin(&self) {
        let mut used = self.lock();
        used.used = Duration::ZERO;
        used.busy = false;
    }

    fn resume(&self) {
        let mut used = self.lock();
        used.since = match std::mem::take(&mut used.busy) {
            true => Since::Thread(thread_time()),
            false => Since::Wall(Instant::now()),
        };
    }

    fn pause(&self) {
        self.lock().count();
    }

    /// An epoch is over, and the guest at work. Whether it may go on.
    fn epoch(&self) -> bool {
        let mut used = self.lock();
        used.count();
        used.busy = true;
        used.since = Since::Thread(thread_time());
        used.used < used.limit
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        // Nothing under this lock can leave the figures half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Used {
    fn count(&mut self) {
        self.used += match std::mem::replace(&mut self.since, Since::Waiting) {
            Since::Waiting => Duration::ZERO,
            // What is more than an epoch, the system gave to others.
            Since::Wall(start) => start.elapsed().min(EPOCH),
            Since::Thread(start) => thread_time().saturating_sub(start),
        };
    }
}

/// The processor time this thread has used.
fn thread_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
