//! What is wrong with a manifest, with the place in it.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What is wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    file: PathBuf,
    line: Option<usize>,
    problem: String,
}

impl ManifestError {
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> ManifestError {
        ManifestError {
            file: file.to_owned(),
            line: None,
            problem: format!("cannot be read: {error}"),
        }
    }

    /// The problem of what stands at `span` of the manifest's `text`.
    pub(super) fn at(
        file: &Path,
        text: &str,
        span: Option<Range<usize>>,
        problem: String,
    ) -> ManifestError {
        ManifestError {
            file: file.to_owned(),
            line: span.as_ref().map(|span| line_of(text, span.start)),
            problem: match span.and_then(|span| key_at(text, span.start)) {
                Some(key) => format!("`{key}`: {problem}"),
                None => problem,
            },
        }
    }

    /// The problem of the value of `key`, which stands at `span`.
    pub(super) fn of(
        file: &Path,
        text: &str,
        span: Range<usize>,
        key: &str,
        problem: &str,
    ) -> ManifestError {
        ManifestError {
            file: file.to_owned(),
            line: Some(line_of(text, span.start)),
            problem: format!("`{key}`: {problem}"),
        }
    }
}

impl fmt::Display for ManifestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ManifestError {}

/// The line of a position, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// The manifest's own keys. Only these are looked for in the text: what stands
/// before a `=` there may be a part of a value, and the value a secret.
const KEYS: [&str; 29] = [
    "name",
    "events",
    "sha256",
    "ordered",
    "from",
    "tcp",
    "udp",
    "http",
    "files",
    "host",
    "guest",
    "write",
    "env",
    "roots",
    "memory",
    "timeout",
    "start_timeout",
    "compile_timeout",
    "cpu",
    "instances",
    "handles",
    "log",
    "batch",
    "first_delay",
    "max_delay",
    "multiplier",
    "attempts",
    "max_age",
    "file",
];

/// The key whose value stands at a position, as far as its line tells.
fn key_at(text: &str, at: usize) -> Option<&str> {
    let before = text.get(..at)?;
    let line = before.rsplit('\n').next()?;
    let (before, _) = line.rsplit_once('=')?;
    let key = before.trim_end().rsplit([' ', '{', ',', '\t']).next()?;
    KEYS.contains(&key).then_some(key)
}
