//! Takes memory until it is refused, gives it back, and reports how many MiB
//! it got.

use test_guests::report;

test_guests::export_publish!("grow-memory-politely", |_| {
    let mut hoard: Vec<Vec<u8>> = Vec::with_capacity(10_000);
    loop {
        let mut block = Vec::new();
        if block.try_reserve_exact(1 << 20).is_err() {
            return report(hoard.len());
        }
        hoard.push(block);
    }
});
