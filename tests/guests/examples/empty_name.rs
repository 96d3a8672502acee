//! Has an empty name.

test_guests::export_name!(String::new());
