//! The manifest of a plugin: `NAME.toml` beside `NAME.wasm`.
//!
//! Says which events the plugin gets, what it may touch, and how much it may
//! use. Without the file it gets every event and can touch nothing. What is
//! wrong is refused with file, line and key; values of the environment, which
//! may be secrets, are never part of a message.

mod env;
mod error;
mod raw;
mod retry;
mod tls;
mod values;

use std::collections::HashSet;
use std::io::Read;
use std::ops::Range;
use std::path::Path;

use self::raw::Raw;
use crate::journal::StartAt;
use crate::pattern::Pattern;
use crate::retry::RetryPolicy;
use crate::wasm::{EnvGrant, Grants, Limits};

pub use self::error::ManifestError;

/// The largest manifest and the largest secret file, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What a manifest says, with defaults for what it does not.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// `name`: what the plugin is called, if not what its component says.
    pub name: Option<String>,
    /// `sha256`: the digest its component must have, if it is pinned.
    pub sha256: Option<[u8; 32]>,
    /// `events`: the event types it gets. Default `["*"]`.
    pub events: Vec<Pattern>,
    /// `[grants]`: what it may touch. Default nothing.
    pub grants: Grants,
    /// `[limits]`: how much one instance may use.
    pub limits: Limits,
    /// `limits.batch`: the most events in one publish. Default 256.
    pub batch: usize,
    /// `ordered`: whether events wait for an earlier one that is tried again.
    /// Default true.
    pub ordered: bool,
    /// `from`: where it begins when it is new, if there is a journal. Default now.
    pub from: StartAt,
    /// `[retry]`: when what may work later is tried again. Default: without end.
    pub retry: RetryPolicy,
}

impl Manifest {
    /// Reads the manifest in `file`, and the secret files it names. A file that
    /// does not exist is an empty manifest.
    ///
    /// # Errors
    ///
    /// Names file, line and key.
    pub fn read(file: &Path) -> Result<Manifest, ManifestError> {
        match read_text(file) {
            Ok(text) => Manifest::parse(file, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Manifest::parse(file, ""),
            Err(error) => Err(ManifestError::unreadable(file, &error)),
        }
    }

    /// Reads a manifest from `text`; `file` is named in errors.
    ///
    /// # Errors
    ///
    /// Names file, line and key.
    pub fn parse(file: &Path, text: &str) -> Result<Manifest, ManifestError> {
        let at = |span: Option<Range<usize>>, problem: String| {
            ManifestError::at(file, text, span, problem)
        };
        let raw: Raw =
            toml::from_str(text).map_err(|error| at(error.span(), error.message().to_owned()))?;
        if raw.events.get_ref().is_empty() {
            return Err(at(
                Some(raw.events.span()),
                "names no event type, so the plugin would get nothing; leave it out for every event"
                    .to_owned(),
            ));
        }
        let mut seen = HashSet::new();
        for folder in &raw.grants.files {
            let guest = folder.guest.get_ref();
            if !guest.starts_with('/') || !seen.insert(guest.trim_end_matches('/')) {
                let problem = "is not a path from `/` on, or is there twice".to_owned();
                return Err(at(Some(folder.guest.span()), problem));
            }
            let host = folder.host.get_ref();
            // One that may be written to is made.
            if !folder.write && !host.is_dir() {
                let problem = format!("{} is not a folder, or does not exist", host.display());
                return Err(at(Some(folder.host.span()), problem));
            }
        }
        let mut env = Vec::with_capacity(raw.grants.env.len());
        for (name, value) in raw.grants.env {
            let span = value.span();
            let value = value
                .into_inner()
                .value(&name)
                .map_err(|problem| ManifestError::of(file, text, span, &name, &problem))?;
            env.push(EnvGrant { name, value });
        }
        let tls = raw.tls.roots();
        let tls = tls.map_err(|(span, problem)| at(Some(span), problem))?;
        let retry = raw.retry.policy();
        let retry = retry.map_err(|(span, problem)| at(Some(span), problem))?;
        Ok(Manifest {
            name: raw.name.map(|name| name.0),
            sha256: raw.sha256.map(|digest| digest.0),
            events: raw.events.into_inner(),
            grants: Grants {
                tcp: raw.grants.tcp.into_iter().map(|grant| grant.0).collect(),
                udp: raw.grants.udp.into_iter().map(|grant| grant.0).collect(),
                http: raw.grants.http.into_iter().map(|grant| grant.0).collect(),
                tls,
                files: raw.grants.files.into_iter().map(Into::into).collect(),
                env,
            },
            limits: raw.limits.limits(),
            batch: raw.limits.batch.0,
            ordered: raw.ordered.0,
            from: raw.from.0,
            retry,
        })
    }
}

fn read_text(file: &Path) -> std::io::Result<String> {
    // Opening a pipe would wait for somebody to write to it.
    if !std::fs::metadata(file)?.is_file() {
        return Err(std::io::Error::other("it is not a file"));
    }
    // A file of the system does not say how much it has.
    let mut file = std::fs::File::open(file)?.take(MAX_FILE + 1);
    let mut text = Vec::new();
    if file.read_to_end(&mut text)? as u64 > MAX_FILE {
        let problem = format!("it has more than the {MAX_FILE} bytes allowed");
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            problem,
        ));
    }
    let not_text = |_| std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8");
    String::from_utf8(text).map_err(not_text)
}

#[cfg(test)]
mod tests;
