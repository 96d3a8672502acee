//! Reports failures that cannot be: of an event outside the batch, of one
//! event twice, or of the largest index there is. It publishes without orders.

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
        _ => record(events),
    }
});
