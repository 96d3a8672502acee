//! An asynchronous backend whose first `publish` never completes.

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::{first_time, record};

struct StallAsync;

impl AsyncBackend for StallAsync {
    const NAME: &'static str = "stall-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(StallAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        if first_time() {
            std::future::pending::<()>().await;
        }
        record(events)
    }
}

backhaul_guest::export_async!(StallAsync);
