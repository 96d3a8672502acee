//! An asynchronous backend that computes without end in its first `publish`,
//! then publishes.

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::{first_time, record};

struct LoopAsync;

impl AsyncBackend for LoopAsync {
    const NAME: &'static str = "loop-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(LoopAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        if first_time() {
            loop {
                std::hint::spin_loop();
            }
        }
        record(events)
    }
}

backhaul_guest::export_async!(LoopAsync);
