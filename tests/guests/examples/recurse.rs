//! Calls itself without end in its first `publish`, then publishes.

use std::hint::black_box;

use test_guests::{first_time, record};

test_guests::export_publish!("recurse", |events| {
    if first_time() {
        black_box(descend(1));
    }
    record(events)
});

fn descend(depth: u64) -> u64 {
    if black_box(depth) == 0 {
        return 0;
    }
    descend(depth + 1) ^ depth
}
