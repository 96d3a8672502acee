//! Where a delivery gets its events from when they are kept durably.
//!
//! A [`Feed`] is one backend's view of a store: what was accepted for it and is
//! not settled yet. It is implemented by the store, and used by a delivery that
//! was made with [`Delivery::fed`](super::Delivery::fed): its pump reads ahead,
//! its workers settle and bury. The feed knows nothing of batches or retries.

use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;

use super::books::Books;
use crate::backend::PublishError;
use crate::event::Event;

/// One event on its way to one backend.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Its number in the store: later ones are higher.
    pub(crate) seq: u64,
    pub(crate) event: Event,
    /// When it was accepted.
    pub(crate) accepted: Timestamp,
}

/// An event that is given up, on its way to the dead letters of the store.
#[derive(Clone, Debug)]
pub(crate) struct Burial {
    pub(crate) seq: u64,
    pub(crate) event: Event,
    /// The error of the last try.
    pub(crate) error: String,
    /// How many tries there were.
    pub(crate) attempts: u32,
    pub(crate) first_try: Timestamp,
    pub(crate) last_try: Timestamp,
}

/// How an event was settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The backend took it.
    Delivered,
    /// It is a dead letter.
    Dead,
}

/// The events accepted for one backend and not settled yet.
#[async_trait]
pub(crate) trait Feed: Send + Sync + 'static {
    /// Keeps `events` durably for this backend, all or none, and counts them as
    /// accepted. What a fed delivery does with what is published to it.
    async fn append(&self, events: &[Event]) -> Result<(), PublishError>;

    /// Waits for events that were not handed out yet and hands out the next,
    /// oldest first: at most `events`, about `bytes` of them, one at least.
    ///
    /// Cancel-safe: if the future is dropped, nothing is handed out. Called by
    /// one task at a time.
    async fn next(&self, events: usize, bytes: usize) -> Vec<Entry>;

    /// Notes that these are settled, and how: never offered again, also after a
    /// restart. Counts them in the books, in one with that. Cheap, does not wait.
    /// Called once per seq.
    fn settle(&self, seqs: &[u64], outcome: Outcome);

    /// Keeps dead letters durably. They are settled by the caller after `Ok`. On
    /// `Err`, which says why (disk full ...), none is kept: the caller keeps the
    /// events and tries again later.
    async fn bury(&self, letters: &[Burial]) -> Result<(), String>;

    /// Lets go of the backend: nothing is handed out or settled any more, and
    /// another feed may go on where this one is.
    async fn release(&self);

    /// The books of this backend. The feed counts what was accepted and settled, the
    /// delivery only tries.
    fn books(&self) -> Arc<Books>;
}
