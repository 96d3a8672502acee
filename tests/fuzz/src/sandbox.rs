//! Components, started with little to use and nothing granted.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use backhaul::wasm::{Component, EnvGrant, Grants, Limits, LoadError, WasmBackend, WasmEngine};
use backhaul::{Event, Failure, PublishError};

use crate::shown;

/// What one call of a guest may take. Made-up guests that never end are many,
/// and each costs this.
const CALL: Duration = Duration::from_millis(40);

/// What the host itself may take on top, on a machine that has other things to do.
const MARGIN: Duration = Duration::from_secs(15);

/// The longest text of a failure in bytes: the host keeps 1,024 of the guest's
/// and says beside them what happened, in which function.
const MAX_ERROR: usize = 1024 + 512;

/// Runs `future` on the runtime all inputs share. It must be done within what
/// `calls` calls of a guest may take.
pub(crate) fn run<T>(calls: u32, future: impl Future<Output = T>) -> T {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    let runtime = RUNTIME.get_or_init(|| {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(2).enable_all().build();
        runtime.expect("a runtime")
    });
    shown::watch_log();
    let started = Instant::now();
    let result = runtime.block_on(future);
    let (took, allowed) = (started.elapsed(), CALL * calls + MARGIN);
    assert!(took < allowed, "it took {took:?}, more than {allowed:?}");
    shown::check_log();
    result
}

/// An engine without a cache: every input is compiled.
pub(crate) fn engine() -> WasmEngine {
    static ENGINE: OnceLock<WasmEngine> = OnceLock::new();
    let engine = || WasmEngine::with_cache(None).expect("an engine");
    ENGINE.get_or_init(engine).clone()
}

/// Loads what is known to be a backend.
pub(crate) async fn load(wasm: Vec<u8>) -> Component {
    engine().load(wasm).await.expect("a backend")
}

/// Starts `component` with these variables. What is wrong with it has been
/// looked at.
pub(crate) async fn start(component: Component, env: Vec<EnvGrant>) -> Option<WasmBackend> {
    let grants = Grants {
        env,
        ..Grants::default()
    };
    let limits = Limits {
        memory: 8 << 20,
        timeout: CALL,
        start_timeout: CALL,
        cpu: CALL / 2,
        ..Limits::default()
    };
    match WasmBackend::start(component, "fuzz", grants, limits).await {
        Ok(backend) => Some(backend),
        Err(error) => {
            check_load_error(&error);
            None
        }
    }
}

/// Panics if the reason why a component was refused is not fit to be shown.
pub(crate) fn check_load_error(error: &LoadError) {
    shown::check("why it is refused", &error.to_string(), 2048);
    assert!(
        !matches!(error, LoadError::Engine(_)),
        "the engine itself failed: {error}"
    );
}

/// Panics if `result` cannot be that of a publish of `events`.
pub(crate) fn check_published(events: &[Event], result: &Result<(), Vec<Failure>>) {
    let Err(failures) = result else {
        return;
    };
    let mut seen = vec![false; events.len()];
    for Failure { index, error } in failures {
        let seen = seen.get_mut(*index);
        let seen = seen.unwrap_or_else(|| panic!("a failure of event {index} outside the batch"));
        assert!(!std::mem::replace(seen, true), "event {index} twice");
        match error {
            PublishError::Retryable(text) | PublishError::Permanent(text) => {
                shown::check("the text of a failure", text, MAX_ERROR);
            }
            other => panic!("no failure of a component: {other:?}"),
        }
    }
}

/// A built component: `plugins/file`, or `test-guests/NAME`.
pub(crate) fn built(name: &str) -> Vec<u8> {
    let file = target().join(name).with_extension("wasm");
    std::fs::read(&file).unwrap_or_else(|error| {
        eprintln!(
            "{}: {error}; build it with `cargo xtask fuzz` or `cargo xtask test`",
            file.display()
        );
        std::process::exit(2);
    })
}

/// The folder cargo builds into: this program is somewhere under it.
fn target() -> PathBuf {
    let this = std::env::current_exe().expect("the path of this program");
    let holds_guests = |folder: &&Path| folder.join("test-guests").is_dir();
    let target = this.ancestors().find(holds_guests);
    target.unwrap_or(Path::new("target")).to_owned()
}
