//! The limits of memory and of handles, and what a guest can make of its memory in the host's.

use std::time::Duration;

use backhaul::wasm::{Grants, Limits, WasmBackend};
use backhaul::{AsyncBackend, Delivery, DeliveryOptions};
use backhaul_tests::components::{GROW_TABLE, component_of};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::{components, wait_for};

use crate::guest::{GENEROUS, Out, ask, broken, engine, events, ids, order, start, within};

pub(crate) const MIB: u64 = 1 << 20;

fn limited() -> Limits {
    Limits {
        memory: 16 * MIB,
        ..within(GENEROUS)
    }
}

#[tokio::test]
async fn a_plugin_that_takes_too_much_memory_is_told_so_and_replaced() {
    let out = Out::new();
    let backend = start("grow_memory", out.grants(), limited()).await;
    let reason = broken(&backend, &events(3)).await;
    assert!(
        reason.contains(
            "in `publish`, it ran over its limit of 16 MiB of memory; see `memory` under [limits]"
        ),
        "{reason}"
    );
    let delivery = Delivery::new(backend, DeliveryOptions::default());
    delivery.publish(&events(3)).await.unwrap();
    delivery.close(GENEROUS).await.unwrap();
    assert_eq!(out.published(), ids(3));
}

#[tokio::test]
async fn a_plugin_that_copes_with_a_refusal_gets_what_its_limit_says_and_lives_on() {
    let backend = start("grow_memory_politely", Grants::default(), limited()).await;
    for _ in 0..3 {
        let blocks: u64 = ask(&backend, "").await.parse().unwrap();
        assert!((8..16).contains(&blocks), "{blocks} MiB of 16");
    }
}

fn with_handles(handles: usize) -> Limits {
    Limits {
        handles,
        ..within(GENEROUS)
    }
}

#[tokio::test]
async fn a_plugin_that_opens_too_much_is_told_so_and_replaced() {
    let out = Out::new();
    let files = start("open_files", out.grants(), with_handles(50)).await;
    let waits = start("leak_async", Grants::default(), with_handles(50)).await;
    for (backend, order) in [(files, order("")), (waits, order("waits"))] {
        for _ in 0..2 {
            let reason = broken(&backend, std::slice::from_ref(&order)).await;
            assert!(
                reason.contains(
                    "in `publish`, it ran over the limit of 50 open files, sockets and streams \
                     together; see `handles` under [limits]"
                ),
                "{reason}"
            );
        }
    }
}

#[tokio::test]
async fn tables_are_limited_too() {
    let wasm = wat::parse_str(component_of(GROW_TABLE)).unwrap();
    let component = engine().load(wasm).await.unwrap();
    let started = WasmBackend::start(component, "table", Grants::default(), within(GENEROUS)).await;
    let error = started.expect_err("it does not start").to_string();
    assert!(
        error.contains("in `start`, it ran over the limit of 100000 elements of all its tables"),
        "{error}"
    );
}

#[tokio::test]
async fn a_plugin_that_gives_no_room_for_a_batch_breaks_that_call() {
    let limits = Limits {
        cpu: Duration::from_millis(300),
        ..limited()
    };
    let backend = start("hostile_alloc", Grants::default(), limits).await;
    for (how, why) in [
        ("loop", "it used more than 300ms of processor time"),
        ("grow", "it ran over its limit of 16 MiB of memory"),
        ("wild", "it trapped: "),
    ] {
        backend.publish(&[order(how)]).await.unwrap();
        let reason = broken(&backend, &events(3)).await;
        assert!(
            reason.contains("in `publish`, ") && reason.contains(why),
            "{how}: {reason}"
        );
    }
}

/// The guest has 16 MiB, the batch and its answers are small.
const MARGIN: u64 = 32 * MIB;

#[test]
fn a_plugin_that_takes_memory_again_and_again_costs_the_host_its_limit_and_no_more() {
    let workspace = Workspace::new();
    let manifest = "[limits]\nmemory = \"16MiB\"";
    workspace.add_plugin("hog", &components::test_guest("grow_memory"), manifest);
    workspace.add_file_plugin();
    let host = workspace.serve();
    let memory = Memory::of(&host);

    assert_eq!(host.post_batch("e", 20).status, 202);
    wait_for("five instances to have taken what they could", || {
        (host.log().matches("taking memory").count() > 5).then_some(())
    });
    host.wait_for_log("it ran over its limit of 16 MiB of memory");
    let grown = memory.grown();
    assert!(
        grown < 16 * MIB + MARGIN,
        "the host grew by {} MiB",
        grown / MIB
    );

    let lines = workspace.wait_for_file_lines(20);
    assert_eq!(lines.len(), 20, "the other plugin has them all, once");
}

#[test]
fn overlapping_error_texts_cost_the_host_no_more_than_a_bounded_copy() {
    let workspace = Workspace::new();
    let manifest = "[limits]\nmemory = \"16MiB\"";
    let guest = components::test_guest("overlapping_errors");
    workspace.add_plugin("liar", &guest, manifest);
    workspace.add_file_plugin();
    let host = workspace.serve();
    let memory = Memory::of(&host);

    assert_eq!(host.post_batch("e", 20).status, 202);
    host.wait_for_log("events were not taken and are tried again backend=\"overlapping-errors\"");
    workspace.wait_for_file_lines(20);
    let grown = memory.grown();
    // The guest's memory, the 16 MiB one call may have copied, and as much
    // again while a buffer is moved.
    assert!(
        grown < 48 * MIB + MARGIN,
        "the host grew by {} MiB",
        grown / MIB
    );
}

/// The memory of a host, from where it stood when this was made.
pub(crate) struct Memory<'a> {
    host: &'a Host,
    before: u64,
}

impl Memory<'_> {
    pub(crate) fn of(host: &Host) -> Memory<'_> {
        // Compiling may have taken more.
        host.forget_peak();
        Memory {
            host,
            before: host.resident_bytes(),
        }
    }

    /// By how many bytes it was larger, at most, since then.
    pub(crate) fn grown(&self) -> u64 {
        self.host.peak_bytes().saturating_sub(self.before)
    }
}
