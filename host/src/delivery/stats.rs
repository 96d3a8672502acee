//! The figures of a delivery, as they are shown.

use jiff::Timestamp;
use serde::Serialize;

use super::books::DeliveryCounts;
use super::breaker::{Breaker, BreakerState};

/// Where the events of one delivery are, and how its backend fares. Counts are
/// since the delivery was made, or since its store knows the backend.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DeliveryStats {
    /// Taken from the bus.
    pub accepted: u64,
    /// Taken by the backend.
    pub delivered: u64,
    /// Given up; see [`Delivery::dead_letters`](crate::Delivery::dead_letters).
    pub dead: u64,
    /// Neither, and gone.
    pub dropped: Dropped,
    /// Waiting or under way: what of `accepted` is none of the above.
    pub pending: u64,
    /// Tries after the first, over all events.
    pub retries: u64,
    /// Whether events are offered as they come.
    pub breaker: BreakerState,
    /// Since when the backend takes nothing, if so.
    pub failing_since: Option<Timestamp>,
    /// The last error the backend gave, which may be long over.
    pub last_error: Option<String>,
}

/// Events that were neither delivered nor became dead letters, by the reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Dropped {
    /// Left over when the delivery was closed.
    pub closed: u64,
    /// What was kept of them could not be read.
    pub unreadable: u64,
    /// Their backend was forgotten.
    pub forgotten: u64,
}

impl Dropped {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.closed + self.unreadable + self.forgotten
    }
}

impl DeliveryStats {
    pub(super) fn new(counts: &DeliveryCounts, breaker: &Breaker) -> DeliveryStats {
        let (breaker, failing_since, last_error) = breaker.trouble();
        DeliveryStats {
            breaker,
            failing_since,
            last_error,
            ..DeliveryStats::from(counts)
        }
    }
}

/// The figures of a backend to which nothing is being delivered.
impl From<&DeliveryCounts> for DeliveryStats {
    fn from(counts: &DeliveryCounts) -> DeliveryStats {
        DeliveryStats {
            accepted: counts.accepted,
            delivered: counts.delivered,
            dead: counts.dead,
            dropped: Dropped {
                closed: counts.dropped_closed,
                unreadable: counts.dropped_unreadable,
                forgotten: counts.dropped_forgotten,
            },
            pending: counts.pending(),
            retries: counts.retries,
            ..DeliveryStats::default()
        }
    }
}
