//! Manifests that are wrong: the plugin is refused with file, line and key.

use backhaul::plugins::{PluginHost, PluginHostOptions};
use backhaul::{Journal, JournalOptions};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;

use crate::{add_good, assert_says, engine, refusal};

/// A manifest, the line it is wrong in, and what is said of it.
const WRONG: [(&str, &str, &[&str]); 15] = [
    (
        "events = [\"*\"]\nevnts = [\"*\"]",
        "line 2",
        &["unknown field `evnts`", "`events`"],
    ),
    (
        "[grants]\n\nsmtp = [\"a:1\"]",
        "line 3",
        &["unknown field `smtp`", "`tcp`"],
    ),
    (
        "[limits]\nmemory = \"64 parsecs\"",
        "line 2",
        &["`memory`: is not a size", "64MiB"],
    ),
    (
        "[limits]\nmemory = \"8TiB\"",
        "line 2",
        &["`memory`: is not a size from 1MiB to 4GiB"],
    ),
    (
        "[limits]\ntimeout = \"soon\"",
        "line 2",
        &["`timeout`: is not a time", "500ms"],
    ),
    (
        "[limits]\nstart_timeout = 10",
        "line 2",
        &["`start_timeout`: is not a time from 1ms to 1h"],
    ),
    (
        "[limits]\ncpu = \"1ms\"",
        "line 2",
        &["`cpu`: is not a time from 10ms to 1h"],
    ),
    (
        "[limits]\nlog = 0",
        "line 2",
        &["`log`: is not a whole number from 1 to 10000"],
    ),
    (
        "events = [\"*\"]\nsha256 = \"0123\"",
        "line 2",
        &["`sha256`: is not 64 hexadecimal digits"],
    ),
    (
        "[grants.env]\nTOKEN = { env = \"BACKHAUL_TEST_NOT_SET\" }",
        "line 2",
        &["`TOKEN`: the host's environment has no variable \"BACKHAUL_TEST_NOT_SET\""],
    ),
    (
        "[limits]\ninstances = 0",
        "line 2",
        &["`instances`: is not a whole number from 1 to 64"],
    ),
    (
        "[grants]\ntcp = [\"redis.internal\"]",
        "line 2",
        &["`tcp`", "is not HOST:PORT"],
    ),
    (
        "[grants.env]\nUSER = \"x\"\nPASSWORD = { file = \"/nonexistent/secret\" }",
        "line 3",
        &["`PASSWORD`: the file /nonexistent/secret cannot be read"],
    ),
    (
        "name = \"Not A Name\"",
        "line 1",
        &["`name`: a name has 1 to 64"],
    ),
    ("events = [", "line 1", &[]),
];

fn guest() -> Vec<u8> {
    std::fs::read(components::test_guest("record_async")).expect("the guest")
}

#[tokio::test]
async fn a_wrong_manifest_is_refused_with_file_line_and_key() {
    for (manifest, line, words) in WRONG {
        let reason = refusal("wrong", &guest(), manifest).await;
        assert_says(&reason, &["plugins/wrong.toml, ", line], manifest);
        assert_says(&reason, words, manifest);
    }
}

#[tokio::test]
async fn a_folder_to_read_that_is_missing_is_refused_and_not_made() {
    let files = "[grants]\nfiles = [{ host = \"/nonexistent/folder\", guest = \"/in\" }]";
    let reason = refusal("reader", &guest(), files).await;
    let words = [
        "plugins/reader.toml, line 2: `host`: /nonexistent/folder",
        "does not exist",
    ];
    assert_says(&reason, &words, "reader");
}

#[tokio::test]
async fn a_plugin_may_not_write_where_the_host_keeps_what_it_runs() {
    let workspace = Workspace::new();
    let folder = workspace.path().to_owned();
    std::fs::create_dir(folder.join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(folder.join("plugins"), folder.join("link")).unwrap();
    let hosts = ["plugins", "", "plugins/sub", "link", "elsewhere/../plugins"];
    for host in hosts {
        let host = folder.join(host).display().to_string();
        let grant = format!("files = [{{ host = \"{host}\", guest = \"/d\", write = true }}]");
        workspace.add_bytes("writer", &guest(), &format!("[grants]\n{grant}"));
        let loaded = crate::load(&workspace).await;
        let reason = loaded.refused()[0].reason.to_string();
        assert_says(
            &reason,
            &[
                "writer.toml",
                "may not write to",
                "could change what the host runs",
            ],
            &host,
        );
    }
    let grant = format!(
        "files = [{{ host = \"{}\", guest = \"/d\", write = true }}]",
        folder.join("elsewhere").display()
    );
    workspace.add_bytes("writer", &guest(), &format!("[grants]\n{grant}"));
    assert!(crate::load(&workspace).await.refused().is_empty());
}

#[tokio::test]
async fn a_manifest_that_is_not_text_is_refused() {
    let workspace = Workspace::new();
    add_good(&workspace);
    workspace.add_bytes("binary", &guest(), "");
    let manifest = workspace.path().join("plugins/binary.toml");
    std::fs::write(&manifest, b"\xff\xfe\x00").unwrap();
    let host = crate::load(&workspace).await;
    let reason = host.refused()[0].reason.to_string();
    assert_says(
        &reason,
        &["plugins/binary.toml", "cannot be read"],
        "binary",
    );
}

#[tokio::test]
async fn what_is_wrong_about_a_secret_does_not_show_it() {
    let manifest = "[grants.env]\nPASSWORD = [\"hunter2\"]";
    let reason = refusal("secret", &guest(), manifest).await;
    assert_says(
        &reason,
        &["plugins/secret.toml, line 2", "PASSWORD"],
        "secret",
    );
    assert!(!reason.contains("hunter2"), "{reason}");
}

#[test]
fn the_host_starts_and_names_the_wrong_line() {
    let workspace = Workspace::new();
    add_good(&workspace);
    for (n, (manifest, _, _)) in WRONG.iter().enumerate() {
        workspace.add_bytes(&format!("wrong-{n}"), &guest(), manifest);
    }
    let host = workspace.serve();
    let log = host.log();
    for (n, (_, line, words)) in WRONG.iter().enumerate() {
        let shown =
            format!("  NOT LOADED plugins/wrong-{n}.wasm: plugins/wrong-{n}.toml, {line}: ");
        let reason = log.lines().find_map(|line| line.strip_prefix(&shown));
        let reason = reason.unwrap_or_else(|| panic!("no line begins with {shown:?}"));
        assert_says(reason, words, &shown);
    }
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    let (status, _) = host.stop();
    assert!(status.success());
}

#[tokio::test]
async fn a_plugin_may_not_see_the_journal() {
    let workspace = Workspace::new();
    let folder = workspace.path().to_owned();
    let journal = Journal::open(&folder.join("data/journal"), JournalOptions::default()).unwrap();
    std::fs::create_dir(folder.join("data/out")).unwrap();
    std::os::unix::fs::symlink(folder.join("data"), folder.join("link")).unwrap();
    let load = async |host: &str| {
        let host = folder.join(host).display().to_string();
        let grant = format!("[grants]\nfiles = [{{ host = \"{host}\", guest = \"/d\" }}]");
        workspace.add_bytes("reader", &guest(), &grant);
        let options = PluginHostOptions {
            journal: Some(journal.clone()),
            ..PluginHostOptions::default()
        };
        let loaded = PluginHost::with_options(&folder.join("plugins"), &engine(), options);
        loaded.start().await.unwrap();
        loaded
            .refused()
            .pop()
            .map(|refused| refused.reason.to_string())
    };
    for host in [
        "data/journal",
        "data",
        "data/journal/events",
        "link/journal",
    ] {
        let reason = load(host).await.unwrap_or_default();
        assert_says(
            &reason,
            &["reader.toml", "the journal", "not granted"],
            host,
        );
    }
    assert_eq!(load("data/out").await, None);
}
