//! The life of plugins: loaded, replaced, removed, while events flow.
//!
//! The new version of a plugin is started beside the old one and takes over only
//! when it is ready. The old one finishes its calls, is closed, and is gone. If
//! the new one cannot be started, the old one stays.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::stream::{self, StreamExt};

use super::error::PluginError;
use super::folder::{Change, Stamp};
use super::load::{Source, Version};
use super::plugin::Plugin;
use super::routes::{Routes, of_file};
use super::slot::Slot;
use super::{Inner, PluginHost};
use crate::backend::AsyncBackend;
use crate::journal::Journal;
use crate::wasm::{Limits, WasmBackend};

/// How many plugins are loaded side by side at the start.
const LOADED_AT_ONCE: usize = 8;

/// Loads everything in the folder.
pub(super) async fn load_all(inner: &Arc<Inner>) -> std::io::Result<()> {
    let changes = inner.lock_folder().take_all()?;
    let mut prepared = stream::iter(changes)
        .map(|change| prepare(inner, change))
        .buffered(LOADED_AT_ONCE);
    // In the order of their names: of two with one name, the first has it.
    while let Some(prepared) = prepared.next().await {
        prepared.take_place(inner).await;
    }
    Ok(())
}

/// Does what `change` asks for.
pub(super) async fn follow(inner: Arc<Inner>, change: Change) {
    let mut closed = inner.closed.subscribe();
    let prepared = tokio::select! {
        biased;
        _ = closed.wait_for(|closed| *closed) => return,
        prepared = prepare(&inner, change) => prepared,
    };
    prepared.take_place(&inner).await;
}

/// A change, with the hard part of it done.
enum Prepared {
    Started(PathBuf, Stamp, Box<(WasmBackend, Version)>),
    /// Written, but with what it had before.
    Unchanged(PathBuf, Stamp),
    Refused(PathBuf, Stamp, PluginError),
    Removed(PathBuf),
}

async fn prepare(inner: &Inner, change: Change) -> Prepared {
    let (file, stamp) = match change {
        Change::Removed(file) => return Prepared::Removed(file),
        Change::Written(file, stamp) => (file, stamp),
    };
    let read = tokio::task::spawn_blocking({
        let (file, stamp) = (file.clone(), stamp.clone());
        move || Source::read(&file, &stamp)
    });
    let source = read.await.unwrap_or_else(|panic| {
        let error = std::io::Error::other(panic);
        Err(PluginError::Read(error))
    });
    let started = match source {
        Ok(source) if is_in_use(inner, &source) => return Prepared::Unchanged(file, stamp),
        Ok(source) => {
            source
                .start(&inner.engine, inner.journal.as_ref().map(Journal::folder))
                .await
        }
        Err(error) => Err(error),
    };
    match started {
        Ok(started) => Prepared::Started(file, stamp, Box::new(started)),
        Err(error) => Prepared::Refused(file, stamp, error),
    }
}

fn is_in_use(inner: &Inner, source: &Source) -> bool {
    let routes = inner.routes.load();
    let plugin = of_file(routes.plugins(), &source.file);
    plugin.is_some_and(|plugin| source.is(&plugin.version()))
}

impl Prepared {
    async fn take_place(self, inner: &Arc<Inner>) {
        let _changing = inner.changing.lock().await;
        if inner.is_closed() {
            // The plugins that have a place are being closed.
            if let Prepared::Started(_, _, started) = self {
                let (backend, version) = *started;
                retire(inner, Arc::new(backend), version.manifest.limits);
            }
            return;
        }
        match self {
            Prepared::Started(file, stamp, started) => {
                let (backend, version) = *started;
                // What was loaded may no longer be what is there: then another
                // change follows, and may already have been made.
                if Stamp::of(&file) != Some(stamp) {
                    retire(inner, Arc::new(backend), version.manifest.limits);
                    return;
                }
                place(inner, &file, backend, version);
            }
            // Nor is what was found wrong with it held against what came after it.
            Prepared::Unchanged(file, stamp) | Prepared::Refused(file, stamp, _)
                if inner.loaded.load(Ordering::Acquire)
                    && Stamp::of(&file).as_ref() != Some(&stamp) => {}
            Prepared::Unchanged(file, _) => {
                inner.lock_refused().remove(&file);
                let routes = inner.routes.load();
                if let Some(plugin) = of_file(routes.plugins(), &file) {
                    plugin.set_problem(None);
                }
                tracing::debug!(file = %file.display(), "written again with the same content");
            }
            Prepared::Refused(file, _, reason) => refuse(inner, file, reason),
            Prepared::Removed(file) => {
                inner.lock_refused().remove(&file);
                let routes = inner.routes.load();
                if let Some(plugin) = of_file(routes.plugins(), &file) {
                    tracing::info!(plugin = plugin.name(), file = %file.display(), "removed from the folder");
                    end(inner, plugin);
                }
            }
        }
    }
}

/// Gives a started backend its place: that of the version before it, or a new one.
fn place(inner: &Arc<Inner>, file: &Path, backend: WasmBackend, version: Version) {
    let routes = inner.routes.load_full();
    let name = backend.name().to_owned();
    let limits = version.manifest.limits;
    let before = of_file(routes.plugins(), file);
    let other = routes
        .plugins()
        .find(|plugin| plugin.name() == name && plugin.file() != *file);
    if let Some(other) = other {
        let error = PluginError::NameTaken {
            name,
            other: other.file(),
            manifest: file.with_extension("toml"),
        };
        retire(inner, Arc::new(backend), limits);
        return refuse(inner, file.to_owned(), error);
    }
    match before {
        Some(plugin) if plugin.name() == name => {
            inner.lock_refused().remove(file);
            let old_limits = plugin.limits();
            let old = plugin.replace(backend, version);
            inner
                .routes
                .store(Arc::new(Routes::to(routes.plugins().cloned())));
            tracing::info!(plugin = name, file = %file.display(), "replaced");
            retire(inner, old, old_limits);
        }
        before => {
            let slot = Arc::new(Slot::new(backend));
            let plugin = match Plugin::new(slot.clone(), version, inner.journal.as_ref()) {
                Ok(plugin) => Arc::new(plugin),
                Err(error) => {
                    retire(inner, slot.backend(), limits);
                    return refuse(inner, file.to_owned(), error);
                }
            };
            inner.lock_refused().remove(file);
            let others = routes.plugins().filter(|plugin| plugin.file() != *file);
            let all = others.cloned().chain([plugin]);
            inner.routes.store(Arc::new(Routes::to(all)));
            tracing::info!(plugin = name, file = %file.display(), "loaded");
            if let Some(before) = before {
                tracing::info!(
                    plugin = before.name(),
                    by = name,
                    "replaced by a plugin of another name"
                );
                drain(inner, before.clone());
                reconsider(inner, before.name());
            }
        }
    }
}

/// Notes why a file is not in use. A version before it stays.
fn refuse(inner: &Inner, file: PathBuf, reason: PluginError) {
    let routes = inner.routes.load();
    match of_file(routes.plugins(), &file) {
        Some(plugin) => {
            tracing::warn!(plugin = plugin.name(), file = %file.display(),
                "not replaced, the version before stays: {reason}");
            plugin.set_problem(Some(reason));
        }
        None => {
            let (shown, text) = (file.clone(), reason.to_string());
            let before = inner.lock_refused().insert(file, Arc::new(reason));
            // Some are tried again and again.
            if before.is_none_or(|before| before.to_string() != text) {
                tracing::warn!(file = %shown.display(), "not loaded: {text}");
            }
        }
    }
}

/// Takes a plugin out of the routes, and lets it deliver what waits for it.
fn end(inner: &Arc<Inner>, plugin: &Arc<Plugin>) {
    let routes = inner.routes.load();
    let others = routes.plugins().filter(|other| !Arc::ptr_eq(other, plugin));
    inner.routes.store(Arc::new(Routes::to(others.cloned())));
    drain(inner, plugin.clone());
    reconsider(inner, plugin.name());
}

/// Has the files looked at again that were refused because `name` was taken.
fn reconsider(inner: &Inner, name: &str) {
    let wants_name = |reason: &PluginError| matches!(reason, PluginError::NameTaken { name: wanted, .. } if wanted == name);
    let mut files: Vec<PathBuf> = {
        let refused = inner.lock_refused();
        let refused = refused.iter().filter(|(_, reason)| wants_name(reason));
        refused.map(|(file, _)| file.clone()).collect()
    };
    let routes = inner.routes.load();
    let in_use = routes.plugins().filter(|p| p.has_problem(wants_name));
    files.extend(in_use.map(|plugin| plugin.file()));
    let mut folder = inner.lock_folder();
    for file in &files {
        folder.report_again(file);
    }
}

fn drain(inner: &Arc<Inner>, plugin: Arc<Plugin>) {
    let grace = inner.drain;
    inner.lock_ending().push(plugin.clone());
    let host = inner.clone();
    spawn(inner, async move {
        match plugin.close(grace).await {
            Ok(()) => match plugin.delivery().stats().pending {
                0 => tracing::info!(
                    plugin = plugin.name(),
                    "ended: everything it had taken was delivered or is a dead letter"
                ),
                kept => tracing::warn!(
                    plugin = plugin.name(),
                    kept,
                    "ended: what it has not delivered waits in the journal until a plugin of that \
                     name comes, or is dropped with `backhaul backends forget {}`",
                    plugin.name()
                ),
            },
            Err(error) => tracing::error!(plugin = plugin.name(), "ended: {error}"),
        }
        host.lock_ending()
            .retain(|other| !Arc::ptr_eq(other, &plugin));
    });
}

/// Closes a backend that no call will be given any more.
fn retire(inner: &Arc<Inner>, backend: Arc<WasmBackend>, limits: Limits) {
    // Half of it for the calls under way, half for `close`: each has the plugin's
    // own limit.
    let grace = (limits.timeout * 2).clamp(Duration::from_secs(2), Duration::from_secs(60));
    spawn(inner, async move {
        // What cannot be closed is logged by the backend.
        let _ = backend.close(grace).await;
    });
}

fn spawn(inner: &Inner, task: impl Future<Output = ()> + Send + 'static) {
    let mut tasks = inner.lock_tasks();
    while tasks.try_join_next().is_some() {}
    tasks.spawn(task);
}

impl PluginHost {
    /// Looks at the folder, and starts to do what its changes ask for. Returns
    /// whether something there has not come to rest.
    pub(super) fn look(inner: &Arc<Inner>) -> std::io::Result<bool> {
        // The journal may have room again.
        let for_journal = |reason: &PluginError| matches!(reason, PluginError::Journal(_));
        let refused = inner.lock_refused().clone();
        let again = refused.iter().filter(|(_, reason)| for_journal(reason));
        let mut folder = inner.lock_folder();
        again.for_each(|(file, _)| folder.report_again(file));
        let changes = folder.take_settled(std::time::Instant::now())?;
        let restless = folder.is_restless();
        drop(folder);
        for change in changes {
            spawn(inner, follow(inner.clone(), change));
        }
        Ok(restless)
    }
}
