//! Has a name that clears the terminal and forges a line.

test_guests::export_name!("\x1b[2Jname\nINFO all is well".to_owned());
