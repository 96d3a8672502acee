//! Reports as failures, for every event of the batch, a text of 100 kB that
//! begins with what would clear the terminal and forge a line.

use backhaul_guest::Failure;

test_guests::export_publish!("many-errors", |events: &[_]| {
    let text = format!("\x1b[2J\nforged \u{202e}{}", "x".repeat(100_000));
    let failure = |index| Failure::permanent(index, text.clone());
    Err((0..events.len()).map(failure).collect())
});
