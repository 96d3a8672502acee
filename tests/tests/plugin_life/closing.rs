//! `close` is called once for every instance that is whole, whenever its time
//! has come, and cannot hold the host up.

use std::time::{Duration, Instant};

use backhaul_tests::components;
use backhaul_tests::host::Host;

use crate::scene::{Scene, manifest, replace, version, wait_for_plugin};

fn three_instances(label: &str) -> String {
    let env = format!("LABEL = \"{label}\", PAUSE = \"100\"");
    manifest("a", "", &env, "batch = 1\ninstances = 3")
}

/// Gives so much at once that every instance the plugin may have is started.
fn employ_all(host: &Host, prefix: &str) {
    assert_eq!(host.post_batch(prefix, 12).status, 202);
    wait_for_plugin(host, "note-life", "three instances, done", |now| {
        now["instances"]["started"] == 3 && now["delivery"]["pending"] == 0
    });
}

#[test]
fn every_instance_is_closed_once_when_replaced_when_removed_and_at_the_end() {
    let scene = Scene::with_a();
    scene.put("a.toml", three_instances("replaced"));
    let host = scene.0.serve();
    employ_all(&host, "a");
    replace(&host, "note-life", || {
        scene.put("a.toml", three_instances("removed"));
    });
    assert_eq!(scene.wait_for_closed("a", 3), ["replaced"; 3]);
    employ_all(&host, "b");
    std::fs::remove_file(scene.file("a.wasm")).unwrap();
    assert_eq!(scene.wait_for_closed("a", 6)[3..], ["removed"; 3]);
    scene.put("a.toml", three_instances("ended"));
    scene.put("a.wasm", version(1));
    wait_for_plugin(&host, "note-life", "in use again", |_| true);
    employ_all(&host, "c");
    let (status, log) = host.stop();
    assert!(status.success(), "{log}");
    assert_eq!(scene.lines("a", "closed")[6..], ["ended"; 3]);
    assert_eq!(scene.ids("a").len(), 36);
}

#[test]
fn a_plugin_that_hangs_in_close_holds_up_neither_its_replacement_nor_the_end() {
    let scene = Scene::with_a();
    let limits = "timeout = \"50s\"\ncpu = \"50s\"";
    let endless = manifest("endless", "name = \"endless\"", "", limits);
    scene.put("endless.toml", &endless);
    let guest = components::test_guest("loop_in_close");
    std::fs::copy(guest, scene.file("endless.wasm")).unwrap();
    let host = scene.0.serve_with(&["--drain", "2s"]);
    scene.deliver(&host, "a", "1");
    wait_for_plugin(&host, "endless", "it has the event", |now| {
        now["delivery"]["delivered"] == 1
    });
    // The version before hangs; the next one works.
    let began = Instant::now();
    replace(&host, "endless", || {
        scene.put(
            "endless.toml",
            format!("events = [\"*\"]\n{endless}\nlog = 7\n"),
        );
    });
    scene.deliver(&host, "a", "2");
    wait_for_plugin(&host, "endless", "it has the next event", |now| {
        now["delivery"]["delivered"] == 2
    });
    let (status, log) = host.stop();
    assert!(began.elapsed() < Duration::from_secs(45), "{log}");
    assert!(status.success(), "{log}");
    assert!(log.contains("the plugin did not close in time"), "{log}");
    // The other one was closed as it should.
    assert_eq!(scene.lines("a", "closed").len(), 1);
}
