//! Why a plugin was not loaded.

use std::path::PathBuf;

use super::manifest::ManifestError;
use crate::journal::JournalError;
use crate::wasm::LoadError;

/// Why a plugin was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(#[source] std::io::Error),

    /// The file changed while it was read.
    #[error("the file changed while it was read; it is loaded when it no longer does")]
    Changing,

    /// Its manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),

    /// Its manifest pins another file.
    #[error(
        "its SHA-256 is {actual}, but `sha256` in {} says {pinned}: it is another file than the \
         one the manifest was written for; if it is meant to be, correct the manifest",
        manifest.display()
    )]
    WrongHash {
        /// The manifest with the pin.
        manifest: PathBuf,
        /// What it says.
        pinned: String,
        /// What the file has.
        actual: String,
    },

    /// Its component is not a backend, or does not start.
    #[error(transparent)]
    Load(#[from] LoadError),

    /// It would be granted to write where the host keeps what it trusts.
    #[error(
        "{}: the plugin may not write to {}, which holds or lies in {}: it could change what the host runs",
        manifest.display(), folder.display(), own.display()
    )]
    OwnFolder {
        /// The manifest with the grant.
        manifest: PathBuf,
        /// The folder it grants.
        folder: PathBuf,
        /// The plugins folder, or where compiled code is kept.
        own: PathBuf,
    },

    /// It would be granted to read the events of every plugin.
    #[error(
        "{}: the folder {} is not granted: it holds or lies in {}, the journal, where the events \
         of every plugin are; grant another folder, or keep the journal elsewhere (--data)",
        manifest.display(), folder.display(), journal.display()
    )]
    JournalFolder {
        /// The manifest with the grant.
        manifest: PathBuf,
        /// The folder it grants.
        folder: PathBuf,
        /// The journal's folder.
        journal: PathBuf,
    },

    /// A plugin could change where the path of a granted folder leads.
    #[error(
        "{}: the folder {} is not granted: its path leads through {}, which {} lets a plugin write \
         to, and that plugin could put a link in its place; grant folders that lie side by side",
        manifest.display(), folder.display(), outer.display(), writer.display()
    )]
    NestedFolder {
        /// The manifest with the grant.
        manifest: PathBuf,
        /// The folder it grants.
        folder: PathBuf,
        /// The folder that is on the way to it.
        outer: PathBuf,
        /// The manifest that lets a plugin write to that.
        writer: PathBuf,
    },

    /// Its place in the journal cannot be made.
    #[error(transparent)]
    Journal(#[from] JournalError),

    /// Another plugin has the name.
    #[error(
        "its name `{name}` is taken by {}; give this one another: write `name = \"...\"` at the top of {}",
        other.display(), manifest.display()
    )]
    NameTaken {
        /// The name both have.
        name: String,
        /// The file of the plugin that has it.
        other: PathBuf,
        /// The manifest to write another name in.
        manifest: PathBuf,
    },
}
