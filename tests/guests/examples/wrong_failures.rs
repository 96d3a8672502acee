//! Reports failures that cannot be: of an event outside the batch, of one event
//! twice or a hundred thousand times, of more events than the batch has, or of
//! the largest index there is. It publishes without orders.

use backhaul_guest::Failure;
use test_guests::{order, record};

test_guests::export_publish!("wrong-failures", |events| {
    let failed = |index: u32| Failure {
        index,
        ..Failure::permanent(0, "refused")
    };
    match order(events) {
        "outside" => Err(vec![failed(1)]),
        "largest" => Err(vec![failed(u32::MAX)]),
        "twice" => Err(vec![failed(0), failed(0)]),
        "longer" => Err((0..=events.len() as u32).map(failed).collect()),
        "endless" => Err((0..100_000).map(|_| failed(0)).collect()),
        _ => record(events),
    }
});
