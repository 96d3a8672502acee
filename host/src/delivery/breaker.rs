//! Whether a backend that takes nothing is left alone.
//!
//! One for each delivery, shared by its workers. After a few publishes in a row
//! that moved nothing it opens: then only one worker at a time offers a single
//! event, after the wait of the retry policy. The first publish that moves
//! something closes it, and batches grow again from one event.

use std::future::Future;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use crate::retry::RetryPolicy;

/// How many publishes in a row move nothing until the breaker opens.
const MAX_FAILURES: u32 = 3;

/// Whether a delivery offers its events, or asks gently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BreakerState {
    /// Events are offered as they come.
    #[default]
    Closed,
    /// The backend takes nothing: one event at a time is offered now and then.
    Open,
}

#[derive(Debug)]
pub(super) struct Breaker {
    now: Mutex<Now>,
    /// Held by the one worker that offers an event while the breaker is open.
    probe: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Now {
    state: BreakerState,
    /// How many publishes in a row have moved nothing.
    failures: u32,
    /// Since when.
    failing: Option<(Timestamp, Instant)>,
    /// How many events one publish may have. Grows after the breaker closed.
    limit: usize,
    last_error: Option<String>,
}

/// That a worker may publish: this many events at most.
pub(super) struct Turn<'a> {
    pub(super) limit: usize,
    _probe: Option<tokio::sync::MutexGuard<'a, ()>>,
}

/// What a publish did to the breaker, to be logged.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Switch {
    /// It did not move anything, as the first in a row.
    Failing,
    /// It opened.
    Opened,
    /// It moved something, after publishes had moved nothing for this long.
    Closed(Duration),
}

impl Breaker {
    pub(super) fn new() -> Breaker {
        Breaker {
            now: Mutex::new(Now {
                state: BreakerState::Closed,
                failures: 0,
                failing: None,
                limit: usize::MAX,
                last_error: None,
            }),
            probe: tokio::sync::Mutex::default(),
        }
    }

    /// Waits until a worker may publish. `hurry` cuts one wait short.
    pub(super) async fn turn<H: Future<Output = ()>>(
        &self,
        retry: impl Fn() -> RetryPolicy,
        hurry: impl Fn() -> H,
    ) -> Turn<'_> {
        loop {
            if let Ok(limit) = self.limit() {
                return Turn {
                    limit,
                    _probe: None,
                };
            }
            let probe = self.probe.lock().await;
            // Its holder may have closed the breaker.
            let Err(failures) = self.limit() else {
                continue;
            };
            tokio::select! {
                () = tokio::time::sleep(retry().backoff(failures)) => {}
                () = hurry() => {}
            }
            // A publish that was under way may have.
            if self.limit().is_err() {
                return Turn {
                    limit: 1,
                    _probe: Some(probe),
                };
            }
        }
    }

    /// How many events a publish may have; if it is open, how many failed.
    fn limit(&self) -> Result<usize, u32> {
        let now = self.now();
        match now.state {
            BreakerState::Closed => Ok(now.limit),
            BreakerState::Open => Err(now.failures),
        }
    }

    /// Notes what a publish did: whether it moved anything, and its first error.
    pub(super) fn published(&self, moved: bool, error: Option<String>) -> Option<Switch> {
        let mut now = self.now();
        if error.is_some() {
            now.last_error = error;
        }
        if moved {
            now.failures = 0;
            now.limit = now.limit.saturating_mul(2);
            now.state = BreakerState::Closed;
            let failing = now.failing.take();
            return failing.map(|(_, since)| Switch::Closed(since.elapsed()));
        }
        now.failures = now.failures.saturating_add(1);
        now.failing
            .get_or_insert_with(|| (Timestamp::now(), Instant::now()));
        match now.failures {
            1 => return Some(Switch::Failing),
            MAX_FAILURES => {}
            _ => return None,
        }
        now.state = BreakerState::Open;
        now.limit = 1;
        Some(Switch::Opened)
    }

    pub(super) fn state(&self) -> BreakerState {
        self.now().state
    }

    /// Since when nothing moves, if so, and the last error there was.
    pub(super) fn trouble(&self) -> (BreakerState, Option<Timestamp>, Option<String>) {
        let now = self.now();
        let since = now.failing.map(|(since, _)| since);
        (now.state, since, now.last_error.clone())
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        // Nothing under this lock can leave it half changed.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn fail(breaker: &Breaker) -> Option<Switch> {
        breaker.published(false, Some("away".into()))
    }

    fn turn(breaker: &Breaker) -> impl Future<Output = Turn<'_>> {
        let retry = || RetryPolicy {
            max_delay: Duration::ZERO,
            ..RetryPolicy::default()
        };
        breaker.turn(retry, std::future::pending)
    }

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_says_so_once() {
        let breaker = Breaker::new();
        assert_eq!(fail(&breaker), Some(Switch::Failing));
        assert_eq!(fail(&breaker), None);
        assert!(breaker.published(true, None).is_some(), "not in a row");
        assert_eq!(fail(&breaker), Some(Switch::Failing));
        assert_eq!(fail(&breaker), None);
        assert!(breaker.trouble().1.is_some(), "failing before it opens");
        assert_eq!(fail(&breaker), Some(Switch::Opened));
        assert_eq!(fail(&breaker), None);
        let closed = breaker.published(true, None);
        assert!(matches!(closed, Some(Switch::Closed(_))), "{closed:?}");
        let last = Some("away".to_owned());
        assert_eq!(breaker.trouble(), (BreakerState::Closed, None, last));
        assert_eq!(breaker.published(true, None), None);
    }

    #[tokio::test]
    async fn while_it_is_open_one_at_a_time_offers_one_event() {
        let breaker = Breaker::new();
        assert_eq!(turn(&breaker).await.limit, usize::MAX);
        for _ in 0..MAX_FAILURES {
            fail(&breaker);
        }
        let probe = turn(&breaker).await;
        assert_eq!(probe.limit, 1);
        let mut other = std::pin::pin!(turn(&breaker));
        assert!(other.as_mut().now_or_never().is_none());
        fail(&breaker);
        drop(probe);
        let probe = other.await;
        assert_eq!(probe.limit, 1);
        breaker.published(true, None);
        drop(probe);
        assert_eq!(turn(&breaker).await.limit, 2);
        breaker.published(true, None);
        assert_eq!(turn(&breaker).await.limit, 4);
    }
}
