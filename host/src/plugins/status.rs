//! What is shown of the plugins: to programs over HTTP, to people at the terminal.
//! Values of a plugin's environment are not part of it.

use jiff::Timestamp;
use serde::Serialize;

use super::slot::Quarantine;
use super::{Plugin, PluginHost};
use crate::delivery::DeliveryStats;
use crate::wasm::{DenialReport, Grants, Health, Limits, OutputStats, hex};

/// The plugins folder at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct FolderStatus {
    /// The plugins in use.
    pub plugins: Vec<PluginStatus>,
    /// The files that could not be loaded and have no older version in use.
    pub refused: Vec<RefusedStatus>,
}

/// A file that could not be loaded.
#[derive(Clone, Debug, Serialize)]
pub struct RefusedStatus {
    /// The file.
    pub file: String,
    /// Why, and what to do.
    pub reason: String,
}

/// A plugin at one moment.
#[derive(Clone, Debug, Serialize)]
pub struct PluginStatus {
    /// What it is called.
    pub name: String,
    /// The file it was loaded from.
    pub file: String,
    /// Whether it is at work.
    pub state: PluginState,
    /// Why it was set aside, and since when.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quarantine: Option<Quarantine>,
    /// Why the files that are in the folder now are not in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// SHA-256 of the component.
    pub sha256: String,
    /// When this version was loaded.
    pub loaded: Timestamp,
    /// The event types it gets.
    pub events: Vec<String>,
    /// What it may touch.
    pub grants: GrantsStatus,
    /// How much each of its instances may use.
    pub limits: LimitsStatus,
    /// What it was denied since this version was loaded.
    pub denied: DenialReport,
    /// What it printed since this version was loaded.
    pub output: OutputStats,
    /// How its instances fare since this version was loaded.
    pub instances: Health,
    /// Where its events are.
    pub delivery: DeliveryStats,
}

/// Whether a plugin is at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// It is given events.
    Ready,
    /// It was set aside: its events wait.
    Quarantined,
}

impl PluginState {
    /// The state as a word.
    pub fn as_str(self) -> &'static str {
        match self {
            PluginState::Ready => "ready",
            PluginState::Quarantined => "quarantined",
        }
    }
}

/// What a plugin may touch, as its manifest has it.
#[derive(Clone, Debug, Serialize)]
pub struct GrantsStatus {
    /// TCP servers it may connect to.
    pub tcp: Vec<String>,
    /// UDP servers it may send to.
    pub udp: Vec<String>,
    /// Origins it may send HTTP requests to.
    pub http: Vec<String>,
    /// Folders it sees.
    pub files: Vec<FolderGrantStatus>,
    /// The names of its environment variables.
    pub env: Vec<String>,
}

/// A folder a plugin sees.
#[derive(Clone, Debug, Serialize)]
pub struct FolderGrantStatus {
    /// Where it is.
    pub host: String,
    /// Where the plugin sees it.
    pub guest: String,
    /// Whether it may write there.
    pub write: bool,
}

/// How much an instance may use. Times are in seconds, memory in bytes.
#[derive(Clone, Copy, Debug, Serialize)]
#[allow(missing_docs)] // As in `Limits`.
pub struct LimitsStatus {
    pub memory: u64,
    pub timeout: f64,
    pub start_timeout: f64,
    pub cpu: f64,
    pub compile_timeout: f64,
    pub instances: usize,
    pub handles: usize,
    pub log: u32,
}

impl PluginHost {
    /// The plugins as they are now.
    pub fn status(&self) -> FolderStatus {
        let refused = self.refused().into_iter().map(|refused| RefusedStatus {
            file: refused.file.display().to_string(),
            reason: refused.reason.to_string(),
        });
        FolderStatus {
            plugins: self
                .plugins()
                .iter()
                .map(|plugin| plugin.status())
                .collect(),
            refused: refused.collect(),
        }
    }
}

impl Plugin {
    /// The plugin as it is now.
    pub fn status(&self) -> PluginStatus {
        let version = self.version();
        let backend = self.backend();
        let quarantine = self.quarantine();
        let manifest = &version.manifest;
        PluginStatus {
            name: self.name().to_owned(),
            file: version.file.display().to_string(),
            state: match quarantine {
                Some(_) => PluginState::Quarantined,
                None => PluginState::Ready,
            },
            quarantine,
            problem: self.problem(),
            sha256: hex(&version.sha256),
            loaded: version.loaded,
            events: manifest
                .events
                .iter()
                .map(|p| p.as_str().to_owned())
                .collect(),
            grants: (&manifest.grants).into(),
            limits: manifest.limits.into(),
            denied: backend.denied(),
            output: backend.output(),
            instances: backend.health(),
            delivery: self.delivery().stats(),
        }
    }
}

impl From<&Grants> for GrantsStatus {
    fn from(grants: &Grants) -> GrantsStatus {
        let folder = |grant: &crate::wasm::FileGrant| FolderGrantStatus {
            host: grant.host.display().to_string(),
            guest: grant.guest.clone(),
            write: grant.write,
        };
        GrantsStatus {
            tcp: grants.tcp.iter().map(ToString::to_string).collect(),
            udp: grants.udp.iter().map(ToString::to_string).collect(),
            http: grants.http.iter().map(ToString::to_string).collect(),
            files: grants.files.iter().map(folder).collect(),
            env: grants
                .env
                .iter()
                .map(|variable| variable.name.clone())
                .collect(),
        }
    }
}

impl From<Limits> for LimitsStatus {
    fn from(limits: Limits) -> LimitsStatus {
        LimitsStatus {
            memory: limits.memory,
            timeout: limits.timeout.as_secs_f64(),
            start_timeout: limits.start_timeout.as_secs_f64(),
            cpu: limits.cpu.as_secs_f64(),
            compile_timeout: limits.compile_timeout.as_secs_f64(),
            instances: limits.instances,
            handles: limits.handles,
            log: limits.log,
        }
    }
}
