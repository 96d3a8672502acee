//! What a plugin was denied: counted, and explained once in the log with the
//! line of its manifest that would allow it.
//!
//! What was tried comes from the guest, so every text is made printable and cut
//! off, and only so many different denials are kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::Serialize;

use crate::wasm::secrets::Secrets;

/// How many different denials of one plugin are kept and logged; a guest that
/// tries every address there is fills neither memory nor log.
const MAX_DENIALS: usize = 100;

/// The longest target that is kept, in bytes. A domain name has at most 253
/// characters, a longer path is cut off.
const MAX_TARGET: usize = 256;

/// What was denied to one plugin, over all its instances.
#[derive(Debug)]
pub struct Denials {
    plugin: Arc<str>,
    /// What must not be shown even if the guest makes it a target.
    secrets: Secrets,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    total: u64,
    kept: HashMap<(DenialKind, String), Kept>,
}

#[derive(Debug)]
struct Kept {
    count: u64,
    allow: Option<String>,
}

/// What kind of thing was denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum DenialKind {
    /// A TCP connection; the target is an address and a port.
    Tcp,
    /// A UDP socket, or a datagram to an address and a port.
    Udp,
    /// An HTTP request; the target is an origin.
    Http,
    /// The look-up of a name.
    Name,
    /// Waiting for connections at an address.
    Listen,
    /// A file or folder; the target is its path as far as the host knows it.
    Files,
}

/// One thing a plugin was denied.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Denial {
    /// What kind of thing.
    pub kind: DenialKind,
    /// Which one; printable, at most some 256 bytes.
    pub target: String,
    /// How often.
    pub count: u64,
    /// The line that would allow it, to be written under `[grants]` in the
    /// plugin's manifest; `None` if no grant would.
    pub allow: Option<String>,
}

/// What a plugin was denied up to now.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DenialReport {
    /// How often anything was denied.
    pub total: u64,
    /// What was denied, by kind and target. At most 100 different ones are
    /// kept; what came later is in `total` alone.
    pub denials: Vec<Denial>,
}

/// What is said of a denial when it is the first of its kind and target.
pub(in crate::wasm) struct Explanation {
    /// Completes "it tried to".
    pub(in crate::wasm) tried: String,
    /// The line to write under `[grants]`, if one would allow it.
    pub(in crate::wasm) allow: Option<String>,
}

impl Denials {
    pub(in crate::wasm) fn new(plugin: Arc<str>, secrets: Secrets) -> Denials {
        Denials {
            plugin,
            secrets,
            counted: Mutex::default(),
        }
    }

    /// What the plugin is called in the log.
    pub(in crate::wasm) fn plugin(&self) -> &str {
        &self.plugin
    }

    /// Counts a denial. If it is the first of its kind and target, `explain` is
    /// given the target, made printable, and what it says is logged.
    pub(in crate::wasm) fn report(
        &self,
        kind: DenialKind,
        target: &str,
        explain: impl FnOnce(&str) -> Explanation,
    ) {
        let target = self.secrets.printable(target, MAX_TARGET);
        let mut counted = self.lock();
        counted.total = counted.total.saturating_add(1);
        let full = counted.kept.len() >= MAX_DENIALS;
        let key = (kind, target);
        if let Some(kept) = counted.kept.get_mut(&key) {
            kept.count = kept.count.saturating_add(1);
            return;
        }
        if full {
            return;
        }
        let Explanation { tried, allow } = explain(&key.1);
        let plugin = &*self.plugin;
        match &allow {
            None => tracing::warn!(
                plugin,
                "denied: it tried to {tried}, which no manifest can grant"
            ),
            Some(line) => tracing::warn!(
                plugin,
                "denied: it tried to {tried}; to allow that, write in {plugin}.toml, \
                 under [grants]: {line}"
            ),
        }
        counted.kept.insert(key, Kept { count: 1, allow });
        if counted.kept.len() == MAX_DENIALS {
            tracing::warn!(
                plugin,
                "it was denied {MAX_DENIALS} different things; further ones are only counted"
            );
        }
    }

    /// What was denied up to now, in the order of kinds and targets.
    pub fn snapshot(&self) -> DenialReport {
        let counted = self.lock();
        let denial = |((kind, target), kept): (&(DenialKind, String), &Kept)| Denial {
            kind: *kind,
            target: target.clone(),
            count: kept.count,
            allow: kept.allow.clone(),
        };
        let mut denials: Vec<Denial> = counted.kept.iter().map(denial).collect();
        denials.sort_by(|one, other| (one.kind, &one.target).cmp(&(other.kind, &other.target)));
        DenialReport {
            total: counted.total,
            denials,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Counted> {
        // Nothing under this lock can leave the counts half changed.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Display for DenialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            DenialKind::Tcp => "tcp",
            DenialKind::Udp => "udp",
            DenialKind::Http => "http",
            DenialKind::Name => "name",
            DenialKind::Listen => "listen",
            DenialKind::Files => "files",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deny(denials: &Denials, kind: DenialKind, target: &str) -> bool {
        let mut explained = false;
        denials.report(kind, target, |target| {
            explained = true;
            Explanation {
                tried: format!("reach {target}"),
                allow: None,
            }
        });
        explained
    }

    fn denials() -> Denials {
        Denials::new("test".into(), Secrets::default())
    }

    #[test]
    fn a_denial_is_explained_once_and_counted_always() {
        let denials = denials();
        assert!(deny(&denials, DenialKind::Tcp, "a:1"));
        assert!(!deny(&denials, DenialKind::Tcp, "a:1"));
        assert!(deny(&denials, DenialKind::Udp, "a:1"), "another kind");
        let report = denials.snapshot();
        assert_eq!(report.total, 3);
        let counts: Vec<_> = report.denials.iter().map(|denial| denial.count).collect();
        assert_eq!(counts, [2, 1]);
    }

    #[test]
    fn only_so_many_are_kept_and_all_are_counted() {
        let denials = denials();
        for n in 0..1000 {
            deny(&denials, DenialKind::Name, &n.to_string());
        }
        assert!(!deny(&denials, DenialKind::Name, "0"), "it is known");
        let report = denials.snapshot();
        assert_eq!((report.total, report.denials.len()), (1001, MAX_DENIALS));
        let first = report.denials.iter().find(|denial| denial.target == "0");
        assert_eq!(first.map(|denial| denial.count), Some(2));
    }

    #[test]
    fn a_target_is_cut_off_and_cannot_forge_a_line() {
        let denials = denials();
        deny(&denials, DenialKind::Name, &"x".repeat(1 << 20));
        deny(&denials, DenialKind::Files, "/in\nINFO all is well\u{202e}");
        let report = denials.snapshot();
        assert!(
            report
                .denials
                .iter()
                .all(|denial| denial.target.len() < 300)
        );
        assert_eq!(
            report.denials[1].target,
            "/in\\u{a}INFO all is well\\u{202e}"
        );
    }

    #[test]
    fn a_secret_in_a_target_is_not_shown() {
        let grants = crate::wasm::Grants {
            env: vec![crate::wasm::EnvGrant::secret("PASSWORD", "hunter2")],
            ..Default::default()
        };
        let denials = Denials::new("test".into(), Secrets::of(&grants));
        deny(&denials, DenialKind::Name, "hunter2.evil.example");
        assert_eq!(denials.snapshot().denials[0].target, "***.evil.example");
    }

    #[test]
    fn a_report_is_json_with_the_words_of_the_manifest() {
        let denials = denials();
        deny(&denials, DenialKind::Listen, "0.0.0.0:80");
        let shown = serde_json::to_value(denials.snapshot()).unwrap();
        let expected = serde_json::json!({
            "total": 1,
            "denials": [{ "kind": "listen", "target": "0.0.0.0:80", "count": 1, "allow": null }],
        });
        assert_eq!(shown, expected);
    }
}
