//! Plugins that cannot be loaded: each is reported with its reason, and the
//! others load and take events.

#[path = "../broken_components/mod.rs"]
mod broken_components;
mod manifests;
mod names;

use std::path::PathBuf;

use backhaul::plugins::PluginHost;
use backhaul::wasm::WasmEngine;
use backhaul::{AsyncBackend, Event};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;

use broken_components::NAMELESS;

fn engine() -> WasmEngine {
    let cache = components::target().join("test-cache/backhaul");
    WasmEngine::with_cache(Some(cache)).expect("an engine")
}

/// Loads the workspace's plugins.
async fn load(workspace: &Workspace) -> PluginHost {
    let loaded = PluginHost::load(&plugins(workspace), &engine()).await;
    loaded.expect("the folder can be read")
}

fn plugins(workspace: &Workspace) -> PathBuf {
    workspace.path().join("plugins")
}

/// Adds a plugin that works, and where it writes to.
fn add_good(workspace: &Workspace) {
    let out = workspace.path().join("out");
    let manifest = format!(
        "[grants]\nfiles = [{{ host = \"{}\", guest = \"/out\", write = true }}]",
        out.display()
    );
    let guest = components::test_guest("record_blocking");
    workspace.add_plugin("good", &guest, &manifest);
}

/// The good plugin is loaded and takes an event.
async fn assert_good_works(workspace: &Workspace, host: &PluginHost) {
    let event = Event::new("after:signup", "1").expect("an event");
    host.publish(std::slice::from_ref(&event))
        .await
        .expect("the host takes it");
    let good = host.plugin("record-blocking");
    let good = good.expect("the good plugin is loaded");
    good.delivery()
        .close(backhaul_tests::PATIENCE)
        .await
        .expect("it is delivered");
    let published = std::fs::read_to_string(workspace.path().join("out/published"));
    assert!(published.expect("a file").contains(event.id()));
}

/// Adds `NAME.wasm` beside the good plugin and returns why it is refused.
async fn refusal(name: &str, bytes: &[u8], manifest: &str) -> String {
    let workspace = Workspace::new();
    add_good(&workspace);
    workspace.add_bytes(name, bytes, manifest);
    let host = load(&workspace).await;
    let refused = host.refused();
    assert_eq!(refused.len(), 1, "{name} is refused and nothing else");
    assert_eq!(
        refused[0].file,
        plugins(&workspace).join(format!("{name}.wasm"))
    );
    assert_good_works(&workspace, &host).await;
    refused[0].reason.to_string()
}

fn assert_says(reason: &str, words: &[&str], what: &str) {
    for word in words {
        assert!(reason.contains(word), "{what}: {word:?} not in: {reason}");
    }
    assert!(reason.len() < 2000, "{what}: {} bytes", reason.len());
    assert!(!reason.contains('\x1b'), "{what}: {reason:?}");
}

#[tokio::test]
async fn a_file_that_is_no_backend_is_refused_with_what_it_is_instead() {
    for broken in broken_components::all() {
        let reason = refusal(broken.name, &broken.bytes, "").await;
        assert_says(&reason, broken.reason, broken.name);
    }
}

#[tokio::test]
async fn a_folder_called_like_a_plugin_is_none() {
    let workspace = Workspace::new();
    add_good(&workspace);
    std::fs::create_dir(plugins(&workspace).join("folder.wasm")).unwrap();
    let host = load(&workspace).await;
    assert!(host.refused().is_empty(), "{:?}", host.refused());
    assert_good_works(&workspace, &host).await;
}

#[tokio::test]
async fn a_link_that_leads_nowhere_is_refused() {
    let workspace = Workspace::new();
    add_good(&workspace);
    std::os::unix::fs::symlink("/nonexistent", plugins(&workspace).join("link.wasm")).unwrap();
    let host = load(&workspace).await;
    let reason = host.refused()[0].reason.to_string();
    assert!(reason.contains("the file cannot be read"), "{reason}");
    assert_good_works(&workspace, &host).await;
}

/// A file that says it is huge without taking the space.
#[tokio::test]
async fn a_file_larger_than_any_component_is_refused_unread() {
    let workspace = Workspace::new();
    add_good(&workspace);
    let file = std::fs::File::create(plugins(&workspace).join("huge.wasm")).unwrap();
    file.set_len(129 << 20).unwrap();
    let host = load(&workspace).await;
    let reason = host.refused()[0].reason.to_string();
    let words = ["135266304 bytes; the largest component that is loaded has 134217728"];
    assert_says(&reason, &words, "huge");
    assert_good_works(&workspace, &host).await;
}

/// All of them at once, with the program.
#[test]
fn the_host_starts_names_every_plugin_it_did_not_load_and_serves_the_others() {
    let workspace = Workspace::new();
    add_good(&workspace);
    let broken = broken_components::all();
    for broken in &broken {
        workspace.add_bytes(broken.name, &broken.bytes, "");
    }
    for (guest, _) in NAMELESS {
        let limits = "[limits]\nstart_timeout = \"500ms\"";
        workspace.add_plugin(guest, &components::test_guest(guest), limits);
    }

    let host = workspace.serve();
    let log = host.log();
    let expected = broken.iter().map(|broken| (broken.name, broken.reason));
    for (name, reason) in expected.chain(NAMELESS) {
        let shown = format!("  NOT LOADED plugins/{name}.wasm: ");
        let line = log.lines().find_map(|line| line.strip_prefix(&shown));
        assert_says(line.unwrap_or_default(), reason, name);
    }
    assert_eq!(host.get("/health/ready").status, 200);
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    let (status, _) = host.stop();
    assert!(status.success());
    let published = std::fs::read_to_string(workspace.path().join("out/published"));
    assert_eq!(published.unwrap(), "1\n");
}
