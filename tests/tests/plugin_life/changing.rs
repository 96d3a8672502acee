//! A new version takes over from the one before, while events flow.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};

use backhaul_tests::wait_for;

use crate::scene::{Scene, manifest, replace, version, wait_for_plugin};

#[test]
fn a_new_component_takes_over_and_the_one_before_is_closed_once() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "1");
    assert!(scene.lines("a", "closed").is_empty());
    let before = host.plugin("note-life").unwrap();
    let after = replace(&host, "note-life", || scene.put("a.wasm", version(2)));
    assert_ne!(after["sha256"], before["sha256"]);
    // The figures of its delivery go on, those of its instances begin anew.
    assert_eq!(after["delivery"]["delivered"], 1);
    assert_eq!(after["instances"]["started"], 1);
    scene.wait_for_closed("a", 1);
    scene.deliver(&host, "a", "2");
    let (status, log) = host.stop();
    assert!(status.success(), "{log}");
    assert_eq!(scene.ids("a"), ["1", "2"]);
    // One for the version before, one for the last.
    assert_eq!(scene.lines("a", "closed").len(), 2);
    assert_eq!(log.matches(" replaced ").count(), 1, "{log}");
}

#[test]
fn events_before_during_and_after_a_change_arrive_once_and_in_order() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    let changed = AtomicBool::new(false);
    let accepted = std::thread::scope(|scope| {
        let posting = scope.spawn(|| {
            let mut accepted = Vec::new();
            while !changed.load(Ordering::Relaxed) {
                let id = accepted.len().to_string();
                let answer = host.post_event(&id, "after:signup", "1");
                assert_eq!(answer.status, 202, "{answer:?}");
                accepted.push(id);
            }
            accepted
        });
        for number in 2..6 {
            let label = format!("LABEL = \"{number}\"");
            replace(&host, "note-life", || scene.put("a.wasm", version(number)));
            replace(&host, "note-life", || {
                scene.put("a.toml", manifest("a", "", &label, ""));
            });
            scene.wait_for_closed("a", usize::from(number - 2) * 2 + 1);
        }
        changed.store(true, Ordering::Relaxed);
        posting.join().expect("every event is accepted")
    });
    let (status, log) = host.stop();
    assert!(status.success(), "{log}");
    assert_eq!(scene.ids("a"), accepted);
}

#[test]
fn what_a_changed_manifest_says_takes_effect() {
    let scene = Scene::with_a();
    let top = "events = [\"after:*\"]";
    let env = "LABEL = \"one\"";
    scene.put("a.toml", manifest("a", top, env, "batch = 1"));
    let host = scene.0.serve();
    let other = |id: &str| host.post_event(id, "other:type", "1").status;
    assert_eq!(other("other"), 422);
    assert_eq!(host.post_batch("first", 8).status, 202);
    scene.wait_for_events("a", 8);
    let lines = scene.lines("a", "published");
    assert!(lines.iter().all(|l| l.starts_with("one 1 ")), "{lines:?}");

    // Its events, its environment, its batches, its instances.
    let top = "events = [\"other:*\"]";
    let env = "LABEL = \"two\", PAUSE = \"30\"";
    let limits = "batch = 4\ninstances = 3";
    let changed = replace(&host, "note-life", || {
        scene.put("a.toml", manifest("a", top, env, limits));
    });
    assert_eq!(changed["events"], serde_json::json!(["other:*"]));
    assert_eq!(changed["limits"]["instances"], 3);
    let answer = host.post_event("none", "after:signup", "1");
    assert_eq!(answer.status, 422, "{answer:?}");
    let mut posted = 0;
    wait_for("three instances, and events that came together", || {
        assert_eq!(other(&format!("second-{posted}")), 202);
        posted += 1;
        let started = &host.plugin("note-life")?["instances"]["started"];
        let together = |line: &String| line.starts_with("two ") && !line.starts_with("two 1 ");
        let lines = scene.lines("a", "published");
        (*started == 3 && lines.iter().any(together)).then_some(())
    });
    scene.wait_for_events("a", 8 + posted);
    for line in &scene.lines("a", "published")[8..] {
        let count = line.split(' ').nth(1).unwrap();
        assert!(count.parse::<u32>().unwrap() <= 4, "{line}");
        assert!(line.starts_with("two "), "{line}");
    }
}

#[test]
fn fewer_instances_are_a_change_too() {
    let scene = Scene::with_a();
    let env = "PAUSE = \"20\"";
    let limits = |instances| format!("batch = 1\ninstances = {instances}");
    scene.put("a.toml", manifest("a", "", env, &limits(3)));
    let host = scene.0.serve();
    assert_eq!(host.post_batch("many", 30).status, 202);
    wait_for_plugin(&host, "note-life", "three instances", |now| {
        now["instances"]["started"] == 3
    });
    replace(&host, "note-life", || {
        scene.put("a.toml", manifest("a", "", env, &limits(1)));
    });
    scene.wait_for_events("a", 30);
    // One at a time, so in order again.
    let before = scene.ids("a").len();
    assert_eq!(host.post_batch("few", 30).status, 202);
    let ids = scene.wait_for_events("a", before + 30);
    let expected: Vec<String> = (0..30).map(|n| format!("few-{n}")).collect();
    assert_eq!(ids[before..], expected);
    assert_eq!(host.plugin("note-life").unwrap()["instances"]["started"], 1);
}

#[test]
fn a_changed_secret_takes_effect_when_its_manifest_is_touched() {
    let scene = Scene::with_a();
    let secret = scene.0.path().join("secret");
    fs::write(&secret, "hunter1").unwrap();
    let env = format!("LABEL = {{ file = \"{}\" }}", secret.display());
    let text = manifest("a", "", &env, "");
    scene.put("a.toml", &text);
    let host = scene.0.serve();
    assert_eq!(scene.deliver(&host, "a", "1"), "hunter1 1 1");
    fs::write(&secret, "hunter2").unwrap();
    replace(&host, "note-life", || {
        // What `touch` does.
        let file = fs::File::options()
            .write(true)
            .open(scene.file("a.toml"))
            .unwrap();
        file.set_modified(std::time::SystemTime::now()).unwrap();
    });
    assert_eq!(scene.deliver(&host, "a", "2"), "hunter2 1 2");
    let (_, log) = host.stop();
    assert!(!log.contains("hunter"), "{log}");
}
