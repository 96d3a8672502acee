//! Compiled components, kept from one host to the next.
//!
//! A host keeps them in its data folder, and each test has a data folder of its
//! own: without this, each would compile its plugins anew. So the entries that
//! its plugins need are copied there before it starts, and back after that.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use crate::components;

/// Where all tests of a build find them.
fn shared() -> PathBuf {
    components::target().join("test-cache/backhaul")
}

/// Puts what is known of the components in `plugins` into `data`.
pub(crate) fn lay_out(plugins: &Path, data: &Path) {
    let cache = data.join("cache");
    let known = names(&shared());
    for wasm in names(plugins).iter().filter(|name| name.ends_with(".wasm")) {
        let Ok(wasm) = fs::read(plugins.join(wasm)) else {
            continue;
        };
        let digest = Sha256::digest(&wasm);
        let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        for entry in known.iter().filter(|entry| entry.starts_with(&hash)) {
            // What cannot be laid out is compiled.
            let _ = copy(entry, &shared(), &cache);
        }
    }
}

/// Keeps what a host has compiled.
pub(crate) fn keep(data: &Path) {
    for entry in names(&data.join("cache")) {
        if entry.ends_with(".cwasm") {
            let _ = copy(&entry, &data.join("cache"), &shared());
        }
    }
}

/// Copies an entry that is not there yet, so that nobody sees half of it.
fn copy(name: &str, from: &Path, to: &Path) -> io::Result<()> {
    if to.join(name).exists() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(to)?;
    let unfinished = tempfile::Builder::new().suffix(".tmp").tempfile_in(to)?;
    fs::copy(from.join(name), unfinished.path())?;
    unfinished.persist(to.join(name))?;
    Ok(())
}

/// The names in a folder; none if there is no such folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect()
}
