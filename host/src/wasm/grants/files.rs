//! Folders as grants.

use std::fmt;
use std::fs::File;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};
use wasmtime_wasi::FsPerms;
use wasmtime_wasi::filesystem::{Dir, OpenMode};

use crate::wasm::LoadError;

/// A folder a plugin sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileGrant {
    /// The folder on the host.
    pub host: PathBuf,
    /// The path the guest sees it at.
    pub guest: String,
    /// Whether the guest may change what is in it. A writable folder is made
    /// if it is missing.
    pub write: bool,
}

impl FileGrant {
    /// Opens the folder, for all instances of a plugin: what its path leads to
    /// later, a plugin may have changed.
    pub(in crate::wasm) fn open(&self) -> Result<OpenFolder, LoadError> {
        self.prepare()?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&self.host, flags, Mode::empty()).map_err(|why| {
            LoadError::Grant(format!(
                "the folder {} cannot be opened: {why}",
                self.host.display()
            ))
        })?;
        let (permissions, mode) = if self.write {
            (FsPerms::ReadWrite, OpenMode::READ | OpenMode::WRITE)
        } else {
            (FsPerms::ReadOnly, OpenMode::READ)
        };
        Ok(OpenFolder {
            grant: self.clone(),
            dir: Dir::new(File::from(opened), permissions, mode, false),
        })
    }

    /// Makes sure that the folder can be given.
    fn prepare(&self) -> Result<(), LoadError> {
        let error = |doing: &str, why: &dyn fmt::Display| {
            LoadError::Grant(format!(
                "the folder {} cannot be {doing}: {why}",
                self.host.display()
            ))
        };
        if self.host.is_dir() {
            return Ok(());
        }
        if self.host.exists() {
            return Err(error("granted", &"it is not a folder"));
        }
        if !self.write {
            return Err(error("granted", &"it does not exist"));
        }
        std::fs::create_dir_all(&self.host).map_err(|why| error("made", &why))?;
        tracing::info!(folder = %self.host.display(), "made a folder that a plugin may write to");
        Ok(())
    }
}

/// A granted folder, open.
#[derive(Clone)]
pub(in crate::wasm) struct OpenFolder {
    pub(in crate::wasm) grant: FileGrant,
    pub(in crate::wasm) dir: Dir,
}
