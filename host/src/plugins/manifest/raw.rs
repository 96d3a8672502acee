//! The shape of a manifest as TOML: its tables, keys and their types.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use toml::Spanned;

use super::env::{Source, variables};
use super::retry::RawRetry;
use super::tls::RawTls;
use super::values::{Count, Sha256, Size, Span};
use crate::journal::StartAt;
use crate::pattern::Pattern;
use crate::wasm::{FileGrant, HttpGrant, Limits, SocketGrant, is_name};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Raw {
    pub(super) name: Option<RawName>,
    pub(super) sha256: Option<Sha256>,
    #[serde(default = "every_event")]
    pub(super) events: Spanned<Vec<Pattern>>,
    #[serde(default)]
    pub(super) ordered: Switch,
    #[serde(default)]
    pub(super) from: RawStart,
    #[serde(default)]
    pub(super) grants: RawGrants,
    #[serde(default)]
    pub(super) tls: RawTls,
    #[serde(default)]
    pub(super) limits: RawLimits,
    #[serde(default)]
    pub(super) retry: RawRetry,
}

fn every_event() -> Spanned<Vec<Pattern>> {
    Spanned::new(0..0, vec![Pattern::any()])
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawGrants {
    pub(super) tcp: Vec<RawSocket>,
    pub(super) udp: Vec<RawDatagrams>,
    pub(super) http: Vec<RawOrigin>,
    pub(super) files: Vec<RawFolder>,
    #[serde(deserialize_with = "variables")]
    pub(super) env: BTreeMap<String, Spanned<Source>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RawFolder {
    pub(super) host: Spanned<PathBuf>,
    pub(super) guest: Spanned<String>,
    #[serde(default)]
    pub(super) write: bool,
}

impl From<RawFolder> for FileGrant {
    fn from(RawFolder { host, guest, write }: RawFolder) -> FileGrant {
        FileGrant {
            host: host.into_inner(),
            guest: guest.into_inner(),
            write,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLimits {
    pub(super) memory: Size,
    pub(super) timeout: Span<1>,
    pub(super) start_timeout: Span<1>,
    pub(super) cpu: Span<10>,
    pub(super) compile_timeout: Span<100>,
    pub(super) instances: Count<1, 64>,
    pub(super) handles: Count<16, 4096>,
    pub(super) log: Count<1, 10_000>,
    pub(super) batch: Count<1, 10_000>,
}

impl RawLimits {
    pub(super) fn limits(&self) -> Limits {
        Limits {
            memory: self.memory.0,
            timeout: self.timeout.0,
            start_timeout: self.start_timeout.0,
            cpu: self.cpu.0,
            compile_timeout: self.compile_timeout.0,
            instances: self.instances.0,
            handles: self.handles.0,
            log: self.log.0 as u32,
        }
    }
}

impl Default for RawLimits {
    fn default() -> RawLimits {
        let Limits {
            memory,
            timeout,
            start_timeout,
            cpu,
            compile_timeout,
            instances,
            handles,
            log,
        } = Limits::default();
        let batch = crate::delivery::DeliveryOptions::default().batch;
        RawLimits {
            memory: Size(memory),
            timeout: Span(timeout),
            start_timeout: Span(start_timeout),
            cpu: Span(cpu),
            compile_timeout: Span(compile_timeout),
            instances: Count(instances),
            handles: Count(handles),
            log: Count(log as usize),
            batch: Count(batch),
        }
    }
}

/// `true`, the default, or `false`.
pub(super) struct Switch(pub(super) bool);

impl Default for Switch {
    fn default() -> Switch {
        Switch(true)
    }
}

impl<'de> Deserialize<'de> for Switch {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Switch, D::Error> {
        let wrong = |_| D::Error::custom("is not true or false");
        bool::deserialize(deserializer).map(Switch).map_err(wrong)
    }
}

#[derive(Default)]
pub(super) struct RawStart(pub(super) StartAt);

impl<'de> Deserialize<'de> for RawStart {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawStart, D::Error> {
        let wrong = |_| D::Error::custom("is neither \"now\" nor \"oldest\"");
        let start = StartAt::deserialize(deserializer);
        start.map(RawStart).map_err(wrong)
    }
}

pub(super) struct RawName(pub(super) String);

impl<'de> Deserialize<'de> for RawName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawName, D::Error> {
        let name = String::deserialize(deserializer)?;
        match is_name(&name) {
            true => Ok(RawName(name)),
            false => Err(D::Error::custom(
                "a name has 1 to 64 characters of a-z, 0-9, `.`, `_` and `-`",
            )),
        }
    }
}

pub(super) struct RawSocket(pub(super) SocketGrant);

impl<'de> Deserialize<'de> for RawSocket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawSocket, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(RawSocket)
            .map_err(D::Error::custom)
    }
}

/// As for TCP, but without TLS.
pub(super) struct RawDatagrams(pub(super) SocketGrant);

impl<'de> Deserialize<'de> for RawDatagrams {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawDatagrams, D::Error> {
        let RawSocket(grant) = RawSocket::deserialize(deserializer)?;
        match grant.is_tls() {
            true => Err(D::Error::custom(format!(
                "{:?} has TLS, which is for TCP alone; write HOST:PORT",
                grant.to_string()
            ))),
            false => Ok(RawDatagrams(grant)),
        }
    }
}

pub(super) struct RawOrigin(pub(super) HttpGrant);

impl<'de> Deserialize<'de> for RawOrigin {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawOrigin, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(RawOrigin)
            .map_err(D::Error::custom)
    }
}
