//! Takes memory without end in its first `publish`, then publishes.

use test_guests::{first_time, record};

test_guests::export_publish!("grow-memory", |events| {
    if first_time() {
        eprintln!("taking memory");
        let mut hoard = Vec::new();
        loop {
            hoard.push(vec![1_u8; 1 << 20]);
        }
    }
    record(events)
});
