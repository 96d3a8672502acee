//! Computes for as many milliseconds as its orders say, by the clock.

use std::time::{Duration, Instant};

use test_guests::order;

test_guests::export_publish!("compute", |events| {
    let time = Duration::from_millis(order(events).parse().expect("a number"));
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
    Ok(())
});
