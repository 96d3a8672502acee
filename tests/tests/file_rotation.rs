//! The `file` plugin begins new files as its settings say, and no line is lost on the way.

use backhaul_tests::books::book;
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::{components, wait_for};
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROTATING: &str = r#"FILE_MAX_SIZE = "8kB"
FILE_COMPRESSION = "gzip"
FILE_SYNC = "batch""#;

fn workspace(env: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\nfiles = [{{ host = \"data/out\", guest = \"/out\", write = true }}]\n\
         [grants.env]\n{env}\n[limits]\nbatch = 16\n"
    );
    workspace.add_plugin("file", &components::plugin("file"), &manifest);
    workspace
}

fn wait_until_written(host: &Host) {
    wait_for("nothing to be pending", || {
        (book(host, "file").pending == 0).then_some(())
    });
}

/// The files there are, oldest first.
fn files(workspace: &Workspace) -> Vec<PathBuf> {
    let folder = workspace.path().join("data/out");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_none_or(|last| last != "part"))
        .collect();
    files.sort();
    // The one without a time is the newest.
    files.rotate_left(1);
    files
}

fn lines(path: &Path) -> Vec<serde_json::Value> {
    let text = if path.extension().is_some_and(|last| last == "gz") {
        let output = Command::new("gzip").arg("-dc").arg(path).output();
        let output = output.expect("gzip runs");
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stdout).expect("text")
    } else {
        std::fs::read_to_string(path).expect("the file")
    };
    let line = |line| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(line).collect()
}

fn ids(workspace: &Workspace) -> Vec<String> {
    let files = files(workspace);
    let lines = files.iter().flat_map(|path| lines(path));
    lines
        .map(|line| line["id"].as_str().expect("an id").to_owned())
        .collect()
}

fn expected(rounds: usize) -> Vec<String> {
    let round = |n| (0..100).map(move |m| format!("{n}-{m}"));
    (0..rounds).flat_map(round).collect()
}

#[test]
fn the_files_together_hold_every_event_once_and_in_order() {
    let workspace = workspace(ROTATING);
    let host = workspace.serve();
    for n in 0..20 {
        assert_eq!(host.post_batch(&n.to_string(), 100).status, 202);
    }
    wait_until_written(&host);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let files = files(&workspace);
    assert!(files.len() > 20, "{files:?}");
    let is_compressed = |path: &&PathBuf| path.extension().is_some_and(|last| last == "gz");
    assert!(files.iter().filter(is_compressed).count() >= files.len() - 3);
    assert_eq!(ids(&workspace), expected(20));
}

#[test]
fn only_so_many_files_stay() {
    let workspace = workspace(&format!("{ROTATING}\nFILE_KEEP = \"3\""));
    let host = workspace.serve();
    for n in 0..10 {
        assert_eq!(host.post_batch(&n.to_string(), 100).status, 202);
    }
    wait_until_written(&host);
    assert_eq!(files(&workspace).len(), 4);
    let (ids, expected) = (ids(&workspace), expected(10));
    assert!(!ids.is_empty() && expected.ends_with(&ids), "{ids:?}");
}

#[test]
fn a_host_that_is_killed_while_files_are_rotated_loses_nothing() {
    let workspace = workspace(ROTATING);
    for round in 0..5 {
        let host = workspace.serve();
        for n in 0..4 {
            let prefix = (round * 4 + n).to_string();
            assert_eq!(host.post_batch(&prefix, 100).status, 202);
        }
        host.kill();
    }
    let host = workspace.serve();
    wait_until_written(&host);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let (arrived, expected) = (ids(&workspace), expected(20));
    let mut seen = HashSet::new();
    let first: Vec<_> = arrived
        .into_iter()
        .filter(|id| seen.insert(id.clone()))
        .collect();
    assert_eq!(first, expected, "all there, in order but for repeats");
}

#[test]
fn a_setting_that_is_wrong_is_named() {
    for (env, text) in [
        (
            "FILE_MAX_SIZE = \"large\"",
            "FILE_MAX_SIZE is \\\"large\\\"",
        ),
        ("FILE_MAX_SIZE = \"0\"", "FILE_MAX_SIZE is "),
        ("FILE_MAX_AGE = \"0s\"", "FILE_MAX_AGE is "),
        ("FILE_KEEP = \"0\"", "FILE_KEEP is \\\"0\\\""),
        ("FILE_COMPRESSION = \"zstd\"", "expected none or gzip"),
        ("FILE_SYNC = \"always\"", "expected never or batch"),
        ("FILE_PATH = \"/out/..\"", "expected the path of a file"),
    ] {
        let workspace = workspace(env);
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
    }
}
