//! Components that are small, compile, and are too much once they are started.

use std::time::Duration;

use backhaul::wasm::{Grants, Limits, WasmBackend};
use backhaul_tests::host::Workspace;

use crate::guest::{GENEROUS, engine, within};
use crate::memory::MIB;
use crate::slow_components;

/// What is in the module, what is beside it, and why it does not start.
const BOMBS: [(&str, &str, &str); 8] = [
    ("(memory 65536)", "", "its limit of 16 MiB of memory"),
    (
        "(memory 200) (memory 200)",
        "",
        "its limit of 16 MiB of memory",
    ),
    (
        "(memory i64 0x1000000)",
        "",
        "its limit of 16 MiB of memory",
    ),
    (
        "(table 10000000 funcref)",
        "",
        "100000 elements of all its tables",
    ),
    (
        "(memory 1) (func $f (loop (br 0))) (start $f)",
        "",
        "it used more than 300ms of processor time",
    ),
    (
        "(memory 1) (func $f (call $f)) (start $f)",
        "",
        "call stack exhausted",
    ),
    (
        "(memory 1) (data (i32.const 65530) \"too long\")",
        "",
        "out of bounds memory access",
    ),
    (
        "(memory 1) (func $f unreachable) (start $f)",
        "",
        "it trapped: ",
    ),
];

fn limited() -> Limits {
    Limits {
        memory: 16 * MIB,
        cpu: Duration::from_millis(300),
        ..within(GENEROUS)
    }
}

async fn refusal(text: &str) -> String {
    let component = engine().load(slow_components::wasm(text)).await;
    let component = component.unwrap_or_else(|error| panic!("{text}: {error}"));
    let started = WasmBackend::start(component, "bomb", Grants::default(), limited()).await;
    started.expect_err("it does not start").to_string()
}

#[tokio::test]
async fn a_component_that_is_too_much_at_its_start_is_refused_with_the_limit() {
    for (in_module, in_component, reason) in BOMBS {
        let error = refusal(&slow_components::backend(in_module, in_component)).await;
        assert!(
            error.contains("in `start`, ") && error.contains(reason),
            "{in_module}: {error}"
        );
    }
}

/// Of each there is more than an instance may have.
#[tokio::test]
async fn a_component_of_too_many_parts_is_refused() {
    let empty = "(core module $empty)";
    let instances = format!(
        "{empty}{}",
        "(core instance (instantiate $empty))".repeat(300)
    );
    let memory = "(core module $memory (memory 0))";
    let memories = format!(
        "{memory}{}",
        "(core instance (instantiate $memory))".repeat(20)
    );
    let table = "(core module $table (table 0 funcref))";
    let tables = format!(
        "{table}{}",
        "(core instance (instantiate $table))".repeat(300)
    );
    for (parts, what) in [
        (instances, "instance"),
        (memories, "memory"),
        (tables, "instance"),
    ] {
        let error = refusal(&slow_components::backend("", &parts)).await;
        assert!(
            error.contains("in `start`, ") && error.contains(what),
            "{what}: {error}"
        );
    }
}

#[test]
fn such_components_cost_the_host_no_memory_to_speak_of() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    for (index, (in_module, in_component, _)) in BOMBS.into_iter().enumerate() {
        let wasm = slow_components::wasm(&slow_components::backend(in_module, in_component));
        let manifest = "[limits]\nmemory = \"16MiB\"\ncpu = \"300ms\"";
        workspace.add_bytes(&format!("bomb-{index}"), &wasm, manifest);
    }
    let host = workspace.serve();
    assert_eq!(
        host.log().matches("NOT LOADED").count(),
        BOMBS.len(),
        "{}",
        host.log()
    );
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    workspace.wait_for_file_lines(1);
    let peak = host.peak_bytes();
    assert!(peak < 120 * MIB, "{} MiB", peak / MIB);
}
