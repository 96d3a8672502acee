//! A manifest that pins its component with `sha256`.

use crate::scene::{Scene, manifest, replace, version, wait_for_plugin};

fn pin(digest: &str) -> String {
    manifest("a", &format!("sha256 = \"{digest}\""), "", "")
}

#[test]
fn a_pinned_plugin_is_replaced_only_by_what_its_manifest_names() {
    let scene = Scene::with_a();
    let digest_of = |host: &backhaul_tests::host::Host| {
        let plugin = host.plugin("note-life").unwrap();
        plugin["sha256"].as_str().unwrap().to_owned()
    };
    let host = scene.0.serve();
    let first = digest_of(&host);
    replace(&host, "note-life", || scene.put("a.toml", pin(&first)));
    scene.deliver(&host, "a", "1");

    scene.put("a.wasm", version(2));
    let now = wait_for_plugin(&host, "note-life", "a problem", |now| {
        now["problem"].is_string()
    });
    assert_eq!(now["sha256"], first);
    let problem = now["problem"].as_str().unwrap();
    assert!(
        problem.contains(&first) && problem.contains("plugins/a.toml"),
        "{problem}"
    );
    scene.deliver(&host, "a", "2");

    // The digest the problem tells is the one to write.
    let digest = problem.strip_prefix("its SHA-256 is ").unwrap();
    let digest = digest.split(',').next().unwrap();
    let now = replace(&host, "note-life", || {
        scene.put("a.toml", pin(&digest.to_uppercase()));
    });
    assert_eq!(now["sha256"], *digest);
    assert!(now["problem"].is_null());
    scene.deliver(&host, "a", "3");
    let (status, _) = host.stop();
    assert!(status.success());

    // So it is at the start.
    scene.put("a.toml", pin(&first));
    let host = scene.0.serve();
    let refused = host.refused_files();
    assert!(refused[0].1.contains(digest), "{refused:?}");
    assert_eq!(host.get("/health/ready").status, 503);
    scene.put("a.wasm", version(1));
    wait_for_plugin(&host, "note-life", "in use", |now| now["sha256"] == *first);
    scene.deliver(&host, "a", "4");
}
