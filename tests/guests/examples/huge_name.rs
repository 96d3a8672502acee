//! Has a name of 10 MB.

test_guests::export_name!("n".repeat(10_000_000));
