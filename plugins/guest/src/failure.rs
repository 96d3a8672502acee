//! Constructors for the failures a backend reports.

use crate::{Failure, PublishError};
use std::ops::Range;

impl Failure {
    /// The event at `index` was not published, but may be later: the server is
    /// away, busy or asks to wait, or the event's fate is unknown. The host
    /// offers it again, with the same id.
    ///
    /// The text is for the host's log (cut off after 1,024 bytes) and must not
    /// hold secrets.
    pub fn retryable(index: usize, message: impl Into<String>) -> Self {
        Self {
            index: position(index),
            error: PublishError::Retryable(message.into()),
        }
    }

    /// The event at `index` will never be published: the queue refuses it as it
    /// is. The host does not offer it again but keeps it as a dead letter.
    ///
    /// For what is wrong with the event only. A wrong setting or a missing
    /// permission can be put right and is [`retryable`](Self::retryable).
    pub fn permanent(index: usize, message: impl Into<String>) -> Self {
        Self {
            index: position(index),
            error: PublishError::Permanent(message.into()),
        }
    }

    /// None of the events at these indexes was published, for one common reason
    /// that may pass: no connection, or one that broke.
    pub fn all_retryable(indexes: Range<usize>, message: impl Into<String>) -> Vec<Self> {
        let message = message.into();
        indexes
            .map(|index| Self::retryable(index, message.as_str()))
            .collect()
    }
}

/// The contract counts positions in 32 bits, and a batch came in as a list that
/// fits a 32-bit address space.
fn position(index: usize) -> u32 {
    u32::try_from(index).expect("an index into a batch fits 32 bits")
}
