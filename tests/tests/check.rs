//! `backhaul check`: what it says of a plugin, and its exit code.

mod broken_components;

use std::path::Path;
use std::process::{Command, Output};

use backhaul_tests::components;
use backhaul_tests::host::Workspace;

fn check(workspace: &Workspace, file: &Path) -> (Output, String) {
    let output = workspace.run(&["check", file.to_str().expect("a path in UTF-8")]);
    let text = String::from_utf8(output.stdout.clone()).expect("text");
    (output, text)
}

/// The lines below `heading`, up to the next one.
fn section<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    let lines = text.lines().skip_while(|line| line.trim() != heading);
    let indented = lines.skip(1).take_while(|line| line.starts_with("    "));
    indented.map(str::trim).collect()
}

fn assert_accepted(name: &str, file: &Path, world: &str) -> String {
    let workspace = Workspace::new();
    let (output, text) = check(&workspace, file);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let size = std::fs::metadata(file).unwrap().len();
    let first = format!("{}: a backend, {size} bytes", file.display());
    assert_eq!(text.lines().next(), Some(first.as_str()));
    assert!(text.contains(&format!("  name     {name}\n")), "{text}");
    assert!(text.contains(&format!("  world    {world}\n")), "{text}");
    let sha256 = format!("  sha256   {}\n", sha256sum(file));
    assert!(text.contains(&sha256), "{text}");
    text
}

/// As users would find it out.
fn sha256sum(file: &Path) -> String {
    let output = Command::new("sha256sum").arg(file).output().unwrap();
    let line = String::from_utf8(output.stdout).unwrap();
    line.split_whitespace().next().unwrap().to_owned()
}

#[test]
fn how_long_compiling_took_is_shown_and_that_it_was_done_before() {
    let workspace = Workspace::new();
    let file = components::test_guest("record_async");
    let check = || {
        let mut command = workspace.command(&["check", file.to_str().unwrap()]);
        command.env("XDG_CACHE_HOME", workspace.path().join("cache"));
        String::from_utf8(command.output().unwrap().stdout).unwrap()
    };
    let (first, second) = (check(), check());
    assert!(first.contains("  code     compiled in "), "{first}");
    assert!(
        second.contains("  code     was compiled before\n"),
        "{second}"
    );
}

#[test]
fn the_sha256_shown_is_the_one_a_manifest_pins() {
    let workspace = Workspace::new();
    let plugin = components::test_guest("record_async");
    let file = workspace.path().join("plugins/pinned.wasm");
    let right = sha256sum(&plugin);
    workspace.add_plugin("pinned", &plugin, &format!("sha256 = \"{right}\""));
    let (output, text) = check(&workspace, &file);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let wrong = "0".repeat(64);
    workspace.add_plugin("pinned", &plugin, &format!("sha256 = \"{wrong}\""));
    assert_refused(&workspace, &file, &[&right, &wrong, "pinned.toml"]);
}

#[test]
fn a_folder_that_cannot_be_granted_is_a_reason_to_refuse_and_none_is_made() {
    let workspace = Workspace::new();
    let grant = |host: &str| {
        format!("[grants]\nfiles = [{{ host = \"{host}\", guest = \"/out\", write = true }}]")
    };
    let plugin = components::test_guest("record_async");
    let file = workspace.path().join("plugins/granted.wasm");
    workspace.add_plugin("granted", &plugin, &grant("plugins/granted.wasm"));
    assert_refused(&workspace, &file, &["is granted as a folder, and is none"]);
    workspace.add_plugin("granted", &plugin, &grant("out"));
    let (output, text) = check(&workspace, &file);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(!workspace.path().join("out").exists());
}

#[test]
fn a_file_larger_than_any_component_is_not_read() {
    let workspace = Workspace::new();
    let file = std::fs::File::create(workspace.path().join("huge.wasm")).unwrap();
    file.set_len(129 << 20).unwrap();
    let output = workspace.run(&["check", "huge.wasm"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(
        error.contains("135266304 bytes; the largest component"),
        "{error}"
    );
}

#[test]
fn secrets_are_not_shown() {
    let workspace = Workspace::new();
    let manifest = "[grants.env]\nPASSWORD = \"hunter2hunter2\"";
    workspace.add_plugin("a", &components::test_guest("read_env"), manifest);
    let (output, text) = check(&workspace, &workspace.path().join("plugins/a.wasm"));
    assert_eq!(output.status.code(), Some(0), "{text}");
    let log = String::from_utf8_lossy(&output.stderr);
    assert!(
        !text.contains("hunter2") && !log.contains("hunter2"),
        "{text}{log}"
    );
}

#[test]
fn a_plugin_that_writes_files_is_shown_with_its_name_world_and_what_it_could_ask_for() {
    let file = components::plugin("file");
    let text = assert_accepted("file", &file, "backend-blocking");
    let imports = section(&text, "imports");
    assert!(
        imports
            .iter()
            .any(|import| import.starts_with("wasi:filesystem/types@0.2")),
        "{text}"
    );
    let manifest = file.with_extension("toml");
    let heading = format!("could ask for, in {} under [grants]", manifest.display());
    let grants = section(&text, &heading);
    for grant in [
        "files = [{ host = \"DIR\", guest = \"/DIR\", write = true }]",
        "env = { NAME = \"VALUE\" }",
    ] {
        assert!(grants.iter().any(|line| line.starts_with(grant)), "{text}");
    }
    assert!(
        !text.contains("tcp = "),
        "it cannot connect to anything: {text}"
    );
}

#[test]
fn a_plugin_that_connects_is_shown_the_line_that_would_let_it() {
    let text = assert_accepted(
        "redis-streams",
        &components::plugin("redis-streams"),
        "backend-blocking",
    );
    assert!(text.contains("tcp = [\"HOST:PORT\"]"), "{text}");
    assert!(text.contains("env = { NAME = \"VALUE\" }"), "{text}");
}

#[test]
fn an_asynchronous_plugin_is_shown_with_its_world() {
    assert_accepted(
        "record-async",
        &components::test_guest("record_async"),
        "backend",
    );
}

#[test]
fn every_file_that_is_no_backend_is_refused_with_its_reason() {
    let workspace = Workspace::new();
    for broken in broken_components::all() {
        let file = workspace.path().join(format!("{}.wasm", broken.name));
        std::fs::write(&file, &broken.bytes).unwrap();
        assert_refused(&workspace, &file, broken.reason);
    }
}

/// `check` gives the name the default processor time, which one of these takes.
#[test]
fn every_backend_without_a_valid_name_is_refused_with_its_reason() {
    let workspace = Workspace::new();
    for (guest, reason) in broken_components::NAMELESS {
        assert_refused(&workspace, &components::test_guest(guest), reason);
    }
}

fn assert_refused(workspace: &Workspace, file: &Path, reason: &[&str]) {
    let (output, text) = check(workspace, file);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let shown = format!("{}: refused: ", file.display());
    let said = text.strip_prefix(&shown);
    let said = said.unwrap_or_else(|| panic!("{text} does not begin with {shown}"));
    for word in reason {
        assert!(
            said.contains(word),
            "{}: {word:?} not in: {said}",
            file.display()
        );
    }
    assert!(!text.contains('\x1b'), "{text:?}");
}

#[test]
fn a_file_that_is_missing_is_an_error_that_names_it() {
    let workspace = Workspace::new();
    let output = workspace.run(&["check", "nowhere.wasm"]);
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert!(error.contains("nowhere.wasm cannot be read"), "{error}");
    assert!(output.stdout.is_empty());
}
