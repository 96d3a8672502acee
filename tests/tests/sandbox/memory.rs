//! The memory limit, and what a guest can make of its memory in the host's.

use std::fs;
use std::path::{Path, PathBuf};

use backhaul::wasm::{Grants, Limits};
use backhaul::{AsyncBackend, Delivery, DeliveryOptions};
use backhaul_tests::host::Workspace;
use backhaul_tests::{components, wait_for};

use crate::guest::{GENEROUS, Out, ask, broken, events, ids, start, within};

const MIB: u64 = 1 << 20;

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

/// The guest has 16 MiB, the batch and its answers are small.
const MARGIN: u64 = 32 * MIB;

#[test]
fn a_plugin_that_takes_memory_again_and_again_costs_the_host_its_limit_and_no_more() {
    let workspace = Workspace::new();
    let manifest = "[limits]\nmemory = \"16MiB\"";
    workspace.add_plugin("hog", &components::test_guest("grow_memory"), manifest);
    workspace.add_file_plugin();
    let host = workspace.serve();
    let memory = Memory::of_host_in(&workspace);

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
    let memory = Memory::of_host_in(&workspace);

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
struct Memory {
    process: PathBuf,
    before: u64,
}

impl Memory {
    /// Of the program that runs in `workspace`.
    fn of_host_in(workspace: &Workspace) -> Memory {
        let folder = workspace.path().canonicalize().expect("the workspace");
        let runs_there =
            |process: &PathBuf| fs::read_link(process.join("cwd")).is_ok_and(|cwd| cwd == folder);
        let process = fs::read_dir("/proc")
            .expect("/proc")
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(runs_there)
            .expect("a program that runs in the workspace");
        // Forgets the peak so far: compiling may have taken more.
        fs::write(process.join("clear_refs"), "5").expect("the peak is reset");
        let before = resident(&process, "VmRSS:");
        Memory { process, before }
    }

    /// By how many bytes it was larger, at most, since then.
    fn grown(&self) -> u64 {
        resident(&self.process, "VmHWM:").saturating_sub(self.before)
    }
}

fn resident(process: &Path, field: &str) -> u64 {
    let status = fs::read_to_string(process.join("status")).expect("its status");
    let line = status.lines().find_map(|line| line.strip_prefix(field));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes.and_then(|text| text.parse().ok()).expect("kB");
    kilobytes << 10
}
