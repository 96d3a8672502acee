//! Folders of files: their size, copies of them, the largest in them.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// All files in and under `folder`.
pub(crate) fn all(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(all(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// The bytes on the disk that the files take. A file may go in between.
pub(crate) fn size(folder: &Path) -> Result<u64> {
    let files = all(folder)?;
    let sizes = files.iter().filter_map(|file| file.metadata().ok());
    Ok(sizes.map(|file| file.blocks() * 512).sum())
}

/// Copies `from` to `to`, which is not there yet.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<()> {
    for file in all(from)? {
        let target = to.join(file.strip_prefix(from)?);
        fs::create_dir_all(target.parent().context("a file is in a folder")?)?;
        fs::copy(&file, &target)?;
    }
    Ok(())
}

/// The file with the most data, relative to `folder`, and the length of its
/// data: what a store allocated ahead and did not write holds zeros.
pub(crate) fn largest(folder: &Path) -> Result<(PathBuf, u64)> {
    let mut largest = (PathBuf::new(), 0);
    for file in all(folder)? {
        let bytes = fs::read(&file)?;
        let used = bytes.iter().rposition(|&byte| byte != 0);
        let used = used.map_or(0, |last| last as u64 + 1);
        if used > largest.1 {
            largest = (file.strip_prefix(folder)?.to_owned(), used);
        }
    }
    Ok(largest)
}
