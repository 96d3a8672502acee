//! An asynchronous backend, of world `backend`, that publishes into a file.

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::record;

struct RecordAsync;

impl AsyncBackend for RecordAsync {
    const NAME: &'static str = "record-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(RecordAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        record(events)
    }
}

backhaul_guest::export_async!(RecordAsync);
