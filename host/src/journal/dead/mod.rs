//! Dead letters that are kept durably, beside the events.
//!
//! A letter is on disk before its event counts as settled. Should the position
//! that says so be lost with the power, the letter says it at the next start. A
//! letter is removed only when that position is durable.

mod record;
mod store;

use std::io;
use std::sync::{Arc, Mutex};

use super::backends::Backend;
use super::disk::Disk;
use super::log::{Damage, OpenError};
use super::{Inner, Journal, lock};
use crate::backend::PublishError;
use crate::dead_letters::{DeadFilter, DeadPage};
use crate::delivery::Burial;
use store::{Counts, Store};

/// The most bytes of events on one page.
const PAGE_BYTES: u64 = 16 << 20;

/// How many letters are put back or removed at once, and how many bytes.
const STEP: (usize, u64) = (256, 1 << 20);

/// The dead letters of a journal.
pub(super) struct Dead {
    pub(super) store: Mutex<Store>,
    /// How many there are of each backend, to be told while the store is at work.
    counts: Mutex<Counts>,
    /// Held while letters are put back or removed, so that none is put back twice.
    removing: tokio::sync::Mutex<()>,
}

impl Dead {
    pub(super) fn open(disk: Arc<dyn Disk>, limit: u64) -> Result<(Dead, Vec<Damage>), OpenError> {
        let (store, damage) = Store::open(disk, limit)?;
        let dead = Dead {
            counts: Mutex::new(store.counts().clone()),
            store: Mutex::new(store),
            removing: tokio::sync::Mutex::default(),
        };
        Ok((dead, damage))
    }

    /// One past the highest number of an event that is a letter.
    pub(super) fn known_end(&self) -> u64 {
        lock(&self.store).known_end()
    }

    /// How many letters a backend has.
    pub(super) fn count(&self, backend: &str) -> u64 {
        lock(&self.counts).get(backend).copied().unwrap_or(0)
    }
}

impl Journal {
    /// The dead letters that fit `filter` with an id above `after`, at most `limit`
    /// of them and some 16 MiB. Reads files.
    ///
    /// # Errors
    ///
    /// If the disk cannot be read.
    pub fn dead_letters(
        &self,
        filter: &DeadFilter,
        after: u64,
        limit: usize,
    ) -> io::Result<DeadPage> {
        lock(&self.inner().dead.store).page(filter, after, limit, PAGE_BYTES)
    }

    /// Accepts the events of the dead letters that fit `filter` once more, each for
    /// its backend, and removes the letters. Returns how many.
    ///
    /// # Errors
    ///
    /// [`PublishError::QueueFull`] if the journal is full,
    /// [`PublishError::Permanent`] for a letter whose backend was forgotten,
    /// [`PublishError::Retryable`] if the disk fails. Those that were not put back
    /// are dead letters still.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, an event may be put back and be a letter still.
    pub async fn retry_dead(&self, filter: &DeadFilter) -> Result<u64, PublishError> {
        let failed = |error: io::Error| PublishError::Retryable(error.to_string());
        let _removing = self.inner().dead.removing.lock().await;
        // Those that fail meanwhile are not for this call.
        let end = self.dead_end();
        let (mut retried, mut after) = (0, Some(0));
        while let Some(from) = after {
            let page = self.step(filter, from).await.map_err(failed)?;
            after = page.next;
            let letters = page.letters.into_iter().filter(|letter| letter.id < end);
            let (mut ids, mut records) = (Vec::new(), Vec::new());
            for letter in letters {
                let Some(backend) = self.backend_id(&letter.backend) else {
                    let problem = format!(
                        "backend `{}` of dead letter {} was forgotten; drop the letter, \
                         or bring the plugin back",
                        letter.backend, letter.id
                    );
                    return Err(PublishError::Permanent(problem));
                };
                ids.push(letter.id);
                records.push((letter.event, [backend].into()));
            }
            self.append(records).await?;
            retried += self.remove_dead(ids).await.map_err(failed)?;
        }
        Ok(retried)
    }

    /// Removes the dead letters that fit `filter`, for good. Returns how many.
    ///
    /// # Errors
    ///
    /// If the disk cannot be written.
    pub async fn drop_dead(&self, filter: &DeadFilter) -> io::Result<u64> {
        let _removing = self.inner().dead.removing.lock().await;
        let end = self.dead_end();
        let (mut dropped, mut after) = (0, Some(0));
        while let Some(from) = after {
            let page = self.step(filter, from).await?;
            after = page.next;
            let ids = page.letters.iter().map(|letter| letter.id);
            let ids: Vec<u64> = ids.filter(|id| *id < end).collect();
            dropped += self.remove_dead(ids).await?;
        }
        Ok(dropped)
    }

    /// Keeps dead letters durably, all or none.
    pub(super) async fn bury(
        &self,
        backend: &Arc<Backend>,
        letters: &[Burial],
    ) -> Result<(), String> {
        let (backend, letters) = (backend.clone(), letters.to_vec());
        // Goes on if the caller is gone: who begins anew waits for it.
        let burying = backend.burying.clone().read_owned().await;
        let buried = self.on_dead(move |inner| {
            let _burying = burying;
            lock(&inner.dead.store).bury(&backend.name, &letters)
        });
        buried.await.map_err(|error| error.to_string())
    }

    /// The id the next letter will at least have.
    fn dead_end(&self) -> u64 {
        lock(&self.inner().dead.store).next_id()
    }

    async fn step(&self, filter: &DeadFilter, after: u64) -> io::Result<DeadPage> {
        let filter = filter.clone();
        let (limit, bytes) = STEP;
        self.on_dead(move |inner| lock(&inner.dead.store).page(&filter, after, limit, bytes))
            .await
    }

    async fn remove_dead(&self, ids: Vec<u64>) -> io::Result<u64> {
        self.on_dead(move |inner| {
            // Or a crash would bring the events back.
            inner.sync_all_positions()?;
            let mut store = lock(&inner.dead.store);
            let removed = store.remove(&ids)?;
            if let Err(error) = store.tidy() {
                tracing::warn!(%error, "the room of removed dead letters is not free yet");
            }
            Ok(removed)
        })
        .await
    }

    async fn on_dead<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Inner) -> io::Result<T> + Send + 'static,
    ) -> io::Result<T> {
        let inner = self.0.inner.clone();
        let work = move || {
            let done = work(&inner);
            let counts = lock(&inner.dead.store).counts().clone();
            *lock(&inner.dead.counts) = counts;
            done
        };
        match tokio::task::spawn_blocking(work).await {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }
}

impl Inner {
    /// At the start: what is a letter is settled, also if its position was lost.
    pub(super) fn settle_all_dead(&self) {
        let backends = lock(&self.backends).all().to_vec();
        backends
            .iter()
            .for_each(|backend| self.settle_dead(backend));
    }

    /// The same for one, when nothing of it is handed out.
    pub(super) fn settle_dead(&self, backend: &Backend) {
        let seqs = lock(&self.dead.store).seqs(&backend.name);
        backend.settle_dead(&seqs, &self.recent);
    }
}
