//! Environment variables: those of the manifest, and no others.

use backhaul::plugins::PluginHost;
use backhaul::wasm::Grants;
use backhaul::{AsyncBackend, Event};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;

use crate::guest::{Folder, GENEROUS, ask, engine, start, within};

#[tokio::test]
async fn a_plugin_sees_the_variables_it_was_granted_and_none_of_the_hosts() {
    assert!(
        std::env::vars().count() > 0,
        "this process has some to be seen"
    );
    let grants = Grants {
        env: vec![("COLOUR".into(), "green".into())],
        ..Grants::default()
    };
    let backend = start("read_env", grants, within(GENEROUS)).await;
    assert_eq!(ask(&backend, "").await, r#"[("COLOUR", "green")] []"#);
}

#[tokio::test]
async fn without_grants_a_plugin_sees_no_variable() {
    let backend = start("read_env", Grants::default(), within(GENEROUS)).await;
    assert_eq!(ask(&backend, "").await, "[] []");
}

#[tokio::test]
async fn a_secret_file_becomes_a_variable_without_its_last_line_end() {
    let folder = Folder::new();
    let secret = folder.path().join("secret");
    std::fs::write(&secret, "hunter2\n").unwrap();
    let manifest = format!(
        "[grants.env]\nPASSWORD = {{ file = \"{}\" }}",
        secret.display()
    );
    folder.add("read_env", &manifest);
    let host = PluginHost::load(&folder.path(), &engine()).await.unwrap();

    let event = Event::new("after:signup", "").unwrap();
    host.publish(&[event]).await.unwrap();
    host.close(GENEROUS).await.unwrap();

    let dead = host.plugins()[0].delivery.dead_letters().list();
    assert_eq!(dead[0].error, r#"[("PASSWORD", "hunter2")] []"#);
}

#[test]
fn the_log_names_granted_variables_and_never_shows_their_values() {
    let workspace = Workspace::new();
    std::fs::write(workspace.path().join("secret"), "hunter2\n").unwrap();
    workspace.add_plugin(
        "print_output",
        &components::test_guest("print_output"),
        "[grants.env]\nPASSWORD = { file = \"secret\" }\nURL = \"redis://me:hunter3@host\"",
    );
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    let (status, log) = host.stop();
    assert!(status.success());
    assert!(log.contains("sees the variables PASSWORD, URL"), "{log}");
    assert!(!log.contains("hunter"), "{log}");
}
