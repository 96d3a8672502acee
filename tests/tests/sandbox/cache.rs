//! The folder of compiled code: used, private, and no way in.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use backhaul::AsyncBackend;
use backhaul::wasm::{WasmBackend, WasmEngine, World};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use tempfile::TempDir;

use crate::guest::{GENEROUS, Out, events, ids, within};

fn engine(cache: &Path) -> WasmEngine {
    WasmEngine::with_cache(Some(cache.to_owned())).expect("an engine")
}

fn wasm(guest: &str) -> Vec<u8> {
    fs::read(components::test_guest(guest)).expect("the guest")
}

fn entries(cache: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cache).expect("the cache");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("it exists").permissions().mode() & 0o777
}

/// Loads the recording guest, and has it publish.
async fn assert_works(cache: &Path) {
    let out = Out::new();
    let component = engine(cache).load(wasm("record_blocking")).await.unwrap();
    let started = WasmBackend::start(component, "test", out.grants(), within(GENEROUS)).await;
    started.unwrap().publish(&events(2)).await.unwrap();
    assert_eq!(out.published(), ids(2));
}

#[tokio::test]
async fn compiled_code_is_kept_for_this_user_alone() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("new/cache");
    assert_works(&cache).await;
    let entries = entries(&cache);
    assert_eq!(entries.len(), 1, "no unfinished file is left: {entries:?}");
    assert_eq!(mode(&cache), 0o700);
    assert_eq!(mode(&entries[0]), 0o600);
}

#[tokio::test]
async fn a_component_that_was_loaded_before_is_not_compiled_again() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let first = engine(&cache);
    first.load(wasm("record_blocking")).await.unwrap();
    let blocking = entries(&cache).remove(0);
    first.load(wasm("record_async")).await.unwrap();
    let asynchronous = entries(&cache).into_iter().find(|entry| *entry != blocking);

    // With the code of the one in place of the other's, only a host that runs
    // what is there, and compiles nothing, takes the one for the other.
    fs::copy(asynchronous.unwrap(), &blocking).unwrap();
    let loaded = engine(&cache).load(wasm("record_blocking")).await.unwrap();
    assert_eq!(loaded.world(), World::Backend);
}

#[tokio::test]
async fn a_damaged_entry_is_compiled_anew() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    assert_works(&cache).await;
    let entry = entries(&cache).remove(0);
    let sound = fs::read(&entry).unwrap();

    let mut flipped = sound.clone();
    flipped[sound.len() / 2] ^= 1;
    let half = &sound[..sound.len() / 2];
    for damaged in [&flipped[..], half, &sound[..40], &sound[..7], &[]] {
        fs::write(&entry, damaged).unwrap();
        assert_works(&cache).await;
        let again = fs::read(&entry).unwrap();
        assert_eq!(again.len(), sound.len());
        assert_ne!(again, damaged, "the damage is repaired");
    }
}

#[tokio::test]
async fn a_folder_others_may_write_to_is_not_used() {
    let folder = TempDir::new().unwrap();
    for open in [0o777, 0o770, 0o702] {
        let cache = folder.path().join(format!("cache-{open:o}"));
        fs::create_dir(&cache).unwrap();
        fs::set_permissions(&cache, fs::Permissions::from_mode(open)).unwrap();
        assert_works(&cache).await;
        assert!(entries(&cache).is_empty());
    }
}

#[test]
fn a_folder_others_may_write_to_is_warned_of_and_the_host_works() {
    let workspace = Workspace::new();
    let cache = workspace.path().join("data/cache");
    fs::create_dir_all(&cache).unwrap();
    fs::set_permissions(&cache, fs::Permissions::from_mode(0o777)).unwrap();
    workspace.add_file_plugin();

    let host = workspace.serve_with(&["--data", "data"]);
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    workspace.wait_for_file_lines(1);
    let log = host.log();
    let warning = log
        .lines()
        .find(|line| line.contains("compiled plugins cannot be kept there"));
    let warning = warning.expect("a warning");
    assert!(
        warning.contains("data/cache") && warning.contains("others may write to it"),
        "{warning}"
    );
    assert!(entries(&cache).is_empty());
}
