//! The plugins folder: every `NAME.wasm` in it, with its `NAME.toml`.
//!
//! [`PluginHost`] is the [`AsyncBackend`] that fans events out (`routes`), one
//! [`Delivery`](crate::Delivery) for each [`Plugin`]. Plugins come, change and go
//! while it runs: `folder` sees what is there, `watch` looks when something may
//! have changed, `life` starts, replaces and ends plugins, and `slot` is where a
//! component is exchanged under a delivery; `status` and `backends` say how all of
//! it is, `dead_letters` what was given up. What a plugin may do stands in its
//! manifest (`manifest`) and is enforced by `wasm`.

mod backends;
mod dead_letters;
mod error;
mod folder;
mod folder_grants;
mod life;
mod load;
mod manifest;
mod plugin;
mod routes;
mod slot;
mod status;
mod watch;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::event::Event;
use crate::journal::Journal;
use crate::wasm::WasmEngine;
use folder::Folder;
use routes::Routes;

pub use backends::{BackendState, BackendStatus, BackendsStatus};
pub use error::PluginError;
#[cfg(feature = "cli")]
pub(crate) use folder_grants::check_folders;
pub use manifest::{Manifest, ManifestError};
pub use plugin::Plugin;
pub use slot::Quarantine;
pub use status::{FolderStatus, PluginState, PluginStatus};

/// How a [`PluginHost`] keeps events.
#[derive(Clone, Debug)]
pub struct PluginHostOptions {
    /// How long a plugin that was taken out of the folder may deliver what waits
    /// for it. Default 10 s. What it
    /// has not delivered by then waits in the journal until it comes back; without a
    /// journal it is lost.
    pub drain: Duration,
    /// Where events wait for the plugins: each backend has its own position there,
    /// under the plugin's name. Default none: in memory, where an event is only
    /// taken if each plugin has room for it.
    pub journal: Option<Journal>,
}

impl Default for PluginHostOptions {
    fn default() -> PluginHostOptions {
        PluginHostOptions {
            drain: Duration::from_secs(10),
            journal: None,
        }
    }
}

/// The plugins of one folder, as a backend: each event goes to every plugin
/// whose manifest names its type.
///
/// A batch is taken by all plugins concerned or by none. An event that no
/// plugin takes is refused: carrying it nowhere would be losing it.
///
/// Cloning is cheap, and the clones are one host: keep one to look at the
/// plugins after giving the other to the bus.
#[derive(Clone)]
pub struct PluginHost(Arc<Inner>);

struct Inner {
    path: PathBuf,
    engine: WasmEngine,
    drain: Duration,
    /// Where events wait; in memory without one.
    journal: Option<Journal>,
    routes: ArcSwap<Routes>,
    /// Whether the first look at the folder is over.
    loaded: AtomicBool,
    closed: tokio::sync::watch::Sender<bool>,
    /// Held while the folder is looked at. Never while a plugin is loaded.
    folder: Mutex<Folder>,
    /// Held while a plugin takes its place or leaves it.
    changing: tokio::sync::Mutex<()>,
    refused: Mutex<BTreeMap<PathBuf, Arc<PluginError>>>,
    /// The plugins that were taken out of the folder and still deliver.
    ending: Mutex<Vec<Arc<Plugin>>>,
    /// The watcher, and plugins that are being loaded or end.
    tasks: Mutex<JoinSet<()>>,
}

/// A file of the folder that could not be loaded.
#[derive(Clone, Debug)]
pub struct RefusedPlugin {
    /// The file.
    pub file: PathBuf,
    /// Why, and what to do.
    pub reason: Arc<PluginError>,
}

impl PluginHost {
    /// A host without plugins yet; [`start`](Self::start) loads them.
    pub fn new(folder: &Path, engine: &WasmEngine) -> PluginHost {
        PluginHost::with_options(folder, engine, PluginHostOptions::default())
    }

    /// The same, with `options`.
    pub fn with_options(
        folder: &Path,
        engine: &WasmEngine,
        options: PluginHostOptions,
    ) -> PluginHost {
        PluginHost(Arc::new(Inner {
            path: folder.to_owned(),
            engine: engine.clone(),
            drain: options.drain,
            journal: options.journal,
            routes: ArcSwap::default(),
            loaded: AtomicBool::new(false),
            closed: tokio::sync::watch::Sender::new(false),
            folder: Mutex::new(Folder::new(folder.to_owned())),
            changing: tokio::sync::Mutex::default(),
            refused: Mutex::default(),
            ending: Mutex::default(),
            tasks: Mutex::default(),
        }))
    }

    /// A host with every `*.wasm` of `folder`: [`new`](Self::new), then
    /// [`start`](Self::start).
    ///
    /// # Errors
    ///
    /// If the folder itself cannot be read.
    pub async fn load(folder: &Path, engine: &WasmEngine) -> std::io::Result<PluginHost> {
        let host = PluginHost::new(folder, engine);
        host.start().await?;
        Ok(host)
    }

    /// Loads every `*.wasm` of the folder, in the order of their names. One that
    /// cannot be loaded is [`refused`](Self::refused) and does not keep the
    /// others from loading. Until this is over, events are refused as retryable.
    ///
    /// # Errors
    ///
    /// If the folder itself cannot be read.
    pub async fn start(&self) -> std::io::Result<()> {
        life::load_all(&self.0).await?;
        self.0.loaded.store(true, Ordering::Release);
        Ok(())
    }

    /// Follows the folder from now on: plugins that are added, changed or removed
    /// are loaded, replaced or ended while events flow. Ends with
    /// [`close`](AsyncBackend::close), or when the last clone is dropped.
    pub fn watch(&self) {
        let task = watch::follow(Arc::downgrade(&self.0));
        self.0.lock_tasks().spawn(task);
    }

    /// Whether the first look at the folder is over.
    pub fn is_loaded(&self) -> bool {
        self.0.loaded.load(Ordering::Acquire)
    }

    /// The plugins in use, ordered by file.
    pub fn plugins(&self) -> Vec<Arc<Plugin>> {
        self.0.routes.load().plugins().cloned().collect()
    }

    /// The plugin of that name.
    pub fn plugin(&self, name: &str) -> Option<Arc<Plugin>> {
        let routes = self.0.routes.load();
        routes.plugins().find(|p| p.name() == name).cloned()
    }

    /// The files that could not be loaded and have no older version in use.
    pub fn refused(&self) -> Vec<RefusedPlugin> {
        let refused = self.0.lock_refused();
        let listed = refused.iter().map(|(file, reason)| RefusedPlugin {
            file: file.clone(),
            reason: reason.clone(),
        });
        listed.collect()
    }
}

#[async_trait]
impl AsyncBackend for PluginHost {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let inner = &*self.0;
        if !self.is_loaded() {
            let error = PublishError::Retryable("the plugins are still being loaded".to_owned());
            return Err(Failure::all(events.len(), &error));
        }
        loop {
            let routes = inner.routes.load_full();
            let taken = match &inner.journal {
                Some(journal) => routes.keep(events, journal).await,
                None => routes.take(events),
            };
            let closed = |failures: &Vec<Failure>| failures[0].error == PublishError::Closed;
            // A plugin that is on its way out takes nothing; without it, the
            // routes are others.
            let changed = || !Arc::ptr_eq(&routes, &inner.routes.load());
            // A journal that is closed is so for every route.
            if inner.journal.is_some() || !(taken.as_ref().is_err_and(closed) && changed()) {
                return taken;
            }
        }
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let inner = &*self.0;
        let started = Instant::now();
        inner.closed.send_replace(true);
        // A plugin that is just taking its place is among them.
        let changing = tokio::time::timeout(grace, inner.changing.lock()).await;
        let (plugins, ending) = (self.plugins(), inner.lock_ending().clone());
        drop(changing);
        let closing = join_all(plugins.iter().map(|plugin| plugin.close(grace)));
        let ended = tokio::time::timeout(grace, inner.tasks_ended());
        let (closed, ended) = tokio::join!(closing, ended);
        if ended.is_err() {
            tracing::warn!(waited = ?started.elapsed(), "plugins that were being replaced or removed did not end in time");
        }
        let mut errors: Vec<CloseError> = closed.into_iter().filter_map(Result::err).collect();
        errors.extend(ending.iter().filter_map(|plugin| plugin.left_behind()));
        if errors.is_empty() {
            return Ok(());
        }
        Err(CloseError {
            undelivered: errors.iter().map(|error| error.undelivered).sum(),
            reason: errors
                .into_iter()
                .map(|error| error.reason)
                .collect::<Vec<_>>()
                .join("; "),
        })
    }

    fn name(&self) -> &str {
        "plugins"
    }
}

impl Inner {
    /// Waits for the watcher, and for plugins that are being loaded or end; what
    /// they leave to be ended is waited for as well.
    async fn tasks_ended(&self) {
        loop {
            let mut tasks = std::mem::take(&mut *self.lock_tasks());
            if tasks.is_empty() {
                return;
            }
            while tasks.join_next().await.is_some() {}
        }
    }

    fn lock_refused(&self) -> MutexGuard<'_, BTreeMap<PathBuf, Arc<PluginError>>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_ending(&self) -> MutexGuard<'_, Vec<Arc<Plugin>>> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_tasks(&self) -> MutexGuard<'_, JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_folder(&self) -> MutexGuard<'_, Folder> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_closed(&self) -> bool {
        *self.closed.borrow()
    }
}

impl fmt::Debug for PluginHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PluginHost")
            .field("folder", &self.0.path)
            .field("plugins", &self.plugins())
            .finish_non_exhaustive()
    }
}
