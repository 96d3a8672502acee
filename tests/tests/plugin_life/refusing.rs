//! A replacement that does not work: the version before stays.

use std::fs;
use std::time::Duration;

use backhaul_tests::components;

use crate::scene::{Scene, logged, manifest, replace, version, wait_for_plugin};

/// What is put in place of the component or the manifest, and a word of why it
/// is refused.
fn broken() -> Vec<(&'static str, Vec<u8>, &'static str)> {
    let sound = version(1);
    let guest = |name| fs::read(components::test_guest(name)).expect("the guest");
    let text = |text: &str| text.as_bytes().to_vec();
    let pinned = format!("sha256 = \"{}\"", "0".repeat(64));
    vec![
        ("a.wasm", text("no component at all"), "it is not Wasm"),
        ("a.wasm", Vec::new(), "the file is empty"),
        ("a.wasm", sound[..sound.len() / 2].to_vec(), "not a whole"),
        ("a.wasm", some_sections(&sound), "not a backend"),
        ("a.wasm", guest("trap_in_name"), "in `name`, it trapped"),
        (
            "a.wasm",
            wat::parse_str("(component)").expect("a component"),
            "not a backend: it exports nothing",
        ),
        ("a.toml", text("evnets = [\"a\"]"), "evnets"),
        ("a.toml", text("[grants"), "a.toml"),
        (
            "a.toml",
            manifest("a", &pinned, "", "").into(),
            "its SHA-256 is",
        ),
    ]
}

/// The beginning of a component, up to where a section ends.
fn some_sections(component: &[u8]) -> Vec<u8> {
    let mut end = 8;
    let mut at = 8;
    while at < component.len() / 2 {
        end = at;
        // Its kind, then its size as LEB128.
        let (mut size, mut shift) = (0_usize, 0);
        at += 1;
        loop {
            let byte = component[at];
            at += 1;
            size |= usize::from(byte & 0x7f) << shift;
            shift += 7;
            if byte & 0x80 == 0 {
                break;
            }
        }
        at += size;
    }
    component[..end].to_vec()
}

#[test]
fn while_a_replacement_is_broken_the_version_before_works_and_the_problem_is_shown() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "0");
    let good = fs::read(scene.file("a.wasm")).unwrap();
    let good_manifest = fs::read(scene.file("a.toml")).unwrap();
    let before = host.plugin("note-life").unwrap();
    let broken = broken();
    for (n, (file, content, reason)) in broken.iter().enumerate() {
        scene.put(file, content);
        let now = wait_for_plugin(&host, "note-life", reason, |now| {
            now["problem"].as_str().is_some_and(|p| p.contains(reason))
        });
        for key in ["loaded", "sha256", "state"] {
            assert_eq!(now[key], before[key], "{reason}");
        }
        scene.deliver(&host, "a", &format!("while-{n}"));
        // What was there before is no news, but the problem is gone.
        let content = match *file {
            "a.wasm" => &good,
            _ => &good_manifest,
        };
        scene.put(file, content);
        let now = wait_for_plugin(&host, "note-life", "no problem", |now| {
            now["problem"].is_null()
        });
        assert_eq!(now["loaded"], before["loaded"], "{reason}");
    }
    assert!(scene.lines("a", "closed").is_empty());

    // It is said once, however often the folder is looked at.
    scene.put("a.wasm", "broken again");
    wait_for_plugin(&host, "note-life", "a problem", |now| {
        now["problem"].is_string()
    });
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(logged(&host, "not replaced"), broken.len() + 1);

    let now = replace(&host, "note-life", || scene.put("a.wasm", version(2)));
    assert!(now["problem"].is_null());
    scene.deliver(&host, "a", "last");
    scene.wait_for_closed("a", 1);
    assert_eq!(scene.ids("a").len(), broken.len() + 2);
}

/// What was refused late must not be held against what came after it.
#[test]
fn a_replacement_that_fails_slowly_does_not_get_in_the_way_of_the_next() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "1");
    let before = host.plugin("note-life").unwrap();
    let good_manifest = fs::read(scene.file("a.toml")).unwrap();
    // It never says its name, and has three seconds for that.
    let limits = "start_timeout = \"3s\"\ncpu = \"3s\"";
    scene.put("a.toml", manifest("a", "", "", limits));
    scene.put(
        "a.wasm",
        fs::read(components::test_guest("loop_in_name")).unwrap(),
    );
    std::thread::sleep(Duration::from_millis(1000));
    assert_eq!(
        host.plugin("note-life").unwrap()["loaded"],
        before["loaded"]
    );
    replace(&host, "note-life", || {
        scene.put("a.toml", &good_manifest);
        scene.put("a.wasm", version(2));
    });
    // Past the end of those three seconds.
    std::thread::sleep(Duration::from_millis(3000));
    let now = host.plugin("note-life").unwrap();
    assert!(now["problem"].is_null(), "{now}");
    assert_eq!(logged(&host, "not replaced"), 0);
    scene.deliver(&host, "a", "2");
}

#[test]
fn a_file_that_was_refused_is_loaded_once_it_is_right() {
    let scene = Scene::with_a();
    scene.put("b.wasm", "nothing of use");
    let host = scene.0.serve();
    let refused = host.refused_files();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(refused[0].0, "plugins/b.wasm");
    assert!(refused[0].1.contains("it is not Wasm"), "{refused:?}");
    scene.put("b.toml", manifest("b", "name = \"b\"", "", ""));
    scene.put("b.wasm", version(1));
    wait_for_plugin(&host, "b", "in use", |_| true);
    assert!(host.refused_files().is_empty());
    // One that is removed is refused no longer.
    scene.put("c.wasm", "nothing of use");
    backhaul_tests::wait_for("it is refused", || host.refused_files().pop());
    fs::remove_file(scene.file("c.wasm")).unwrap();
    backhaul_tests::wait_for("nothing is refused", || {
        host.refused_files().is_empty().then_some(())
    });
}
