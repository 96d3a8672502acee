//! How many lines about single events a delivery may log: a backend that refuses
//! everything would otherwise fill the log as fast as events come.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The most lines in a second.
const LINES: u32 = 10;

/// Counts the lines of one delivery.
#[derive(Debug, Default)]
pub(super) struct LogRate(Mutex<Second>);

#[derive(Debug, Default)]
struct Second {
    began: Option<Instant>,
    lines: u32,
}

impl LogRate {
    /// Whether one more line may be logged now. What is not logged is counted
    /// elsewhere. `more` says what there is more of, to be read before "than".
    pub(super) fn may_log(&self, backend: &str, more: &str) -> bool {
        let mut second = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if second
            .began
            .is_none_or(|began| now.duration_since(began) >= Duration::from_secs(1))
        {
            *second = Second {
                began: Some(now),
                lines: 0,
            };
        }
        second.lines += 1;
        if second.lines == LINES + 1 {
            tracing::warn!(backend, "{more} than are logged, at most {LINES} a second");
        }
        second.lines <= LINES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_lines_a_second_and_no_more() {
        let rate = LogRate::default();
        let logged = (0..1000)
            .filter(|_| rate.may_log("test", "more happens"))
            .count();
        assert!((10..=20).contains(&logged), "{logged}");
    }
}
