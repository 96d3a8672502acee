//! Traps when the host asks for its name.

test_guests::export_name!(panic!("no name"));
