//! `backhaul check`: what it says of a plugin, and its exit code.

mod broken_components;

use std::path::Path;
use std::process::Output;

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
    text
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

/// `check` gives the name the default five seconds, which one of these takes.
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
