//! An asynchronous backend that on the order `waits` begins host calls and never
//! ends them, more and more of them; on another order it begins one and leaves it
//! under way when `publish` returns.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::order;
use wasip3::clocks::monotonic_clock::wait_for;

const HOUR: u64 = 3_600_000_000_000;

struct LeakAsync;

impl AsyncBackend for LeakAsync {
    const NAME: &'static str = "leak-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(LeakAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        loop {
            let mut wait = Box::pin(wait_for(HOUR));
            let started = pin!(&mut wait).poll(&mut Context::from_waker(Waker::noop()));
            assert!(started.is_pending());
            std::mem::forget(wait);
            if order(events) != "waits" {
                return Ok(());
            }
        }
    }
}

backhaul_guest::export_async!(LeakAsync);
