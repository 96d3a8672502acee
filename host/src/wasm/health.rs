//! How the instances of a backend fare: how many broke in a row, and when the
//! next may be started.
//!
//! It counts and computes. Who waits is `backend`; who decides that it has been
//! enough is whoever keeps the backend (see `plugins`).

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::retry::RetryPolicy;

/// What instances have done since the backend was started.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Health {
    /// How many have been started.
    pub started: u64,
    /// How many broke: trapped, ran over a limit, or answered what the contract
    /// does not allow.
    pub broken: u64,
    /// How many of them broke since a call last came back as it should, one after
    /// the other: those that broke together count once. Calls that waited for a
    /// server too long are not among them: the fault may be the server's.
    pub broken_in_a_row: u32,
    /// What the last one died of.
    pub last_error: Option<String>,
}

#[derive(Debug, Default)]
pub(super) struct HealthMeter(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    health: Health,
    /// When the next instance may be started; `None` for now.
    not_before: Option<Instant>,
}

impl HealthMeter {
    pub(super) fn snapshot(&self) -> Health {
        self.state().health.clone()
    }

    pub(super) fn broken_in_a_row(&self) -> u32 {
        self.state().health.broken_in_a_row
    }

    pub(super) fn started(&self) {
        self.state().health.started += 1;
    }

    /// A call came back as it should.
    pub(super) fn sound(&self) {
        let mut state = self.state();
        if state.health.broken_in_a_row > 0 {
            state.health.broken_in_a_row = 0;
            state.not_before = None;
        }
    }

    /// An instance broke, or did not start. `own_fault` is false if a server may
    /// be to blame. The first is replaced at once, further ones after growing
    /// delays.
    pub(super) fn broke(&self, error: String, own_fault: bool) {
        let mut state = self.state();
        state.health.broken += 1;
        state.health.last_error = Some(error);
        // Instances that break before the next may be started broke of one cause.
        let again = state.not_before.is_none_or(|time| time <= Instant::now());
        if own_fault && again {
            let before = state.health.broken_in_a_row;
            state.health.broken_in_a_row = before.saturating_add(1);
            let delay = match before {
                0 => Duration::ZERO,
                before => RetryPolicy::default().backoff(before),
            };
            state.not_before = Some(Instant::now() + delay);
        }
    }

    /// Forgets what broke, so that the next instance is started at once.
    pub(super) fn forgive(&self) {
        let mut state = self.state();
        state.health.broken_in_a_row = 0;
        state.not_before = None;
    }

    /// How long to wait before an instance is started.
    pub(super) fn delay(&self) -> Duration {
        let not_before = self.state().not_before;
        not_before.map_or(Duration::ZERO, |time| {
            time.saturating_duration_since(Instant::now())
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can leave the state half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_replaced_at_once_and_later_ones_after_a_while() {
        let meter = HealthMeter::default();
        meter.broke("one".to_owned(), true);
        assert_eq!(meter.delay(), Duration::ZERO);
        let delays: Vec<Duration> = (0..50)
            .map(|_| {
                meter.state().not_before = Some(Instant::now());
                meter.broke("again".to_owned(), true);
                meter.delay()
            })
            .collect();
        assert!(
            delays
                .iter()
                .any(|delay| *delay > Duration::from_millis(500))
        );
        assert!(delays.iter().all(|delay| *delay <= Duration::from_secs(5)));
        assert_eq!(meter.snapshot().broken_in_a_row, 51);
        meter.sound();
        assert_eq!(meter.delay(), Duration::ZERO);
        assert_eq!(meter.snapshot().broken_in_a_row, 0);
        assert_eq!(meter.snapshot().broken, 51);
    }

    #[test]
    fn instances_that_break_together_break_once() {
        let meter = HealthMeter::default();
        meter.broke("first".to_owned(), true);
        meter.state().not_before = Some(Instant::now() + Duration::from_secs(60));
        for _ in 0..15 {
            meter.broke("the server went away".to_owned(), true);
        }
        let health = meter.snapshot();
        assert_eq!((health.broken, health.broken_in_a_row), (16, 1));
    }

    #[test]
    fn what_may_be_a_servers_fault_is_counted_but_not_held_against_it() {
        let meter = HealthMeter::default();
        for _ in 0..5 {
            meter.broke("slow".to_owned(), false);
        }
        let health = meter.snapshot();
        assert_eq!((health.broken, health.broken_in_a_row), (5, 0));
        assert_eq!(meter.delay(), Duration::ZERO);
    }
}
