//! The backend that is tried: its component, with what its manifest grants, started
//! as a host starts it, and in the ways a case wants it.

use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::VerifyError;
use super::profile::Variables;
use crate::backend::AsyncBackend;
use crate::delivery::DeliveryOptions;
use crate::plugins::{Manifest, PluginError, check_folders};
use crate::wasm::{
    Component, EnvGrant, Grants, LoadError, WasmBackend, WasmEngine, hex, read_component,
};

pub(super) struct Target {
    pub(super) file: PathBuf,
    pub(super) manifest: Manifest,
    component: Component,
    /// What its component calls itself.
    pub(super) name: String,
}

/// What is other than the manifest has it, for one case.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    /// Variables in place of the manifest's.
    pub(super) env: Variables,
    /// How many instances may run side by side.
    pub(super) instances: Option<usize>,
}

impl Target {
    /// Loads `file` as `manifest_file` says.
    ///
    /// # Errors
    ///
    /// If a host would refuse it.
    pub(super) async fn load(
        engine: &WasmEngine,
        file: &Path,
        manifest_file: &Path,
    ) -> Result<Target, VerifyError> {
        let refused = |error: PluginError| VerifyError::Refused {
            file: file.to_owned(),
            reason: error.to_string(),
        };
        let manifest = Manifest::read(manifest_file).map_err(|error| refused(error.into()))?;
        let wasm = read_component(file).map_err(|error| refused(PluginError::Read(error)))?;
        let sha256: [u8; 32] = Sha256::digest(&wasm).into();
        if let Some(pinned) = manifest.sha256.filter(|pinned| *pinned != sha256) {
            return Err(refused(PluginError::WrongHash {
                manifest: manifest_file.to_owned(),
                pinned: hex(&pinned),
                actual: hex(&sha256),
            }));
        }
        check_folders(file, &manifest, engine, None).map_err(refused)?;
        let loaded = engine
            .load_within(wasm, manifest.limits.compile_timeout)
            .await;
        let component = loaded.map_err(|error| refused(error.into()))?;
        let mut target = Target {
            file: file.to_owned(),
            manifest,
            component,
            name: String::new(),
        };
        let started = target.start(Changes::default()).await;
        let backend = started.map_err(|error| refused(error.into()))?;
        backend.name().clone_into(&mut target.name);
        let _ = backend.close(target.manifest.limits.timeout).await;
        Ok(target)
    }

    /// Starts it as the manifest says, but for `changes`.
    pub(super) async fn start(&self, changes: Changes) -> Result<WasmBackend, LoadError> {
        let Manifest { grants, limits, .. } = &self.manifest;
        let mut limits = *limits;
        if let Some(instances) = changes.instances {
            limits.instances = instances;
        }
        let component = self.component.clone();
        let label = self.file.file_stem().unwrap_or_default().to_string_lossy();
        WasmBackend::start(component, &label, with(grants, changes.env), limits).await
    }

    /// The variables it is granted.
    pub(super) fn env(&self) -> Variables {
        let env = self.manifest.grants.env.iter();
        env.map(|grant| (grant.name.clone(), grant.value.reveal().to_owned()))
            .collect()
    }

    /// The most events, and the most bytes of them, a host puts into one batch.
    pub(super) fn largest_batch(&self) -> (usize, usize) {
        let bytes = DeliveryOptions::default().batch_bytes;
        let of_memory = self.manifest.limits.memory / 8;
        let bytes = bytes.min(usize::try_from(of_memory).unwrap_or(usize::MAX));
        (self.manifest.batch, bytes)
    }

    /// Whether it is granted any server.
    pub(super) fn has_server(&self) -> bool {
        let grants = &self.manifest.grants;
        !grants.tcp.is_empty() || !grants.http.is_empty()
    }
}

/// `grants` with these variables in place of those of the same name. They stay hidden
/// where one of the manifest's is.
fn with(grants: &Grants, env: Variables) -> Grants {
    let mut grants = grants.clone();
    grants.env.retain(|grant| !env.contains_key(&grant.name));
    let env = env.into_iter();
    grants
        .env
        .extend(env.map(|(name, value)| EnvGrant::plain(name, value)));
    grants
}
