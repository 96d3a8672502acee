//! Publishes, but fails in each call whose number is a multiple of EVERY, in the
//! way HOW says: `trap`, `hang` (computes without end) or `refuse` (every event
//! can be tried again), and after `half-` the same once the first half of the
//! events is published. Calls are numbered over the deaths of instances, by the
//! length of `/out/calls`.

use std::fs::File;
use std::io::Write;

use backhaul_guest::{Event, Failure, setting_or};
use test_guests::record;

test_guests::export_publish!("fail-each-nth", |events: &[Event]| {
    let how = setting_or("HOW", "trap");
    let every: u64 = setting_or("EVERY", "3").parse().expect("a number");
    if !count_call().is_multiple_of(every) {
        return record(events);
    }
    let (published, how) = match how.strip_prefix("half-") {
        Some(how) => (events.len() / 2, how),
        None => (0, how.as_str()),
    };
    record(&events[..published])?;
    match how {
        "trap" => panic!("as it was told"),
        "hang" => loop {
            std::hint::spin_loop();
        },
        _ => Err(Failure::all_retryable(
            published..events.len(),
            "as it was told",
        )),
    }
});

/// The number of this call, counted from 1.
fn count_call() -> u64 {
    let opened = File::options().append(true).create(true).open("/out/calls");
    let mut calls = opened.expect("/out is granted");
    calls.write_all(b".").expect("it can be written");
    calls.metadata().expect("its length").len()
}
