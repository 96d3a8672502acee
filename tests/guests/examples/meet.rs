//! Comes back from `publish` when as many instances as its orders say are in
//! it at once, which they tell each other through files in `/out`.

use std::fs::File;
use std::thread::sleep;
use std::time::Duration;

use test_guests::order;

test_guests::export_publish!("meet", |events| {
    let expected: usize = order(events).parse().expect("a number");
    let arrived = |n: &usize| File::create_new(format!("/out/arrived-{n}")).is_ok();
    (0..expected).find(arrived).expect("no more than expected");
    while !std::fs::exists(format!("/out/arrived-{}", expected - 1)).is_ok_and(|last| last) {
        sleep(Duration::from_millis(1));
    }
    Ok(())
});
