//! Tests that need a server which this machine lacks.
//!
//! Such a test says so by name and is skipped: it returns early, and the file
//! named by `BACKHAUL_TEST_SKIPPED` gets a line, which `cargo xtask test` shows
//! at the end. With `BACKHAUL_TEST_NO_SKIP` set, as in CI, it fails instead.

use std::io::Write;

/// Notes that the running test is skipped because `missing` is not there;
/// `package` is what Debian calls it.
///
/// # Panics
///
/// If skipping is not allowed.
pub fn skip(missing: &str, package: &str) {
    skip_because(&format!(
        "{missing} not found (Debian: apt-get install {package})"
    ));
}

/// Notes that the running test is skipped, and why.
///
/// # Panics
///
/// If skipping is not allowed.
pub fn skip_because(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{test}: {reason}");
    assert!(
        std::env::var_os("BACKHAUL_TEST_NO_SKIP").is_none(),
        "{line}; nothing may be skipped here"
    );
    eprintln!("SKIPPED {line}");
    if let Some(file) = std::env::var_os("BACKHAUL_TEST_SKIPPED") {
        let file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(file);
        file.and_then(|mut file| writeln!(file, "{line}"))
            .expect("the list of skipped tests");
    }
}
