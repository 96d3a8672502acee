//! Plugins without a name that can be used, and with a name that is taken.

use backhaul::AsyncBackend;
use backhaul_tests::components;
use backhaul_tests::host::Workspace;

use crate::broken_components::NAMELESS;
use crate::{assert_says, load, plugins, refusal};

#[tokio::test]
async fn a_plugin_without_a_valid_name_is_refused_and_its_name_is_shown_harmlessly() {
    for (guest, words) in NAMELESS {
        let wasm = std::fs::read(components::test_guest(guest)).unwrap();
        let reason = refusal(guest, &wasm, "[limits]\nstart_timeout = \"500ms\"").await;
        assert_says(&reason, words, guest);
    }
}

#[tokio::test]
async fn of_two_plugins_with_one_name_the_second_is_refused_with_the_way_out() {
    let workspace = Workspace::new();
    let guest = components::test_guest("record_async");
    workspace.add_plugin("a", &guest, "");
    workspace.add_plugin("b", &guest, "");
    let host = load(&workspace).await;
    assert_eq!(host.plugins().len(), 1);
    let refused = host.refused();
    assert_eq!(refused[0].file, plugins(&workspace).join("b.wasm"));
    let reason = refused[0].reason.to_string();
    let folder = plugins(&workspace);
    let taken = format!(
        "its name `record-async` is taken by {}",
        folder.join("a.wasm").display()
    );
    let way_out = format!(
        "write `name = \"...\"` at the top of {}",
        folder.join("b.toml").display()
    );
    assert_says(&reason, &[&taken, &way_out], "b");
}

#[tokio::test]
async fn a_name_in_the_manifest_lets_both_load_and_both_take_events() {
    let workspace = Workspace::new();
    let out = |name: &str| workspace.path().join(name);
    let guest = components::test_guest("record_async");
    for name in ["first", "second"] {
        let manifest = format!(
            "name = \"{name}\"\n[grants]\nfiles = [{{ host = \"{}\", guest = \"/out\", write = true }}]",
            out(name).display()
        );
        workspace.add_plugin(name, &guest, &manifest);
    }
    let host = load(&workspace).await;
    assert!(host.refused().is_empty(), "{:?}", host.refused());
    let plugins = host.plugins();
    let names: Vec<&str> = plugins.iter().map(|plugin| plugin.name()).collect();
    assert_eq!(names, ["first", "second"]);

    let event = backhaul::Event::new("after:signup", "1").unwrap();
    host.publish(std::slice::from_ref(&event)).await.unwrap();
    host.close(backhaul_tests::PATIENCE).await.unwrap();
    for name in ["first", "second"] {
        let published = std::fs::read_to_string(out(name).join("published")).unwrap();
        assert_eq!(published, format!("{}\n", event.id()));
    }
}
