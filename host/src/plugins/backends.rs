//! Where the events of every backend are: the plugins in use, those that were
//! taken out and still end, and those the journal keeps events for.
//!
//! Each name is there once. What is shown of a backend at one moment is read
//! once, so that its books balance in whatever is made of it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;

use super::{Plugin, PluginHost};
use crate::delivery::{BreakerState, DeliveryStats, LatencySnapshot};
use crate::journal::{ForgetError, JournalStatus, KnownBackend};

/// All backends at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct BackendsStatus {
    /// Ordered by name.
    pub backends: Vec<BackendStatus>,
    /// The journal their events wait in; none if they wait in memory.
    pub journal: Option<JournalStatus>,
}

/// A backend at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct BackendStatus {
    /// The plugin's name.
    pub name: String,
    /// Whether there is a plugin of this name that events are delivered to. One
    /// that was taken out of the folder is there until it has ended.
    pub present: bool,
    /// How it fares.
    pub state: BackendState,
    /// Where its events are.
    #[serde(flatten)]
    pub delivery: DeliveryStats,
    /// How many dead letters it has now.
    pub dead_letters: u64,
    /// How long events took from accepted to delivered, since the plugin was loaded.
    pub latency: LatencySnapshot,
}

/// How a backend fares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BackendState {
    /// It takes events, or has none to take.
    Ok,
    /// It takes nothing, and is asked now and then: its breaker is not closed.
    Failing,
    /// Its plugin was set aside.
    Quarantined,
    /// Its plugin is not there. Its events wait.
    Absent,
}

impl PluginHost {
    /// All backends as they are now: those whose plugin is there, and those the
    /// journal knows.
    pub fn backends(&self) -> BackendsStatus {
        let journal = self.0.journal.as_ref();
        let known = journal
            .map(|journal| journal.backends())
            .unwrap_or_default();
        let mut backends: BTreeMap<String, BackendStatus> = known
            .into_iter()
            .map(|known| (known.name.clone(), known.into()))
            .collect();
        let ending = self.0.lock_ending().clone();
        // Of one that ends and one in use, the latter is shown.
        for plugin in ending.iter().chain(&self.plugins()) {
            let mut status = plugin.backend_status();
            if journal.is_some()
                && let Some(known) = backends.get(plugin.name())
            {
                status.dead_letters = known.dead_letters;
            }
            backends.insert(status.name.clone(), status);
        }
        BackendsStatus {
            backends: backends.into_values().collect(),
            journal: journal.map(|journal| journal.status()),
        }
    }

    /// How the plugins in use fare, by name.
    pub fn backend_states(&self) -> BTreeMap<String, BackendState> {
        let plugins = self.plugins().into_iter();
        plugins
            .map(|plugin| (plugin.name().to_owned(), plugin.backend_state()))
            .collect()
    }

    /// Drops every event that waits for a backend whose plugin is gone; returns
    /// how many. Its books stay, and say so.
    ///
    /// # Errors
    ///
    /// If its plugin is there or still ends, or nothing is known of such a backend.
    pub fn forget(&self, name: &str) -> Result<u64, ForgetError> {
        let is_it = |plugin: &Arc<Plugin>| plugin.name() == name;
        if self.plugins().iter().any(is_it) || self.0.lock_ending().iter().any(is_it) {
            return Err(ForgetError::InUse(name.to_owned()));
        }
        match &self.0.journal {
            Some(journal) => journal.forget(name),
            None => Err(ForgetError::Unknown(name.to_owned())),
        }
    }
}

impl Plugin {
    fn backend_status(&self) -> BackendStatus {
        BackendStatus {
            name: self.name().to_owned(),
            present: true,
            state: self.backend_state(),
            delivery: self.delivery().stats(),
            dead_letters: self.delivery().dead_letters().len() as u64,
            latency: self.delivery().latency(),
        }
    }

    fn backend_state(&self) -> BackendState {
        if self.quarantine().is_some() {
            return BackendState::Quarantined;
        }
        match self.delivery().stats().breaker {
            BreakerState::Closed => BackendState::Ok,
            BreakerState::Open => BackendState::Failing,
        }
    }
}

/// One whose plugin is not there, or is only just being loaded.
impl From<KnownBackend> for BackendStatus {
    fn from(known: KnownBackend) -> BackendStatus {
        BackendStatus {
            name: known.name,
            present: known.in_use,
            state: match known.in_use {
                true => BackendState::Ok,
                false => BackendState::Absent,
            },
            delivery: known.stats,
            dead_letters: known.dead_letters,
            latency: LatencySnapshot::default(),
        }
    }
}
