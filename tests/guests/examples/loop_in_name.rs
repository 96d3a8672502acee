//! Never comes back from the question for its name.

test_guests::export_name!(loop {
    std::hint::spin_loop();
});
