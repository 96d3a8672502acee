//! How long events take from being accepted to being delivered: a histogram.
//!
//! Written by the workers without a lock; read whenever somebody asks. Buckets
//! are fixed, so figures of many deliveries can be added up.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

/// The upper ends of the buckets, in seconds; one more bucket has none. Each is
/// about twice the one before: from what a local backend takes to what is, for
/// whoever waits, for ever.
const BOUNDS: [f64; 19] = [
    0.000_25, 0.000_5, 0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0,
    4.0, 8.0, 16.0, 32.0, 60.0,
];

/// The histogram of one delivery.
#[derive(Debug, Default)]
pub(super) struct Latency {
    counts: [AtomicU64; BOUNDS.len() + 1],
    sum_micros: AtomicU64,
}

/// What a [`Delivery`](crate::Delivery)'s histogram held at one moment. As JSON it
/// is a few figures, in seconds: `count`, `mean`, `p50`, `p90`, `p99`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(into = "Figures")]
pub struct LatencySnapshot {
    /// The upper ends of the buckets, in seconds, inclusive.
    pub bounds: &'static [f64],
    /// How many events fell into each bucket; the last has no upper end.
    pub counts: Vec<u64>,
    /// All the times together, in seconds.
    pub sum_seconds: f64,
    /// How many events there were.
    pub count: u64,
}

impl Latency {
    /// Counts events that were accepted at those times and delivered at `now`.
    pub(super) fn record(&self, accepted: impl Iterator<Item = Timestamp>, now: Timestamp) {
        // Most events of a batch fall into one bucket, and it is added to once.
        let (mut bucket, mut run, mut sum) = (0, 0, 0_u64);
        for accepted in accepted {
            // A clock that was set back has events delivered before they came.
            let micros = now
                .as_microsecond()
                .saturating_sub(accepted.as_microsecond());
            let micros = u64::try_from(micros).unwrap_or(0);
            sum = sum.saturating_add(micros);
            let its = bucket_of(micros);
            if its != bucket {
                self.add(bucket, run);
                (bucket, run) = (its, 0);
            }
            run += 1;
        }
        self.add(bucket, run);
        self.sum_micros.fetch_add(sum, Ordering::Relaxed);
    }

    fn add(&self, bucket: usize, count: u64) {
        if count > 0 {
            self.counts[bucket].fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> LatencySnapshot {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let counts: Vec<u64> = self.counts.iter().map(read).collect();
        LatencySnapshot {
            bounds: &BOUNDS,
            count: counts.iter().sum(),
            counts,
            sum_seconds: Duration::from_micros(read(&self.sum_micros)).as_secs_f64(),
        }
    }
}

/// A histogram in short.
#[derive(Serialize)]
struct Figures {
    count: u64,
    mean: f64,
    p50: f64,
    p90: f64,
    p99: f64,
}

impl From<LatencySnapshot> for Figures {
    fn from(latency: LatencySnapshot) -> Figures {
        Figures {
            count: latency.count,
            mean: latency.mean(),
            p50: latency.quantile(0.5),
            p90: latency.quantile(0.9),
            p99: latency.quantile(0.99),
        }
    }
}

/// A histogram without events.
impl Default for LatencySnapshot {
    fn default() -> LatencySnapshot {
        Latency::default().snapshot()
    }
}

fn bucket_of(micros: u64) -> usize {
    let seconds = micros as f64 / 1e6;
    BOUNDS.partition_point(|bound| *bound < seconds)
}

impl LatencySnapshot {
    /// The time, in seconds, that the share `q` (0 to 1) of the events did not
    /// exceed, as exactly as the buckets tell. 0 if there was no event; the
    /// last bound for what is beyond it.
    pub fn quantile(&self, q: f64) -> f64 {
        let wanted = q.clamp(0.0, 1.0) * self.count as f64;
        let mut below = 0.0;
        for (at, count) in self.counts.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                let start = at.checked_sub(1).map_or(0.0, |at| self.bounds[at]);
                let end = self.bounds.get(at).copied().unwrap_or(start);
                return start + (end - start) * (wanted - below) / count;
            }
            below += count;
        }
        0.0
    }

    /// The mean, in seconds. 0 if there was no event.
    pub fn mean(&self) -> f64 {
        match self.count {
            0 => 0.0,
            count => self.sum_seconds / count as f64,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorded(millis: &[i64]) -> LatencySnapshot {
        let latency = Latency::default();
        let accepted = |millis: &i64| Timestamp::from_millisecond(100_000 - millis).unwrap();
        let now = Timestamp::from_millisecond(100_000).unwrap();
        latency.record(millis.iter().map(accepted), now);
        latency.snapshot()
    }

    #[test]
    fn every_event_is_in_the_bucket_of_its_time() {
        let snapshot = recorded(&[-5, 0, 1, 1, 2, 3, 1, 60_000, 60_001, 90_000]);
        assert_eq!(snapshot.count, 10);
        assert_eq!(snapshot.counts[0], 2, "the one from the future as well");
        assert_eq!(snapshot.counts[2], 3, "a bound belongs to its bucket");
        assert_eq!(snapshot.counts[3..5], [1, 1]);
        assert_eq!(snapshot.counts[18..], [1, 2]);
        assert!((snapshot.sum_seconds - 210.009).abs() < 1e-9);
        assert!((snapshot.mean() - 21.0009).abs() < 1e-9);
    }

    #[test]
    fn quantiles_are_within_the_bucket_of_the_event() {
        let mut millis = vec![3; 98];
        millis.extend([700, 1_000_000]);
        let snapshot = recorded(&millis);
        assert!((0.002..=0.004).contains(&snapshot.quantile(0.5)));
        assert!((0.5..=1.0).contains(&snapshot.quantile(0.99)));
        assert_eq!(snapshot.quantile(1.0), 60.0);
        let none = LatencySnapshot::default();
        assert_eq!(none, recorded(&[]));
        assert_eq!((none.quantile(0.5), none.mean(), none.count), (0.0, 0.0, 0));
    }
}
