//! Publishes twice, traps in the third call of an instance, and notes in
//! `/out/calls` how many calls the instance remembers.

use std::fs::File;
use std::io::Write;
use std::sync::atomic::{AtomicU32, Ordering};

use test_guests::record;

static CALLS: AtomicU32 = AtomicU32::new(0);

test_guests::export_publish!("trap-in-publish", |events| {
    let calls = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    let mut log = File::options()
        .append(true)
        .create(true)
        .open("/out/calls")
        .expect("/out is granted");
    writeln!(log, "{calls}").expect("/out can be written");
    assert!(calls < 3, "the third call");
    record(events)
});
