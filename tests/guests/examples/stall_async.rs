//! An asynchronous backend whose first `publish` waits in the host for an hour.

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::{first_time, record};
use wasip3::clocks::monotonic_clock::wait_for;

const HOUR: u64 = 3_600_000_000_000;

struct StallAsync;

impl AsyncBackend for StallAsync {
    const NAME: &'static str = "stall-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(StallAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        if first_time() {
            wait_for(HOUR).await;
        }
        record(events)
    }
}

backhaul_guest::export_async!(StallAsync);
