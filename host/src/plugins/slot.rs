//! The place of a plugin's backend.
//!
//! The delivery in front of it keeps its queue, its order and its figures while
//! the component behind it is replaced. A component that keeps breaking is set
//! aside here: what is published waits until it is changed or released.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use jiff::Timestamp;
use tokio::sync::watch;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::event::Event;
use crate::wasm::WasmBackend;

/// How many times in a row a plugin may break before it is set aside. With the
/// delays between instances that takes some ten to thirty seconds.
pub(super) const MAX_BROKEN_IN_A_ROW: u32 = 10;

/// Why a plugin was set aside, and since when.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Quarantine {
    /// When.
    pub since: Timestamp,
    /// What its instances died of, the last time.
    pub reason: String,
}

pub(super) struct Slot {
    name: String,
    backend: ArcSwap<WasmBackend>,
    quarantine: watch::Sender<Option<Quarantine>>,
}

impl Slot {
    pub(super) fn new(backend: WasmBackend) -> Slot {
        Slot {
            name: backend.name().to_owned(),
            backend: ArcSwap::from_pointee(backend),
            quarantine: watch::Sender::new(None),
        }
    }

    pub(super) fn backend(&self) -> Arc<WasmBackend> {
        self.backend.load_full()
    }

    /// Puts `backend` in place of the present one, which is returned: it may have
    /// calls under way, and is to be closed.
    pub(super) fn replace(&self, backend: WasmBackend) -> Arc<WasmBackend> {
        let old = self.backend.swap(Arc::new(backend));
        self.quarantine.send_replace(None);
        old
    }

    pub(super) fn quarantine(&self) -> Option<Quarantine> {
        self.quarantine.borrow().clone()
    }

    /// Lets a plugin that was set aside try again. False if it was not.
    pub(super) fn release(&self) -> bool {
        self.backend.load().forgive();
        self.quarantine.send_replace(None).is_some()
    }

    /// Sets the plugin aside if `backend`, which has just failed, keeps breaking.
    fn judge(&self, backend: &Arc<WasmBackend>) {
        if backend.broken_in_a_row() < MAX_BROKEN_IN_A_ROW {
            return;
        }
        let reason = backend.health().last_error.unwrap_or_default();
        let set_aside = self.quarantine.send_if_modified(|quarantine| {
            // Another call may have said so, or the plugin been replaced, already.
            if quarantine.is_some() || !Arc::ptr_eq(backend, &self.backend.load()) {
                return false;
            }
            *quarantine = Some(Quarantine {
                since: Timestamp::now(),
                reason: reason.clone(),
            });
            true
        });
        if set_aside {
            tracing::error!(
                plugin = self.name,
                "set aside (quarantined): it broke {MAX_BROKEN_IN_A_ROW} times in a row, at last {reason}. \
                 Its events wait. Replace its file or manifest, or let it try again with \
                 `backhaul plugins release {}`",
                self.name
            );
        }
    }
}

#[async_trait]
impl AsyncBackend for Slot {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        loop {
            if self.quarantine.borrow().is_some() {
                let mut quarantine = self.quarantine.subscribe();
                // The sender lives as long as this borrow of it.
                let _ = quarantine.wait_for(Option::is_none).await;
            }
            let backend = self.backend.load_full();
            let published = backend.publish(events).await;
            let Err(failures) = &published else {
                return published;
            };
            self.judge(&backend);
            let closed = failures
                .first()
                .is_some_and(|failure| failure.error == PublishError::Closed);
            if !closed || Arc::ptr_eq(&backend, &self.backend.load()) {
                return published;
            }
            // It was replaced and closed before the call began.
        }
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        self.backend.load_full().close(grace).await
    }

    fn name(&self) -> &str {
        &self.name
    }
}
