//! From a file in the plugins folder to a started backend.
//!
//! Two steps, so that a file that has not changed in substance is not started
//! again: `read` takes what is there, `start` runs it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::error::PluginError;
use super::folder::Stamp;
use super::folder_grants::check_folders;
use super::manifest::Manifest;
use crate::delivery::DeliveryOptions;
use crate::wasm::{WasmBackend, WasmEngine, hex, read_component};

/// What was read from the files of a plugin.
pub(super) struct Source {
    pub(super) file: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) sha256: [u8; 32],
    wasm: Vec<u8>,
}

/// What a plugin was started from.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) file: PathBuf,
    pub(super) manifest: Manifest,
    pub(super) sha256: [u8; 32],
    pub(super) loaded: Timestamp,
}

impl Source {
    /// Reads `file` and its manifest, which are to have `stamp`.
    pub(super) fn read(file: &Path, stamp: &Stamp) -> Result<Source, PluginError> {
        let manifest_file = file.with_extension("toml");
        let manifest = Manifest::read(&manifest_file)?;
        let wasm = read_component(file).map_err(PluginError::Read)?;
        if Stamp::of(file).as_ref() != Some(stamp) {
            return Err(PluginError::Changing);
        }
        let sha256: [u8; 32] = Sha256::digest(&wasm).into();
        if let Some(pinned) = manifest.sha256.filter(|pinned| *pinned != sha256) {
            return Err(PluginError::WrongHash {
                manifest: manifest_file,
                pinned: hex(&pinned),
                actual: hex(&sha256),
            });
        }
        Ok(Source {
            file: file.to_owned(),
            manifest,
            sha256,
            wasm,
        })
    }

    /// Whether `version` was started from the same component and manifest.
    pub(super) fn is(&self, version: &Version) -> bool {
        self.sha256 == version.sha256 && self.manifest == version.manifest
    }

    /// Compiles the component if need be, and starts its first instance.
    pub(super) async fn start(
        self,
        engine: &WasmEngine,
        journal: Option<&Path>,
    ) -> Result<(WasmBackend, Version), PluginError> {
        let Source {
            file,
            manifest,
            sha256,
            wasm,
        } = self;
        check_folders(&file, &manifest, engine, journal)?;
        let limit = manifest.limits.compile_timeout;
        let component = engine.load_within(wasm, limit).await?;
        let label = file.file_stem().unwrap_or_default().to_string_lossy();
        let grants = manifest.grants.clone();
        let backend = WasmBackend::start(component, &label, grants, manifest.limits).await?;
        let backend = match &manifest.name {
            Some(name) => backend.named(name),
            None => backend,
        };
        let version = Version {
            file,
            manifest,
            sha256,
            loaded: Timestamp::now(),
        };
        Ok((backend, version))
    }
}

impl Version {
    pub(super) fn delivery_options(&self) -> DeliveryOptions {
        let Manifest {
            limits,
            batch,
            ordered,
            retry,
            ..
        } = &self.manifest;
        let defaults = DeliveryOptions::default();
        DeliveryOptions {
            batch: *batch,
            // The guest holds the batch, what it makes of it, and itself.
            batch_bytes: defaults.batch_bytes.min((limits.memory / 8) as usize),
            workers: limits.instances,
            ordered: *ordered,
            retry: *retry,
            ..defaults
        }
    }
}
