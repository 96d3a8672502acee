//! How a delivery queues, batches and tries again.

use crate::retry::RetryPolicy;

/// How a [`Delivery`](crate::Delivery) queues, batches and tries again.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryOptions {
    /// The most events that are in memory: waiting or under way. Default 10,000.
    pub queue: usize,
    /// The most bytes those events keep in memory. Default 64 MiB.
    pub queue_bytes: usize,
    /// The most events in one publish. Default 256.
    pub batch: usize,
    /// The most bytes of events in one publish; a single larger event goes
    /// alone. Default 4 MiB.
    pub batch_bytes: usize,
    /// How many publishes may be under way at a time. 1, the default, keeps
    /// the order of the events. With more it is kept among events that have
    /// the same `partitionkey`, or the same subject if they have none.
    pub workers: usize,
    /// Whether that order is kept when an event is to be tried again: those
    /// after it wait. Otherwise it is put aside for a while, and the others
    /// go on. Default true.
    pub ordered: bool,
    /// When what may work later is tried again. Default: without end.
    pub retry: RetryPolicy,
}

impl Default for DeliveryOptions {
    fn default() -> DeliveryOptions {
        DeliveryOptions {
            queue: 10_000,
            queue_bytes: 64 << 20,
            batch: 256,
            batch_bytes: 4 << 20,
            workers: 1,
            ordered: true,
            retry: RetryPolicy::default(),
        }
    }
}

impl DeliveryOptions {
    pub(super) fn check(&self) {
        assert!(self.queue > 0, "a delivery needs room for an event");
        assert!(self.batch > 0, "a batch holds an event at least");
        assert!(self.workers > 0, "a delivery needs a worker");
    }
}
