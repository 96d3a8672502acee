//! The ways in which files are written: only what is whole and at rest counts.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::symlink;
use std::time::Duration;

use backhaul_tests::components;
use backhaul_tests::wait_for;

use crate::scene::{Scene, manifest, replace, version, wait_for_plugin};

/// What a way to write is called, and what it does with the content.
type Way<Content> = (&'static str, fn(&Scene, Content));

const WAYS_TO_WRITE_A_COMPONENT: [Way<Vec<u8>>; 7] = [
    ("cp", |scene, bytes| {
        fs::write(scene.file("a.wasm"), bytes).unwrap();
    }),
    ("mv from the same folder", |scene, bytes| {
        fs::write(scene.file("a.wasm.new"), bytes).unwrap();
        fs::rename(scene.file("a.wasm.new"), scene.file("a.wasm")).unwrap();
    }),
    ("mv from another folder", |scene, bytes| {
        let other = scene.0.path().join("built.wasm");
        fs::write(&other, bytes).unwrap();
        fs::rename(other, scene.file("a.wasm")).unwrap();
    }),
    ("rsync", |scene, bytes| {
        let hidden = scene.file(".a.wasm.X3dq1Z");
        let mut file = File::create(&hidden).unwrap();
        for piece in bytes.chunks(bytes.len() / 4) {
            file.write_all(piece).unwrap();
            std::thread::sleep(Duration::from_millis(50));
        }
        fs::rename(hidden, scene.file("a.wasm")).unwrap();
    }),
    ("install: remove, then create", |scene, bytes| {
        fs::remove_file(scene.file("a.wasm")).unwrap();
        fs::write(scene.file("a.wasm"), bytes).unwrap();
    }),
    ("a link put in its place", |scene, bytes| {
        let target = scene.0.path().join("first.wasm");
        fs::write(&target, bytes).unwrap();
        symlink(target, scene.file("link")).unwrap();
        fs::rename(scene.file("link"), scene.file("a.wasm")).unwrap();
    }),
    ("the link switched to another file", |scene, bytes| {
        let target = scene.0.path().join("second.wasm");
        fs::write(&target, bytes).unwrap();
        symlink(target, scene.file("link")).unwrap();
        fs::rename(scene.file("link"), scene.file("a.wasm")).unwrap();
    }),
];

#[test]
fn every_usual_way_to_write_a_component_replaces_it() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "0");
    for (number, (way, write)) in (2..).zip(WAYS_TO_WRITE_A_COMPONENT) {
        let before = host.plugin("note-life").unwrap();
        write(&scene, version(number));
        wait_for_plugin(&host, "note-life", way, |now| {
            now["sha256"] != before["sha256"]
        });
        scene.deliver(&host, "a", way);
    }
    let ways = WAYS_TO_WRITE_A_COMPONENT.map(|(way, _)| way);
    let delivered = scene.lines("a", "published");
    let expected: Vec<String> = ["0"]
        .iter()
        .chain(&ways)
        .map(|id| format!("one 1 {id}"))
        .collect();
    assert_eq!(delivered, expected);
    // Each but the last.
    scene.wait_for_closed("a", ways.len());
    assert!(host.refused_files().is_empty());
}

const WAYS_TO_WRITE_A_MANIFEST: [Way<String>; 4] = [
    ("in place", |scene, text| {
        fs::write(scene.file("a.toml"), text).unwrap();
    }),
    ("renamed backup", |scene, text| {
        fs::write(scene.file("a.toml~"), text).unwrap();
        fs::rename(scene.file("a.toml~"), scene.file("a.toml")).unwrap();
    }),
    ("moved away and written anew", |scene, text| {
        fs::rename(scene.file("a.toml"), scene.file("a.toml~")).unwrap();
        fs::write(scene.file("a.toml"), text).unwrap();
    }),
    ("removed and written anew", |scene, text| {
        fs::remove_file(scene.file("a.toml")).unwrap();
        fs::write(scene.file("a.toml"), text).unwrap();
    }),
];

#[test]
fn every_usual_way_to_write_a_manifest_takes_effect() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "0");
    for (number, (way, write)) in WAYS_TO_WRITE_A_MANIFEST.into_iter().enumerate() {
        let env = format!("LABEL = \"{number}\", V{number} = \"\"");
        write(&scene, manifest("a", "", &env, ""));
        let variable = format!("V{number}");
        wait_for_plugin(&host, "note-life", way, |now| {
            let env = now["grants"]["env"].as_array().unwrap();
            env.iter().any(|name| *name == *variable)
        });
        assert_eq!(scene.deliver(&host, "a", way), format!("{number} 1 {way}"));
    }
}

#[test]
fn what_is_half_written_is_not_loaded_and_the_version_before_goes_on() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "0");
    let before = host.plugin("note-life").unwrap();

    let bytes = version(2);
    let pieces: Vec<&[u8]> = bytes.chunks(bytes.len() / 5).collect();
    let mut file = File::create(scene.file("a.wasm")).unwrap();
    for (n, piece) in pieces.iter().enumerate() {
        file.write_all(piece).unwrap();
        if n == 2 {
            // Long at rest, but not whole.
            wait_for_plugin(&host, "note-life", "a problem", |now| {
                now["problem"].is_string()
            });
        }
        std::thread::sleep(Duration::from_millis(50));
        if n + 1 < pieces.len() {
            let now = host.plugin("note-life").unwrap();
            assert_eq!(now["loaded"], before["loaded"], "piece {n}");
            scene.deliver(&host, "a", &format!("piece-{n}"));
        }
    }
    drop(file);
    let now = wait_for_plugin(&host, "note-life", "the whole file", |now| {
        now["loaded"] != before["loaded"]
    });
    assert_ne!(now["sha256"], before["sha256"]);
    assert!(now["problem"].is_null());
    scene.deliver(&host, "a", "whole");
}

#[test]
fn a_new_plugin_that_is_half_written_is_loaded_once_it_is_whole() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.put("b.toml", manifest("b", "name = \"b\"", "", ""));
    let bytes = version(2);
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    let mut file = File::create(scene.file("b.wasm")).unwrap();
    file.write_all(half).unwrap();
    let refused = wait_for("the half is refused", || host.refused_files().pop());
    assert_eq!(refused.0, "plugins/b.wasm");
    assert!(refused.1.contains("not a whole component"), "{refused:?}");
    file.write_all(rest).unwrap();
    wait_for_plugin(&host, "b", "in use", |_| true);
    assert!(host.refused_files().is_empty());
    scene.deliver(&host, "b", "1");
}

#[test]
fn a_plugin_that_is_written_again_as_it_was_is_not_started_again() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "1");
    let before = host.plugin("note-life").unwrap();
    let manifest_text = fs::read_to_string(scene.file("a.toml")).unwrap();

    fs::write(scene.file("a.wasm"), version(1)).unwrap();
    fs::write(scene.file("a.toml"), format!("# read me\n{manifest_text}")).unwrap();
    let touched = File::options()
        .write(true)
        .open(scene.file("a.wasm"))
        .unwrap();
    touched.set_modified(std::time::SystemTime::now()).unwrap();
    // What was written later has been seen: so has this.
    scene.put("b.toml", manifest("b", "name = \"b\"", "", ""));
    fs::copy(components::test_guest("note_life"), scene.file("b.wasm")).unwrap();
    wait_for_plugin(&host, "b", "in use", |_| true);
    std::thread::sleep(Duration::from_millis(500));

    scene.deliver(&host, "a", "2");
    let now = host.plugin("note-life").unwrap();
    assert_eq!(now["loaded"], before["loaded"]);
    assert_eq!(now["instances"]["started"], 1);
    assert!(scene.lines("a", "closed").is_empty());
    // Something that is other does start.
    replace(&host, "note-life", || {
        scene.put("a.wasm", version(3));
    });
    scene.wait_for_closed("a", 1);
}
