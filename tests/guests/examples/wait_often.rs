//! Waits 60 times for 11 ms in a `publish`, and computes next to nothing.

use std::thread::sleep;
use std::time::Duration;

test_guests::export_publish!("wait-often", |_| {
    for _ in 0..60 {
        sleep(Duration::from_millis(11));
    }
    Ok(())
});
