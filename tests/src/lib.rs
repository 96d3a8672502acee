//! What the end-to-end suites and the benchmarks share: the program, real
//! brokers, and the components they are tried with.
//!
//! - [`host`]: the `backhaul` program as a child process.
//! - [`https_server`]: an HTTP and HTTPS server that behaves as it is asked.
//! - [`redis_server`]: a real Redis server on a free port.
//! - [`components`]: the components `cargo xtask` built, and some written by hand.
//! - [`skip`]: how a test says that a server it needs is missing.
//!
//! Everything started here is stopped again when its value is dropped, and
//! listens on loopback only.

pub mod components;
pub mod host;
pub mod https_server;
pub mod redis_server;
pub mod skip;

use std::time::{Duration, Instant};

/// How long tests wait for what should happen at once. Generous, because a
/// loaded machine is no failure; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` gives a value.
///
/// # Panics
///
/// If it gives none within [`PATIENCE`]; `what` says what was waited for.
pub fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
