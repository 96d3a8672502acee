//! A plugin that is taken out of the folder, or gets another name.

use std::fs;

use backhaul_tests::wait_for;

use crate::scene::{Scene, manifest, version, wait_for_plugin};

#[test]
fn a_removed_plugin_delivers_what_waits_is_closed_and_is_gone() {
    let scene = Scene::with_a();
    scene.put(
        "b.toml",
        manifest("b", "name = \"b\"\nevents = [\"b:*\"]", "", ""),
    );
    scene.put("b.wasm", version(1));
    let slowly = manifest("a", "events = [\"after:*\"]", "PAUSE = \"50\"", "batch = 1");
    scene.put("a.toml", slowly);
    let host = scene.0.serve();
    assert_eq!(host.post_batch("a", 30).status, 202);
    fs::remove_file(scene.file("a.wasm")).unwrap();
    wait_for("it is gone", || {
        host.plugin("note-life").is_none().then_some(())
    });
    let answer = host.post_event("late", "after:signup", "1");
    assert_eq!(answer.status, 422, "{answer:?}");
    let ids = scene.wait_for_events("a", 30);
    let expected: Vec<String> = (0..30).map(|n| format!("a-{n}")).collect();
    assert_eq!(ids, expected);
    scene.wait_for_closed("a", 1);
    host.wait_for_log("ended: everything it had taken was delivered");

    // The other one has not noticed.
    assert_eq!(host.post_event("b", "b:type", "1").status, 202);
    scene.wait_for_events("b", 1);
    assert_eq!(host.plugin("b").unwrap()["instances"]["started"], 1);
    let (status, log) = host.stop();
    assert!(status.success(), "{log}");
    assert_eq!(scene.lines("a", "closed").len(), 1);
    assert_eq!(scene.lines("b", "closed").len(), 1);
}

#[test]
fn a_host_that_stops_waits_for_a_plugin_that_was_removed_just_before() {
    let scene = Scene::with_a();
    scene.put("a.toml", manifest("a", "", "PAUSE = \"50\"", "batch = 1"));
    let host = scene.0.serve();
    assert_eq!(host.post_batch("a", 30).status, 202);
    fs::remove_file(scene.file("a.wasm")).unwrap();
    wait_for("it is gone", || {
        host.plugin("note-life").is_none().then_some(())
    });
    let (status, log) = host.stop();
    assert!(status.success(), "{log}");
    assert_eq!(scene.ids("a").len(), 30, "{log}");
    assert_eq!(scene.lines("a", "closed").len(), 1);
}

#[test]
fn a_removed_plugin_that_cannot_deliver_is_reported() {
    for (journal, report) in [("off", "not delivered: 3 event(s)"), ("on", "kept=3")] {
        let scene = Scene::with_a();
        // Without the grant it can note nothing, and traps.
        scene.put("a.toml", "");
        let host = scene
            .0
            .serve_with(&["--journal", journal, "--drain", "300ms"]);
        assert_eq!(host.post_batch("a", 3).status, 202);
        fs::remove_file(scene.file("a.wasm")).unwrap();
        host.wait_for_log(report);
        assert!(host.plugin("note-life").is_none());
    }
}

#[test]
fn a_plugin_whose_files_are_renamed_works_under_the_new_name() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "1");
    for (n, (from, to)) in [("a", "b"), ("b", "a"), ("a", "c")].into_iter().enumerate() {
        for extension in ["wasm", "toml"] {
            let file = |name| scene.file(&format!("{name}.{extension}"));
            fs::rename(file(from), file(to)).unwrap();
        }
        let file = format!("plugins/{to}.wasm");
        wait_for_plugin(&host, "note-life", &file, |now| now["file"] == *file);
        scene.wait_for_closed("a", n + 1);
        scene.deliver(&host, "a", &format!("as-{to}"));
    }
    assert_eq!(scene.ids("a"), ["1", "as-b", "as-a", "as-c"]);
    assert!(host.refused_files().is_empty());
}

#[test]
fn a_plugin_gets_the_name_its_manifest_has_now() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "1");
    scene.put("a.toml", manifest("a", "name = \"other\"", "", ""));
    wait_for_plugin(&host, "other", "in use", |_| true);
    assert!(host.plugin("note-life").is_none());
    scene.wait_for_closed("a", 1);
    scene.deliver(&host, "a", "2");
    assert_eq!(scene.ids("a"), ["1", "2"]);
}

#[test]
fn a_name_that_is_taken_is_refused_and_one_that_is_free_is_not() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.put("b.toml", manifest("b", "", "", ""));
    scene.put("b.wasm", version(2));
    let (file, reason) = wait_for("it is refused", || host.refused_files().pop());
    assert_eq!(file, "plugins/b.wasm");
    assert!(
        reason.contains("its name `note-life` is taken by plugins/a.wasm"),
        "{reason}"
    );
    scene.deliver(&host, "a", "1");
    assert_eq!(host.plugin("note-life").unwrap()["file"], "plugins/a.wasm");

    scene.put("b.toml", manifest("b", "name = \"b\"", "", ""));
    wait_for_plugin(&host, "b", "in use", |_| true);
    assert!(host.refused_files().is_empty());
    scene.deliver(&host, "a", "2");
    scene.wait_for_events("b", 1);

    // A plugin in use that takes a name in use stays what it was.
    scene.put("b.toml", manifest("b", "name = \"note-life\"", "", ""));
    wait_for_plugin(&host, "b", "a problem", |now| {
        now["problem"].as_str().is_some_and(|p| p.contains("taken"))
    });
    scene.deliver(&host, "b", "3");
    // Once the name is free, it gets it.
    fs::remove_file(scene.file("a.wasm")).unwrap();
    wait_for_plugin(&host, "note-life", "from b.wasm", |now| {
        now["file"] == "plugins/b.wasm"
    });
    assert!(host.plugin("b").is_none());
    scene.deliver(&host, "b", "4");
}

/// First the copy, then the removal of what it was copied from.
#[test]
fn a_name_that_becomes_free_goes_to_the_plugin_that_was_refused_for_it() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.put("b.toml", manifest("b", "", "", ""));
    scene.put("b.wasm", version(1));
    wait_for("it is refused", || host.refused_files().pop());
    fs::remove_file(scene.file("a.wasm")).unwrap();
    wait_for_plugin(&host, "note-life", "from b.wasm", |now| {
        now["file"] == "plugins/b.wasm"
    });
    assert!(host.refused_files().is_empty());
    scene.deliver(&host, "b", "1");
}
