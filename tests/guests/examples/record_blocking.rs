//! A blocking backend, of world `backend-blocking`, that publishes into a file.

test_guests::export_publish!("record-blocking", test_guests::record);
