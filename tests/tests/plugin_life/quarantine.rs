//! A plugin that keeps breaking is set aside: its events wait, and the others
//! do not notice.

use std::fs;
use std::net::TcpListener;
use std::time::{Duration, Instant};

use backhaul_tests::host::Host;
use backhaul_tests::{components, wait_for};
use serde_json::Value;

use crate::scene::{Scene, logged, manifest, version_of, wait_for_plugin, wait_long_for};

/// Plugins that trap until there is a file `calm` in their folder. Each takes
/// the events `NAME:...`.
fn add_trapping(scene: &Scene, name: &str) {
    let top = format!("name = \"{name}\"\nevents = [\"{name}:*\"]");
    scene.put(&format!("{name}.toml"), manifest(name, &top, "", ""));
    let guest = components::test_guest("trap_until_calm");
    fs::copy(guest, scene.file(&format!("{name}.wasm"))).unwrap();
}

fn calm(scene: &Scene, name: &str) {
    fs::write(scene.0.path().join("out").join(name).join("calm"), "").unwrap();
}

fn post(host: &Host, plugin: &str, ids: std::ops::Range<usize>) {
    for id in ids {
        let answer = host.post_event(&format!("{plugin}-{id}"), &format!("{plugin}:x"), "1");
        assert_eq!(answer.status, 202, "{answer:?}");
    }
}

fn wait_for_quarantine(host: &Host, name: &str) -> Value {
    wait_long_for(&format!("{name} to be set aside"), || {
        host.plugin(name)
            .filter(|now| now["state"] == "quarantined")
    })
}

fn assert_all_arrived(scene: &Scene, host: &Host, name: &str, count: usize) {
    let expected: Vec<String> = (0..count).map(|n| format!("{name}-{n}")).collect();
    let ids = wait_long_for(&format!("the events of {name}"), || {
        Some(scene.ids(name)).filter(|ids| ids.len() >= count)
    });
    assert_eq!(ids, expected);
    let now = wait_for_plugin(host, name, "all delivered", |now| {
        now["delivery"]["pending"] == 0
    });
    assert_eq!(now["state"], "ready");
    assert!(now["quarantine"].is_null());
    assert_eq!(now["delivery"]["delivered"], count);
    assert_eq!(now["delivery"]["dead"], 0);
}

/// They break side by side, so that the test waits for all of them at once.
#[test]
fn a_plugin_that_keeps_breaking_is_set_aside_until_it_is_released_or_replaced() {
    let scene = Scene::with_a();
    let names = ["released", "rewritten", "replaced", "left"];
    for name in names {
        add_trapping(&scene, name);
    }
    let host = scene.0.serve_with(&["--drain", "60s"]);
    for name in names {
        post(&host, name, 0..3);
    }
    for name in names {
        let now = wait_for_quarantine(&host, name);
        let reason = now["quarantine"]["reason"].as_str().unwrap();
        assert!(reason.contains("it trapped"), "{reason}");
        assert!(now["quarantine"]["since"].is_string());
        assert_eq!(now["instances"]["broken_in_a_row"], 10);
        assert_eq!(now["instances"]["broken"], 10);
        assert_eq!(now["delivery"]["pending"], 3);
        // What comes now is taken, and waits too.
        post(&host, name, 3..5);
        let now = host.plugin(name).unwrap();
        assert_eq!(now["delivery"]["pending"], 5);
        let line = format!("release {name}`");
        host.wait_for_log(&line);
        assert_eq!(logged(&host, &line), 1);
    }
    // It is not called any more, and the others go on.
    let answer = host.post_event("1", "after:signup", "1");
    assert_eq!(answer.status, 202, "{answer:?}");
    scene.wait_for_events("a", 4 * 5 + 1);
    let ready = host.get("/health/ready");
    assert_eq!(ready.status, 200, "the others take events: {ready:?}");
    assert_eq!(ready.body["backends"]["left"], "quarantined", "{ready:?}");
    assert_eq!(host.plugin("left").unwrap()["instances"]["broken"], 10);

    // Written again as it was, it would break again: nothing changes.
    let text = fs::read(scene.file("left.toml")).unwrap();
    scene.put("left.toml", text);

    // Released, it tries at once, and breaks again as long as nothing else has changed.
    assert_eq!(host.release("nobody").status, 404);
    let answer = host.release("note-life");
    assert_eq!(answer.body, serde_json::json!({ "released": false }));
    let answer = host.release("released");
    assert_eq!(answer.body, serde_json::json!({ "released": true }));
    wait_for_plugin(&host, "released", "another try", |now| {
        now["state"] == "ready" && now["instances"]["broken"].as_u64() > Some(10)
    });
    calm(&scene, "released");
    assert_all_arrived(&scene, &host, "released", 5);

    calm(&scene, "rewritten");
    let top = "name = \"rewritten\"\nevents = [\"rewritten:*\"]";
    let text = manifest("rewritten", top, "", "batch = 10");
    scene.put("rewritten.toml", text);
    assert_all_arrived(&scene, &host, "rewritten", 5);

    calm(&scene, "replaced");
    scene.put("replaced.wasm", version_of("trap_until_calm", 2));
    assert_all_arrived(&scene, &host, "replaced", 5);

    // At the end, what waits behind one that is set aside is in the journal; it
    // is not waited for.
    assert_eq!(host.plugin("left").unwrap()["state"], "quarantined");
    let stopping = Instant::now();
    let (status, log) = host.stop();
    assert!(stopping.elapsed() < Duration::from_secs(50), "{log}");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("kept=5"), "{log}");
    assert_eq!(log.matches("set aside (quarantined)").count(), 4, "{log}");
}

#[test]
fn a_plugin_whose_server_never_answers_is_not_set_aside() {
    let scene = Scene::with_a();
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let manifest = format!(
        "events = [\"dead:*\"]\n[grants]\ntcp = [\"{address}\"]\n[limits]\ntimeout = \"100ms\"\n"
    );
    scene.put("dead.toml", manifest);
    let guest = components::test_guest("use_dead_server");
    fs::copy(guest, scene.file("dead.wasm")).unwrap();
    let host = scene.0.serve_with(&["--drain", "1s"]);
    let order = format!("read {address}");
    let headers = [
        ("content-type", "text/plain"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/tests"),
        ("ce-type", "dead:server"),
    ];
    assert_eq!(host.post(&headers, order).status, 202);
    let now = wait_long_for("more calls than would be too many", || {
        let now = host.plugin("use-dead-server")?;
        assert_eq!(now["state"], "ready", "{now}");
        (now["instances"]["broken"].as_u64() > Some(11)).then_some(now)
    });
    assert_eq!(now["instances"]["broken_in_a_row"], 0);
    assert_eq!(now["delivery"]["pending"], 1);
    assert_eq!(logged(&host, "set aside"), 0);
    let error = now["instances"]["last_error"].as_str().unwrap();
    assert!(error.contains("was not done after"), "{error}");
    wait_for("the other plugin has the event it takes", || {
        (scene.ids("a") == ["1"]).then_some(())
    });
}
