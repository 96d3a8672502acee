//! A test guest as a backend in this process, and the folder it leaves traces in.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use backhaul::wasm::{FileGrant, Grants, Limits, WasmBackend, WasmEngine};
use backhaul::{AsyncBackend, Event, Failure, PublishError};
use backhaul_tests::components;
use tempfile::TempDir;

/// Lets a guest finish on a loaded machine.
pub(crate) const GENEROUS: Duration = Duration::from_secs(30);

/// Shares the program's folder of compiled code.
pub(crate) fn engine() -> WasmEngine {
    static ENGINE: OnceLock<WasmEngine> = OnceLock::new();
    let start = || {
        let cache = components::target().join("test-cache/backhaul");
        WasmEngine::with_cache(Some(cache)).expect("an engine")
    };
    ENGINE.get_or_init(start).clone()
}

/// Starts a guest.
pub(crate) async fn start(guest: &str, grants: Grants, limits: Limits) -> WasmBackend {
    let wasm = std::fs::read(components::test_guest(guest)).expect("the guest");
    let component = engine().load(wasm).await.expect("a backend");
    let started = WasmBackend::start(component, guest, grants, limits).await;
    started.expect("the guest starts")
}

/// The default limits, with another time limit.
pub(crate) fn within(timeout: Duration) -> Limits {
    Limits {
        timeout,
        ..Limits::default()
    }
}

/// A folder granted as `/out`, to be written to.
pub(crate) struct Out(TempDir);

impl Out {
    pub(crate) fn new() -> Out {
        Out(TempDir::with_prefix("backhaul-out").expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn grants(&self) -> Grants {
        Grants {
            files: vec![FileGrant {
                host: self.path().to_owned(),
                guest: "/out".to_owned(),
                write: true,
            }],
            ..Grants::default()
        }
    }

    /// The same grant as a line of a manifest, under `[grants]`.
    pub(crate) fn manifest_line(&self) -> String {
        let host = self.path().display();
        format!("files = [{{ host = \"{host}\", guest = \"/out\", write = true }}]")
    }

    /// The ids a guest has published, in order.
    pub(crate) fn published(&self) -> Vec<String> {
        self.lines("published")
    }

    pub(crate) fn lines(&self, file: &str) -> Vec<String> {
        let text = std::fs::read_to_string(self.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }
}

/// A plugins folder, for the library.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Folder {
        Folder(TempDir::with_prefix("backhaul-plugins").expect("a temporary folder"))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub(crate) fn add(&self, guest: &str, manifest: &str) {
        let file = self.path().join(guest);
        std::fs::copy(components::test_guest(guest), file.with_extension("wasm"))
            .expect("the guest");
        std::fs::write(file.with_extension("toml"), manifest).expect("its manifest");
    }
}

/// An event whose data tells the guest what to do.
pub(crate) fn order(data: &str) -> Event {
    Event::new("after:signup", data.to_owned()).expect("an event")
}

/// `count` events with the ids 0, 1, 2, ...
pub(crate) fn events(count: usize) -> Vec<Event> {
    let event = |n: usize| Event::builder("after:signup").id(n.to_string()).build();
    (0..count).map(|n| event(n).expect("an event")).collect()
}

/// The ids of [`events`].
pub(crate) fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

/// Gives the guest an order and returns what it reports.
pub(crate) async fn ask(backend: &WasmBackend, data: &str) -> String {
    match backend.publish(&[order(data)]).await {
        Err(failures) => match failures.as_slice() {
            [
                Failure {
                    index: 0,
                    error: PublishError::Permanent(text),
                },
            ] => text.clone(),
            other => panic!("the guest was to report, and failed: {other:?}"),
        },
        Ok(()) => panic!("the guest was to report"),
    }
}

/// Publishes to a guest that breaks: every event must be retryable, all for one
/// reason, which is returned.
pub(crate) async fn broken(backend: &WasmBackend, events: &[Event]) -> String {
    let failures = backend.publish(events).await.expect_err("the guest breaks");
    assert_eq!(failures.len(), events.len());
    let reason = failures[0].error.to_string();
    for (index, failure) in failures.into_iter().enumerate() {
        let expected = Failure {
            index,
            error: PublishError::Retryable(reason.clone()),
        };
        assert_eq!(failure, expected);
    }
    reason
}
