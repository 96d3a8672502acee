//! The plugins folder: every `NAME.wasm` in it, with its `NAME.toml`.
//!
//! [`PluginHost`] loads them and is the [`AsyncBackend`] that fans events out,
//! one [`Delivery`] for each plugin. What a plugin may do stands in its
//! manifest (`manifest`) and is enforced by `wasm`.

mod manifest;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::join_all;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::delivery::{Delivery, DeliveryOptions};
use crate::event::Event;
use crate::pattern::Pattern;
use crate::wasm::{Grants, LoadError, WasmBackend, WasmEngine};

pub use manifest::{Manifest, ManifestError};

/// The largest component that is loaded, in bytes. Compiling takes time and
/// memory in proportion; a whole Python interpreter is under 25 MB.
const MAX_COMPONENT: u64 = 128 << 20;

/// The plugins of one folder, as a backend: each event goes to every plugin
/// whose manifest names its type.
///
/// A batch is taken by all plugins concerned or by none. An event that no
/// plugin takes is refused: carrying it nowhere would be losing it.
#[derive(Debug)]
pub struct PluginHost {
    plugins: Vec<Plugin>,
    refused: Vec<RefusedPlugin>,
}

/// A plugin that was loaded.
pub struct Plugin {
    /// What it is called: the manifest's `name`, else what the component says.
    pub name: String,
    /// Its file.
    pub file: PathBuf,
    /// The event types it gets.
    pub events: Vec<Pattern>,
    /// What it may touch. Shown without the values of its environment.
    pub grants: Grants,
    /// The way events take to it, with its figures.
    pub delivery: Delivery,
}

/// A file of the folder that could not be loaded.
#[derive(Debug)]
pub struct RefusedPlugin {
    /// The file.
    pub file: PathBuf,
    /// Why, and what to do.
    pub reason: PluginError,
}

/// Why a plugin was not loaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PluginError {
    /// The file cannot be read.
    #[error("the file cannot be read: {0}")]
    Read(#[source] std::io::Error),

    /// The file is larger than any component should be.
    #[error("the file has {0} bytes; the largest component that is loaded has {MAX_COMPONENT}")]
    TooLarge(u64),

    /// Its manifest is wrong.
    #[error(transparent)]
    Manifest(#[from] ManifestError),

    /// Its component is not a backend, or does not start.
    #[error(transparent)]
    Load(#[from] LoadError),

    /// It would be granted to write where the host keeps what it trusts.
    #[error(
        "{}: the plugin may not write to {}, which holds or lies in {}: it could change what the host runs",
        manifest.display(), folder.display(), own.display()
    )]
    OwnFolder {
        /// The manifest with the grant.
        manifest: PathBuf,
        /// The folder it grants.
        folder: PathBuf,
        /// The plugins folder, or where compiled code is kept.
        own: PathBuf,
    },

    /// Another plugin has the name.
    #[error(
        "its name `{name}` is taken by {}; give this one another: write `name = \"...\"` at the top of {}",
        other.display(), manifest.display()
    )]
    NameTaken {
        /// The name both have.
        name: String,
        /// The file of the plugin that has it.
        other: PathBuf,
        /// The manifest to write another name in.
        manifest: PathBuf,
    },
}

impl PluginHost {
    /// Loads every `*.wasm` of `folder`, in the order of their names. One that
    /// cannot be loaded is [`refused`](Self::refused) and does not keep the
    /// others from loading.
    ///
    /// # Errors
    ///
    /// If the folder itself cannot be read.
    pub async fn load(folder: &Path, engine: &WasmEngine) -> std::io::Result<PluginHost> {
        let mut host = PluginHost {
            plugins: Vec::new(),
            refused: Vec::new(),
        };
        let mut names = BTreeMap::new();
        for file in components_in(folder)? {
            match load(&file, engine, &names).await {
                Ok(plugin) => {
                    names.insert(plugin.name.clone(), file);
                    host.plugins.push(plugin);
                }
                Err(reason) => host.refused.push(RefusedPlugin { file, reason }),
            }
        }
        Ok(host)
    }

    /// The plugins that were loaded.
    pub fn plugins(&self) -> &[Plugin] {
        &self.plugins
    }

    /// The files that could not be loaded. Show them: nothing else does.
    pub fn refused(&self) -> &[RefusedPlugin] {
        &self.refused
    }

    /// Every event must have a plugin that takes it.
    fn check_routes(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        if self.plugins.is_empty() {
            let error = PublishError::Retryable("no plugin is loaded".to_owned());
            return Err(Failure::all(events.len(), &error));
        }
        let unrouted = |event: &Event| !self.plugins.iter().any(|plugin| plugin.takes(event));
        if !events.iter().any(unrouted) {
            return Ok(());
        }
        let failure = |(index, event): (usize, &Event)| {
            let error = match unrouted(event) {
                true => PublishError::Permanent(format!(
                    "no plugin takes events of type `{}`; see `events` in the plugins' manifests",
                    event.event_type()
                )),
                false => PublishError::Retryable(
                    "another event of the batch was refused, and a batch is taken whole".to_owned(),
                ),
            };
            Failure { index, error }
        };
        Err(events.iter().enumerate().map(failure).collect())
    }
}

impl Plugin {
    fn takes(&self, event: &Event) -> bool {
        self.events
            .iter()
            .any(|pattern| pattern.matches(event.event_type()))
    }
}

#[async_trait]
impl AsyncBackend for PluginHost {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        self.check_routes(events)?;
        let mut places = Vec::with_capacity(self.plugins.len());
        for plugin in &self.plugins {
            let taken: Vec<Event> = events
                .iter()
                .filter(|event| plugin.takes(event))
                .cloned()
                .collect();
            if taken.is_empty() {
                continue;
            }
            // If a later plugin has no room, the places taken so far are free
            // again when `places` is dropped.
            let place = plugin.delivery.reserve(&taken);
            let place = place.map_err(|error| Failure::all(events.len(), &error))?;
            places.push((&plugin.delivery, place, taken));
        }
        for (delivery, place, taken) in places {
            delivery.accept(place, taken);
        }
        Ok(())
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let closing = self
            .plugins
            .iter()
            .map(|plugin| plugin.delivery.close(grace));
        let errors: Vec<CloseError> = join_all(closing)
            .await
            .into_iter()
            .filter_map(Result::err)
            .collect();
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

fn components_in(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "wasm")
            && !path.is_dir()
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// Loads one plugin; `names` are the names taken, with the files that have them.
async fn load(
    file: &Path,
    engine: &WasmEngine,
    names: &BTreeMap<String, PathBuf>,
) -> Result<Plugin, PluginError> {
    let manifest_file = file.with_extension("toml");
    let manifest = Manifest::read(&manifest_file)?;
    let size = std::fs::metadata(file).map_err(PluginError::Read)?.len();
    if size > MAX_COMPONENT {
        return Err(PluginError::TooLarge(size));
    }
    let wasm = std::fs::read(file).map_err(PluginError::Read)?;
    let component = engine.load(wasm).await?;
    let label = file.file_stem().unwrap_or_default().to_string_lossy();
    let Manifest {
        name,
        events,
        grants,
        limits,
        batch,
    } = manifest;
    for own in [file.parent(), engine.cache()].into_iter().flatten() {
        if let Some(grant) = grants
            .files
            .iter()
            .find(|grant| grant.write && overlap(&grant.host, own))
        {
            return Err(PluginError::OwnFolder {
                manifest: manifest_file,
                folder: grant.host.clone(),
                own: own.to_owned(),
            });
        }
    }
    let backend = WasmBackend::start(component, &label, grants.clone(), limits).await?;
    let backend = match name {
        Some(name) => backend.named(name),
        None => backend,
    };
    let name = backend.name().to_owned();
    if let Some(other) = names.get(&name) {
        return Err(PluginError::NameTaken {
            name,
            other: other.clone(),
            manifest: manifest_file,
        });
    }
    let defaults = DeliveryOptions::default();
    let options = DeliveryOptions {
        batch,
        // The guest holds the batch, what it makes of it, and itself.
        batch_bytes: defaults.batch_bytes.min((limits.memory / 8) as usize),
        workers: limits.instances,
        ..defaults
    };
    let delivery = Delivery::new(backend, options);
    Ok(Plugin {
        name,
        file: file.to_owned(),
        events,
        grants,
        delivery,
    })
}

/// Whether one of two folders holds the other.
fn overlap(one: &Path, other: &Path) -> bool {
    let (one, other) = (resolved(one), resolved(other));
    one.starts_with(&other) || other.starts_with(&one)
}

/// The path without links and `..`, as far as it exists.
fn resolved(path: &Path) -> PathBuf {
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    for ancestor in path.ancestors() {
        if let Ok(real) = ancestor.canonicalize() {
            let rest = path.strip_prefix(ancestor).unwrap_or(Path::new(""));
            return real.join(rest);
        }
    }
    path
}

impl fmt::Debug for Plugin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plugin")
            .field("name", &self.name)
            .field("file", &self.file)
            .finish_non_exhaustive()
    }
}
