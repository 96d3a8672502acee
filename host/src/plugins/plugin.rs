//! A plugin in use: a name, the way events take to it, and the version of the
//! component that is behind it now.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::error::PluginError;
use super::load::Version;
use super::manifest::Manifest;
use super::slot::{Quarantine, Slot};
use crate::backend::{AsyncBackend, CloseError};
use crate::delivery::Delivery;
use crate::journal::{BackendId, Journal};
use crate::pattern::Pattern;
use crate::wasm::{Grants, Limits, WasmBackend};

/// A plugin that was loaded. It keeps its delivery when its component or its
/// manifest is replaced.
pub struct Plugin {
    name: String,
    slot: Arc<Slot>,
    delivery: Delivery,
    /// Its number in the journal, if there is one.
    backend_id: Option<BackendId>,
    version: ArcSwap<Version>,
    /// Why the files that are in the folder now are not in use.
    problem: Mutex<Option<PluginError>>,
}

impl Plugin {
    /// A plugin whose events wait in `journal`, or in memory.
    pub(super) fn new(
        slot: Arc<Slot>,
        version: Version,
        journal: Option<&Journal>,
    ) -> Result<Plugin, PluginError> {
        let options = version.delivery_options();
        let name = slot.name().to_owned();
        let delivery = match journal {
            None => Delivery::new(slot.clone(), options),
            Some(journal) => {
                let Manifest { from, events, .. } = &version.manifest;
                journal.delivery(slot.clone(), options, *from, events)?
            }
        };
        Ok(Plugin {
            backend_id: journal.and_then(|journal| journal.backend_id(&name)),
            name,
            delivery,
            slot,
            version: ArcSwap::from_pointee(version),
            problem: Mutex::default(),
        })
    }

    /// Has `backend`, which was started from `version`, take over. The events that
    /// wait go to it. Returns the one before, which is to be closed.
    pub(super) fn replace(&self, backend: WasmBackend, version: Version) -> Arc<WasmBackend> {
        self.delivery.reconfigure(version.delivery_options());
        self.version.store(Arc::new(version));
        self.set_problem(None);
        self.slot.replace(backend)
    }

    /// What it is called: the manifest's `name`, else what the component says.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file it was loaded from.
    pub fn file(&self) -> PathBuf {
        self.version.load().file.clone()
    }

    /// The event types it gets.
    pub fn events(&self) -> Vec<Pattern> {
        self.version.load().manifest.events.clone()
    }

    /// What it may touch. Shown without the values of its environment.
    pub fn grants(&self) -> Grants {
        self.version.load().manifest.grants.clone()
    }

    /// How much each of its instances may use.
    pub fn limits(&self) -> Limits {
        self.version.load().manifest.limits
    }

    /// The way events take to it, with its figures.
    pub fn delivery(&self) -> &Delivery {
        &self.delivery
    }

    /// Why it was set aside, if it was.
    pub fn quarantine(&self) -> Option<Quarantine> {
        self.slot.quarantine()
    }

    /// Lets a plugin that was set aside try again. False if it was not.
    pub fn release(&self) -> bool {
        let released = self.slot.release();
        if released {
            tracing::info!(plugin = self.name, "released from quarantine by hand");
        }
        released
    }

    /// Why the files that are in the folder now are not in use, if they are not.
    pub fn problem(&self) -> Option<String> {
        self.lock_problem().as_ref().map(ToString::to_string)
    }

    /// Whether there is a problem, and one that `is` so.
    pub(super) fn has_problem(&self, is: impl FnOnce(&PluginError) -> bool) -> bool {
        self.lock_problem().as_ref().is_some_and(is)
    }

    pub(super) fn set_problem(&self, problem: Option<PluginError>) {
        *self.lock_problem() = problem;
    }

    pub(super) fn version(&self) -> Arc<Version> {
        self.version.load_full()
    }

    pub(super) fn backend(&self) -> Arc<WasmBackend> {
        self.slot.backend()
    }

    /// Delivers what waits, then closes the component. One that was set aside
    /// would not deliver anything and is not waited for.
    pub(super) async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let grace = match self.quarantine() {
            Some(_) => Duration::ZERO,
            None => grace,
        };
        self.delivery.close(grace).await
    }

    pub(super) fn backend_id(&self) -> Option<BackendId> {
        self.backend_id
    }

    /// What a plugin that was to be closed has not delivered, and is lost.
    pub(super) fn left_behind(&self) -> Option<CloseError> {
        if self.backend_id.is_some() {
            // It is in the journal.
            return None;
        }
        let stats = self.delivery.stats();
        let undelivered =
            usize::try_from(stats.dropped.total() + stats.pending).unwrap_or(usize::MAX);
        (undelivered > 0).then(|| CloseError {
            undelivered,
            reason: format!(
                "plugin `{}`, which was taken out of the folder, had not taken them",
                self.name
            ),
        })
    }

    fn lock_problem(&self) -> MutexGuard<'_, Option<PluginError>> {
        self.problem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("file", &self.file())
            .finish_non_exhaustive()
    }
}
