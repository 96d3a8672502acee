//! Folders as grants.

use std::fmt;
use std::path::PathBuf;

use wasmtime_wasi::{FsPerms, WasiCtxBuilder};

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
    /// Makes sure that the folder can be given.
    pub(in crate::wasm) fn prepare(&self) -> Result<(), LoadError> {
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

    /// Puts the folder into a context for one instance.
    pub(super) fn apply(&self, builder: &mut WasiCtxBuilder) -> Result<(), LoadError> {
        let permissions = if self.write {
            FsPerms::ReadWrite
        } else {
            FsPerms::ReadOnly
        };
        let opened = builder.preopened_dir(&self.host, &self.guest, permissions);
        opened.map(drop).map_err(|why| {
            LoadError::Grant(format!(
                "the folder {} cannot be opened: {why:#}",
                self.host.display()
            ))
        })
    }
}
