//! Traps in `publish` as long as `/out/calm` does not exist, then publishes.

use test_guests::record;

test_guests::export_publish!("trap-until-calm", |events| {
    assert!(std::path::Path::new("/out/calm").exists(), "not calm yet");
    record(events)
});
