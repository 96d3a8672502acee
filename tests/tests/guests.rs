//! No guest without a test: each file in `tests/guests/examples` is built, and
//! named in a suite.

use std::fs;
use std::path::{Path, PathBuf};

fn folder(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The Rust files under `folder`.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn read(file: &Path) -> String {
    fs::read_to_string(file).expect("a text file")
}

#[test]
fn every_guest_is_built_and_has_a_test_that_uses_it() {
    let manifest = read(&folder("guests/Cargo.toml"));
    let suites: String = sources(&folder("tests"))
        .iter()
        .map(|file| read(file))
        .collect();
    let guests = sources(&folder("guests/examples"));
    assert!(!guests.is_empty());
    for guest in guests {
        let name = guest.file_stem().and_then(|name| name.to_str());
        let quoted = format!("\"{}\"", name.expect("a name in UTF-8"));
        assert!(
            manifest.contains(&format!("name = {quoted}\ncrate-type = [\"cdylib\"]")),
            "{quoted} is not built: add it as an [[example]] to tests/guests/Cargo.toml"
        );
        assert!(suites.contains(&quoted), "no test uses the guest {quoted}");
        assert!(
            read(&guest).starts_with("//! "),
            "{quoted} does not say what it does"
        );
    }
}
