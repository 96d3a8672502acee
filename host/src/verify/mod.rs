//! The conformance suite: whether a backend is good, by what arrives in its queue.
//!
//! `backhaul verify` runs it. A backend is loaded as a host loads it (`target`), with
//! the real server its manifest names, and every case (`cases/`, listed by `suite`)
//! publishes events of its own (`events`), reads what arrived past the plugin
//! (`readers/`, all the while: `arrivals`), and judges one by the other (`judge`).
//! What can go wrong between the two happens in a proxy (`wire`); the server itself is
//! not touched. What a backend supports stands in its `profile/`; what came of it all
//! is a `report`.
//!
//! Uses `plugins` for the manifest, `wasm` and `delivery`; nothing uses it but the
//! program.

mod arrivals;
mod cases;
mod events;
mod judge;
mod profile;
mod readers;
mod report;
mod suite;
mod target;
mod wire;

use std::path::PathBuf;

use crate::wasm::LoadError;
use profile::ProfileError;
use readers::ReaderError;

pub(crate) use cases::Scale;
pub(crate) use report::Report;
pub(crate) use suite::{Progress, Suite, case_list};
pub(crate) use wire::Wire;

/// Why nothing can be said of a backend.
#[derive(Debug, thiserror::Error)]
pub(crate) enum VerifyError {
    /// A host would not load it.
    #[error("{}: refused: {reason}", file.display())]
    Refused {
        /// The component.
        file: PathBuf,
        /// Why.
        reason: String,
    },

    /// Its profile is wrong.
    #[error(transparent)]
    Profile(#[from] ProfileError),

    /// It calls itself as none of ours, and no profile says how to read.
    #[error(
        "nothing says how to read what `{name}` publishes: write a profile with a `reader`, \
         {}; see docs/verifying-a-backend.md",
        file.display()
    )]
    NoReader {
        /// What it calls itself.
        name: String,
        /// Where the profile is looked for.
        file: PathBuf,
    },

    /// What arrived cannot be read.
    #[error("what arrives cannot be read, so nothing can be verified")]
    Reader(#[from] ReaderError),

    /// A case that does not exist.
    #[error("there is no case `{0}`; --list shows all")]
    NoSuchCase(String),

    /// Wasmtime cannot be set up.
    #[error(transparent)]
    Engine(#[from] LoadError),
}
