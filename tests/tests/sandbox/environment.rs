//! Environment variables: those of the manifest, and no others.

use backhaul::plugins::PluginHost;
use backhaul::wasm::{EnvGrant, Grants};
use backhaul::{AsyncBackend, Event};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;

use crate::guest::{Folder, GENEROUS, ask, broken, engine, order, start, within};

#[tokio::test]
async fn a_plugin_sees_the_variables_it_was_granted_and_none_of_the_hosts() {
    assert!(
        std::env::vars().count() > 0,
        "this process has some to be seen"
    );
    let grants = Grants {
        env: vec![EnvGrant::plain("COLOUR", "green")],
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
async fn a_secret_file_becomes_a_variable_without_its_last_line_end_and_is_not_reported() {
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

    let dead = host.plugins()[0].delivery().dead_letters().list();
    assert_eq!(dead[0].error, r#"[("PASSWORD", "***")] []"#);
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

/// What the guest may say of its secret: nothing, wherever it tries.
#[tokio::test]
async fn a_secret_is_hidden_in_every_text_a_guest_gives() {
    let grants = Grants {
        env: vec![EnvGrant::secret("PASSWORD", "hunter2")],
        ..Grants::default()
    };
    let backend = start("tell_secret", grants, within(GENEROUS)).await;
    assert_eq!(ask(&backend, "fail").await, "no entry with ***!");
    let reason = broken(&backend, &[order("panic")]).await;
    assert!(reason.contains("in `publish`, it trapped"), "{reason}");
    assert!(!reason.contains("hunter"), "{reason}");
    backend.close(GENEROUS).await.unwrap();
}

#[test]
fn a_secret_is_in_no_line_of_the_log_not_even_cut_or_when_closing_fails() {
    let workspace = Workspace::new();
    std::fs::write(workspace.path().join("secret"), "hunter2 \"and more\"\n").unwrap();
    workspace.add_plugin(
        "teller",
        &components::test_guest("tell_secret"),
        "[grants.env]\nPASSWORD = { file = \"secret\" }",
    );
    let host = workspace.serve();
    for (id, order, then) in [("1", "print", "quoted"), ("2", "fail", "no entry")] {
        assert_eq!(host.post_event(id, "order:tell", order).status, 202);
        host.wait_for_log(then);
    }
    let (status, mut log) = host.stop();
    assert!(status.success());
    let host = workspace.serve();
    assert_eq!(host.post_event("3", "order:tell", "panic").status, 202);
    host.wait_for_log("with ***!");
    log += &host.stop().1;
    for shown in [
        "as it is: ***.",
        "quoted: \"***\".",
        "not ended: ***",
        "no entry with ***!",
        "still in use: ***!",
        "cut cut ***",
        "with ***!",
    ] {
        assert!(log.contains(shown), "{shown:?} not in {log}");
    }
    assert!(
        !log.contains("hunter") && !log.contains("and more"),
        "{log}"
    );
}

#[test]
fn a_variable_of_the_host_is_seen_by_the_plugin_it_is_granted_to_and_shown_to_nobody() {
    let workspace = Workspace::new();
    workspace.add_plugin(
        "reader",
        &components::test_guest("read_env"),
        "[grants.env]\nPATH_OF_HOST = { env = \"PATH\" }",
    );
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    host.wait_for_log(r#"(\"PATH_OF_HOST\", \"***\")"#);
    let (_, log) = host.stop();
    assert!(!log.contains(&std::env::var("PATH").unwrap()), "{log}");
}
