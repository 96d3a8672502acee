//! The folder of compiled code: used, private, and no way in.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
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

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is ours");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Loads the recording guest, and says whether it was compiled for that.
async fn is_compiled(cache: &Path) -> bool {
    let component = engine(cache).load(wasm("record_blocking")).await.unwrap();
    assert_eq!(component.world(), World::BlockingBackend);
    component.compiled_in().is_some()
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
    assert!(is_compiled(&cache).await);
    assert!(!is_compiled(&cache).await);
}

#[tokio::test]
async fn the_code_of_one_component_is_never_taken_for_anothers() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    let first = engine(&cache);
    first.load(wasm("record_blocking")).await.unwrap();
    let blocking = entries(&cache).remove(0);
    first.load(wasm("record_async")).await.unwrap();
    let asynchronous = entries(&cache).into_iter().find(|entry| *entry != blocking);

    fs::copy(asynchronous.unwrap(), &blocking).unwrap();
    let loaded = engine(&cache).load(wasm("record_blocking")).await.unwrap();
    assert_eq!(loaded.world(), World::BlockingBackend);
    assert!(loaded.compiled_in().is_some());
}

#[tokio::test]
async fn code_of_another_wasmtime_is_left_alone() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    assert!(is_compiled(&cache).await);
    let entry = entries(&cache).remove(0);
    let name = entry.file_name().unwrap().to_str().unwrap();
    let (hash, _) = name.split_once('-').unwrap();
    let other = cache.join(format!("{hash}-0123456789abcdef.cwasm"));
    fs::rename(&entry, &other).unwrap();
    assert!(is_compiled(&cache).await);
    assert!(entry.exists() && other.exists());
}

/// Something in an entry's place that another could have put there, or could
/// write to.
#[tokio::test]
async fn an_entry_that_is_not_a_private_file_is_not_run() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    assert!(is_compiled(&cache).await);
    let entry = entries(&cache).remove(0);
    let elsewhere = folder.path().join("elsewhere");
    fs::copy(&entry, &elsewhere).unwrap();

    let replace: [(&str, &dyn Fn()); 5] = [
        ("group may write", &|| set_mode(&entry, 0o620)),
        ("others may write", &|| set_mode(&entry, 0o602)),
        ("a symlink", &|| {
            fs::remove_file(&entry).unwrap();
            symlink(&elsewhere, &entry).unwrap();
        }),
        ("a hard link", &|| {
            fs::remove_file(&entry).unwrap();
            fs::hard_link(&elsewhere, &entry).unwrap();
        }),
        ("another user's", &|| {
            if is_root() {
                std::os::unix::fs::chown(&entry, Some(65534), None).unwrap();
            } else {
                set_mode(&entry, 0o620);
            }
        }),
    ];
    for (what, replace) in replace {
        replace();
        assert!(is_compiled(&cache).await, "{what}");
        // It was replaced, and is trusted again.
        assert!(!is_compiled(&cache).await, "{what}");
        assert!(entry.symlink_metadata().unwrap().is_file());
        assert_eq!(mode(&entry), 0o600, "{what}");
    }
}

#[tokio::test]
async fn a_folder_or_pipe_in_an_entrys_place_does_not_keep_a_component_from_loading() {
    let folder = TempDir::new().unwrap();
    let cache = folder.path().join("cache");
    assert!(is_compiled(&cache).await);
    let entry = entries(&cache).remove(0);
    fs::remove_file(&entry).unwrap();
    fs::create_dir(&entry).unwrap();
    assert!(is_compiled(&cache).await);
    fs::remove_dir(&entry).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&entry).status();
    assert!(made.unwrap().success());
    assert!(is_compiled(&cache).await);
    assert!(!is_compiled(&cache).await, "a file took its place");
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
        set_mode(&cache, open);
        assert_works(&cache).await;
        assert!(entries(&cache).is_empty());
    }
}

#[tokio::test]
async fn a_folder_that_another_could_exchange_is_not_used() {
    let folder = TempDir::new().unwrap();
    let real = folder.path().join("real");
    fs::create_dir(&real).unwrap();
    set_mode(&real, 0o700);
    let link = folder.path().join("link");
    symlink(&real, &link).unwrap();
    assert!(engine(&link).cache().is_none(), "a symlink");
    assert!(
        engine(&link.join("below")).cache().is_some(),
        "below one of one's own"
    );

    let open = folder.path().join("open");
    fs::create_dir(&open).unwrap();
    let cache = open.join("cache");
    for (mode, used) in [
        (0o777, false),
        (0o1777, true),
        (0o775, false),
        (0o755, true),
    ] {
        set_mode(&open, mode);
        assert_eq!(engine(&cache).cache().is_some(), used, "{mode:o}");
    }
    if is_root() {
        std::os::unix::fs::chown(&open, Some(65534), None).unwrap();
        assert!(engine(&cache).cache().is_none(), "in another user's folder");
        std::os::unix::fs::chown(&open, Some(0), None).unwrap();
        std::os::unix::fs::chown(&cache, Some(65534), None).unwrap();
        assert!(engine(&cache).cache().is_none(), "another user's");
    }
}

#[test]
fn a_folder_others_may_write_to_is_warned_of_and_the_host_works() {
    let workspace = Workspace::new();
    let cache = workspace.path().join("data/cache");
    fs::create_dir_all(&cache).unwrap();
    set_mode(&cache, 0o777);
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
