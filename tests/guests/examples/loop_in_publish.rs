//! Computes without end in its first `publish`, then publishes.

use test_guests::{first_time, record};

test_guests::export_publish!("loop-in-publish", |events| {
    if first_time() {
        loop {
            std::hint::spin_loop();
        }
    }
    record(events)
});
