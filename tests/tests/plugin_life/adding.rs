//! A plugin that is copied in while the host runs.

use backhaul_tests::{components, wait_for};

use crate::scene::{Scene, manifest, version};

#[test]
fn a_host_with_an_empty_folder_is_ready_when_the_first_plugin_is_copied_in() {
    let scene = Scene::new();
    let host = scene.0.serve();
    let answer = host.get("/health/ready");
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(host.post_event("early", "after:signup", "1").status, 503);

    scene.put("a.toml", manifest("a", "", "", ""));
    std::fs::copy(components::test_guest("note_life"), scene.file("a.wasm")).unwrap();
    wait_for("readiness", || {
        (host.get("/health/ready").status == 200).then_some(())
    });
    scene.deliver(&host, "a", "1");
    assert_eq!(scene.ids("a"), ["1"]);
    let plugin = host.plugin("note-life").unwrap();
    assert_eq!(plugin["state"], "ready");
    assert_eq!(plugin["file"], "plugins/a.wasm");
    assert!(host.refused_files().is_empty());
}

#[test]
fn a_plugin_added_beside_others_gets_its_events_and_they_go_on() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "1");
    let top = "name = \"b\"\nevents = [\"after:*\", \"only:b\"]";
    scene.put("b.toml", manifest("b", top, "", ""));
    // What no pattern takes is refused before, and is taken after.
    scene.put("b.wasm", version(1));
    crate::scene::wait_for_plugin(&host, "b", "in use", |_| true);
    scene.deliver(&host, "a", "2");
    scene.wait_for_events("b", 1);
    assert_eq!(scene.ids("a"), ["1", "2"]);
    assert_eq!(scene.ids("b"), ["2"]);
    // The plugin that was there is the one that was there.
    assert_eq!(host.plugin("note-life").unwrap()["instances"]["started"], 1);
    let (status, log) = host.stop();
    assert!(status.success(), "{log}");
}
