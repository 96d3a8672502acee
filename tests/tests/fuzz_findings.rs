//! What fuzzing has found, each as the claim that it is no longer so, and the
//! guest it is done with. The input that found it is in `tests/fuzz/corpus`, too.

use std::path::Path;
use std::time::Duration;

use backhaul::plugins::Manifest;
use backhaul::wasm::{EnvGrant, Grants, Limits, WasmBackend, WasmEngine};
use backhaul::{AsyncBackend, Event, PublishError};
use backhaul_tests::components;

fn refused(text: &str) -> String {
    let parsed = Manifest::parse(Path::new("plugins/redis.toml"), text);
    parsed.expect_err(text).to_string()
}

#[test]
fn a_secret_with_an_equals_sign_is_not_taken_for_a_key() {
    for text in [
        "[grants.env]\nPASSWORD = \"aHVudGVyMg==\"x",
        "[grants]\nenv = { PASSWORD = \"aHVudGVyMg=\" x }",
        "[grants]\nenv = { PASSWORD = \"aHVudGVyMg=\", ",
        "[grants.env]\nPASSWORD = \"\"\"\naHVudGVyMg=",
    ] {
        let error = refused(text);
        assert!(!error.contains("aHVudGVyMg"), "{error}");
        assert!(error.contains("line "), "{error}");
    }
}

#[test]
fn a_variable_that_is_written_as_docker_has_it_is_not_shown() {
    for text in [
        "[grants]\nenv = \"PASSWORD=hunter2\"",
        "[grants]\nenv = [\"PASSWORD=hunter2\"]",
        "[grants]\nenv = [{ PASSWORD = \"hunter2\" }]",
    ] {
        let error = refused(text);
        assert!(!error.contains("hunter2"), "{error}");
        assert!(error.contains("line 2: `env`"), "{error}");
    }
}

/// The guest itself: were it to pass over its orders, fuzzing with it would find
/// nothing and look well.
#[tokio::test]
async fn the_guest_of_the_fuzzer_answers_as_it_is_told() {
    let wasm = std::fs::read(components::test_guest("answer_as_told")).expect("the guest");
    let cache = components::target().join("test-cache/backhaul");
    let engine = WasmEngine::with_cache(Some(cache)).expect("an engine");
    let component = engine.load(wasm).await.expect("a backend");
    let grants = Grants {
        env: vec![EnvGrant::plain("NAME", "746f6c64")],
        ..Grants::default()
    };
    let limits = Limits {
        timeout: Duration::from_secs(30),
        ..Limits::default()
    };
    let backend = WasmBackend::start(component, "fuzz", grants, limits).await;
    let backend = backend.expect("it starts");
    assert_eq!(backend.name(), "told");

    let told = async |orders: &[&str]| {
        let event = |data: &&str| Event::new("t", data.as_bytes().to_vec()).expect("an event");
        let events: Vec<Event> = orders.iter().map(event).collect();
        backend.forgive();
        match backend.publish(&events).await {
            Ok(()) => Vec::new(),
            Err(failures) => failures
                .into_iter()
                .map(|failure| match failure.error {
                    PublishError::Permanent(text) => format!("{} refused {text}", failure.index),
                    PublishError::Retryable(text) => format!("{} failed {text}", failure.index),
                    other => panic!("{other}"),
                })
                .collect(),
        }
    };
    assert!(told(&["."]).await.is_empty());
    assert!(told(&["K"]).await.is_empty());
    assert_eq!(
        told(&["F1 p3 no.", "F0 r4 busy"]).await,
        ["1 refused no.", "0 failed busy"]
    );
    assert_eq!(
        told(&["F0 r4 busyM1 ", ""]).await,
        ["0 failed busy", "1 failed busy"]
    );
    for broken in [
        "T",
        "P4 help",
        "X3 ",
        "R0 64 4294967295 ",
        "F0 r1 xM1 ",
        "A99000000 ",
    ] {
        let said = told(&[broken]).await;
        assert!(
            said[0].starts_with("0 failed in `publish`, it"),
            "{broken}: {said:?}"
        );
    }
    assert!(told(&["."]).await.is_empty());
}
