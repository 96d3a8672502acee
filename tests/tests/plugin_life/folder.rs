//! The plugins folder itself goes away and comes back.

use std::fs;

use crate::scene::{Scene, logged, replace, version};

#[test]
fn plugins_stay_while_their_folder_cannot_be_read() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "1");
    let before = host.plugin("note-life").unwrap();
    let folder = scene.0.path().join("plugins");
    let away = scene.0.path().join("plugins-away");

    fs::rename(&folder, &away).unwrap();
    host.wait_for_log("the plugins folder cannot be read; the plugins stay as they are");
    scene.deliver(&host, "a", "2");
    // There is something, but it is no folder.
    fs::write(&folder, "").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(2500));
    scene.deliver(&host, "a", "3");
    assert_eq!(logged(&host, "the plugins folder cannot be read"), 1);

    fs::remove_file(&folder).unwrap();
    fs::rename(&away, &folder).unwrap();
    host.wait_for_log("the plugins folder can be read again");
    let now = host.plugin("note-life").unwrap();
    assert_eq!(now["loaded"], before["loaded"]);
    assert_eq!(now["instances"]["started"], 1);
    replace(&host, "note-life", || scene.put("a.wasm", version(2)));
    scene.deliver(&host, "a", "4");
    scene.wait_for_closed("a", 1);
}

#[test]
fn a_folder_that_is_removed_and_made_anew_is_followed() {
    let scene = Scene::with_a();
    let host = scene.0.serve();
    scene.deliver(&host, "a", "1");
    let folder = scene.0.path().join("plugins");
    let manifest = fs::read(scene.file("a.toml")).unwrap();
    let away = scene.0.path().join("plugins-away");
    fs::rename(&folder, &away).unwrap();
    // Another folder in its place, before anyone looks or after.
    fs::create_dir(&folder).unwrap();
    scene.put("a.toml", manifest);
    replace(&host, "note-life", || scene.put("a.wasm", version(2)));
    scene.deliver(&host, "a", "2");
    replace(&host, "note-life", || scene.put("a.wasm", version(3)));
    scene.deliver(&host, "a", "3");
    assert_eq!(scene.ids("a"), ["1", "2", "3"]);
}
