//! Waits in a host call for an hour in its first `publish`, then publishes.

use std::thread::sleep;
use std::time::Duration;

use test_guests::{first_time, record};

test_guests::export_publish!("sleep-in-publish", |events| {
    if first_time() {
        sleep(Duration::from_secs(3600));
    }
    record(events)
});
