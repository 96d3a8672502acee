//! Reports failures without a word, retryable ones and permanent ones in turn.

use backhaul_guest::Failure;

test_guests::export_publish!("empty-error", |events: &[_]| {
    let failure = |index| match index % 2 {
        0 => Failure::retryable(index, ""),
        _ => Failure::permanent(index, ""),
    };
    Err((0..events.len()).map(failure).collect())
});
