//! How large a journal may grow, how it is doing, and why it cannot be opened.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use super::backends::BackendsError;
use super::log::OpenError;

/// The smallest journal.
pub(crate) const MIN_SIZE: u64 = 1 << 20;

/// How much a [`Journal`](super::Journal) keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalOptions {
    /// The most bytes of events on disk; then an emit is answered with
    /// [`QueueFull`](crate::PublishError::QueueFull). At least 1 MiB. Default 1 GiB.
    pub size: u64,
    /// How many bytes of events are kept that every backend has settled, for
    /// backends that begin with the oldest. What is not settled is always kept.
    /// Removed in pieces of an eighth of `size`, at most 64 MiB. Default 64 MiB.
    pub retain_size: u64,
    /// For how long. Default 1 hour.
    pub retain_age: Duration,
}

impl Default for JournalOptions {
    fn default() -> JournalOptions {
        JournalOptions {
            size: 1 << 30,
            retain_size: 64 << 20,
            retain_age: Duration::from_secs(3600),
        }
    }
}

/// Where a backend begins that a journal has not known before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StartAt {
    /// With the events accepted from now on.
    #[default]
    Now,
    /// With the oldest event that is kept.
    Oldest,
}

/// Whether a journal takes events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JournalState {
    /// It does.
    Ok,
    /// It has no room until a backend delivers.
    Full,
    /// Its disk cannot be written or read.
    Failing,
}

impl JournalState {
    /// The state as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            JournalState::Ok => "ok",
            JournalState::Full => "full",
            JournalState::Failing => "failing",
        }
    }
}

/// A journal at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct JournalStatus {
    /// Where it is.
    pub folder: PathBuf,
    /// Whether it takes events.
    pub state: JournalState,
    /// Why not, and what to do.
    pub problem: Option<String>,
    /// Bytes of events on disk.
    pub size: u64,
    /// The most there may be.
    pub max_size: u64,
    /// The number of the oldest event kept; equal to `next` if there is none.
    pub oldest: u64,
    /// The number the next event will have.
    pub next: u64,
    /// Events that could not be read any more, since the start.
    pub unreadable: u64,
    /// Groups of events that were written with one sync each, since the start.
    pub groups: u64,
}

/// Why a journal cannot be opened or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Two hosts cannot write one journal.
    #[error(
        "the journal in {} is in use by another process{holder}; stop that one, or choose \
         another folder (--data)", folder.display()
    )]
    InUse {
        /// The journal's folder.
        folder: PathBuf,
        /// Which, if it can be told.
        holder: String,
    },

    /// The folder cannot be used.
    #[error("the journal in {} cannot be opened: {reason}", folder.display())]
    Unusable {
        /// The journal's folder.
        folder: PathBuf,
        /// Why, and what to do.
        reason: String,
    },

    /// A backend could not be made known.
    #[error("backend `{backend}` cannot be entered in the journal: {reason}")]
    Backend {
        /// Its name.
        backend: String,
        /// Why.
        reason: String,
    },
}

impl JournalError {
    pub(super) fn unusable(folder: &std::path::Path, reason: impl ToString) -> JournalError {
        JournalError::Unusable {
            folder: folder.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(super) fn log(folder: &std::path::Path, error: OpenError) -> JournalError {
        JournalError::unusable(folder, error)
    }

    pub(super) fn backends(folder: &std::path::Path, error: BackendsError) -> JournalError {
        JournalError::unusable(folder, error)
    }
}
