//! When to try again: exponential backoff with full jitter.
//!
//! Used by handlers (`Handler::with_retry`) and by deliveries. It only counts
//! and computes; who waits is somebody else.

use std::time::Duration;

/// How often and when something that failed is tried again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RetryPolicy {
    /// The longest wait before the second try. Default 100 ms.
    pub first_delay: Duration,
    /// What the longest wait grows by with each further try. Default 2.
    pub multiplier: f64,
    /// What the longest wait never grows beyond. Default 5 s.
    pub max_delay: Duration,
    /// How many tries there are in all, the first included; `None` for no end.
    /// Default `None`.
    pub max_attempts: Option<u32>,
    /// How old it may be when a further try begins, from when it was accepted;
    /// the first is made at any age. `None` for no end. Default `None`.
    pub max_age: Option<Duration>,
}

impl RetryPolicy {
    /// The default delays, and at most `attempts` tries in all.
    pub fn attempts(attempts: u32) -> RetryPolicy {
        RetryPolicy {
            max_attempts: Some(attempts),
            ..RetryPolicy::default()
        }
    }

    /// How long to wait after the `attempt`-th try failed (counted from 1), or
    /// `None` if that was the last. The age does not count here.
    ///
    /// The wait is drawn evenly from zero to the longest one ("full jitter"),
    /// so that many clients of one server that failed do not come back at once.
    pub fn delay_after(&self, attempt: u32) -> Option<Duration> {
        if self.max_attempts.is_some_and(|max| attempt >= max) {
            return None;
        }
        Some(self.backoff(attempt))
    }

    /// Whether there is no further try after this many, for what was accepted
    /// `age` ago.
    pub(crate) fn is_over(&self, attempts: u32, age: Duration) -> bool {
        self.max_attempts.is_some_and(|max| attempts >= max)
            || self.max_age.is_some_and(|max| age >= max)
    }

    /// The same wait, whether or not the tries are used up.
    pub(crate) fn backoff(&self, attempt: u32) -> Duration {
        self.longest_delay_after(attempt).mul_f64(random_unit())
    }

    fn longest_delay_after(&self, attempt: u32) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
        let seconds = self.first_delay.as_secs_f64() * self.multiplier.max(1.0).powi(exponent);
        Duration::try_from_secs_f64(seconds)
            .unwrap_or(Duration::MAX)
            .min(self.max_delay)
    }
}

impl Default for RetryPolicy {
    fn default() -> RetryPolicy {
        RetryPolicy {
            first_delay: Duration::from_millis(100),
            multiplier: 2.0,
            max_delay: Duration::from_secs(5),
            max_attempts: None,
            max_age: None,
        }
    }
}

/// A number from 0 to 1. Jitter needs spread, not secrecy: the random bits of
/// a UUID are at hand.
fn random_unit() -> f64 {
    let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
    (low & 0xffff_ffff) as f64 / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_delay_doubles_up_to_the_cap() {
        let policy = RetryPolicy::default();
        let longest: Vec<_> = [1, 2, 3, 7, 1000, u32::MAX]
            .map(|n| policy.longest_delay_after(n).as_millis())
            .into();
        assert_eq!(longest, [100, 200, 400, 5000, 5000, 5000]);
    }

    #[test]
    fn delays_are_spread_below_the_longest() {
        let policy = RetryPolicy::default();
        let delays: Vec<_> = (0..200).map(|_| policy.delay_after(1).unwrap()).collect();
        assert!(delays.iter().all(|d| *d <= policy.first_delay));
        assert!(delays.iter().any(|d| *d < policy.first_delay / 4));
        assert!(delays.iter().any(|d| *d > policy.first_delay * 3 / 4));
    }

    #[test]
    fn the_last_attempt_has_no_delay_after_it() {
        let policy = RetryPolicy::attempts(3);
        assert!(policy.delay_after(2).is_some());
        assert!(policy.delay_after(3).is_none());
        let over = |attempts| policy.is_over(attempts, Duration::MAX);
        assert!(!over(2) && over(3));
    }

    #[test]
    fn nothing_is_tried_again_beyond_its_age() {
        let policy = RetryPolicy {
            max_age: Some(Duration::from_secs(60)),
            ..RetryPolicy::default()
        };
        assert!(!policy.is_over(1000, Duration::from_secs(59)));
        assert!(policy.is_over(1, Duration::from_secs(60)));
        assert!(!RetryPolicy::default().is_over(u32::MAX, Duration::MAX));
    }
}
