//! What a journal says of the backends it knows, there or not, and how one that
//! will not come back is let go.

use super::{Journal, lock};
use crate::delivery::DeliveryStats;

/// A backend a journal keeps events for, at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownBackend {
    /// What it is called.
    pub name: String,
    /// Whether a delivery to it is in use.
    pub in_use: bool,
    /// How many dead letters it has.
    pub dead_letters: u64,
    /// Where its events are. How it fares is known to its delivery alone.
    pub stats: DeliveryStats,
}

/// Why what waits for a backend is not given up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ForgetError {
    /// There is no such backend.
    #[error("no backend is called {0:?}; GET /api/backends and `backhaul backends` list them")]
    Unknown(String),

    /// What waits for it is being delivered.
    #[error(
        "backend `{0}` is in use; take its plugin out of the plugins folder, wait until it has \
         ended, and forget it then"
    )]
    InUse(String),
}

impl Journal {
    /// Every backend that ever had a [`delivery`](Self::delivery).
    pub fn backends(&self) -> Vec<KnownBackend> {
        let backends = lock(&self.inner().backends).all().to_vec();
        let known = backends.iter().map(|backend| KnownBackend {
            name: backend.name.to_string(),
            in_use: backend.is_present(),
            dead_letters: self.inner().dead.count(&backend.name),
            stats: (&backend.books.counts()).into(),
        });
        known.collect()
    }

    /// Drops every event that waits for the backend `name`, which has no delivery
    /// now; returns how many. Its books stay, and say so. Should it come back, it
    /// gets what is accepted for it from now on.
    ///
    /// # Errors
    ///
    /// If there is no such backend, or a delivery to it is in use.
    pub fn forget(&self, name: &str) -> Result<u64, ForgetError> {
        let known = lock(&self.inner().backends).of_name(name).cloned();
        let backend = known.ok_or_else(|| ForgetError::Unknown(name.to_owned()))?;
        // A delivery that is made meanwhile waits until this is done.
        let permit = backend.in_use.clone().try_acquire_owned();
        let _permit = permit.map_err(|_| ForgetError::InUse(name.to_owned()))?;
        let dropped = backend.forget(&self.inner().recent);
        tracing::warn!(
            backend = name,
            dropped,
            "forgotten: what waited for it is dropped"
        );
        Ok(dropped)
    }
}
