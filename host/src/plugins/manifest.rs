//! The manifest of a plugin: `NAME.toml` beside `NAME.wasm`.
//!
//! Says which events the plugin gets, what it may touch, and how much it may
//! use. Without the file it gets every event and can touch nothing. What is
//! wrong is refused with file, line and key; values of the environment, which
//! may be secrets, are never part of a message.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use toml::Spanned;

use crate::pattern::Pattern;
use crate::wasm::{FileGrant, Grants, Limits, TcpGrant, is_name};

/// The largest manifest and the largest secret file, in bytes.
const MAX_FILE: u64 = 64 << 10;

/// What a manifest says, with defaults for what it does not.
#[derive(Clone, Debug)]
pub struct Manifest {
    /// `name`: what the plugin is called, if not what its component says.
    pub name: Option<String>,
    /// `events`: the event types it gets. Default `["*"]`.
    pub events: Vec<Pattern>,
    /// `[grants]`: what it may touch. Default nothing.
    pub grants: Grants,
    /// `[limits]`: how much one instance may use.
    pub limits: Limits,
    /// `limits.batch`: the most events in one publish. Default 256.
    pub batch: usize,
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
            Err(error) => Err(ManifestError {
                file: file.to_owned(),
                line: None,
                problem: format!("cannot be read: {error}"),
            }),
        }
    }

    /// Reads a manifest from `text`; `file` is named in errors.
    ///
    /// # Errors
    ///
    /// Names file, line and key.
    pub fn parse(file: &Path, text: &str) -> Result<Manifest, ManifestError> {
        let at = |span: Option<Range<usize>>, problem: String| ManifestError {
            file: file.to_owned(),
            line: span.as_ref().map(|span| line_of(text, span.start)),
            problem: match span.and_then(|span| key_at(text, span.start)) {
                Some(key) => format!("`{key}`: {problem}"),
                None => problem,
            },
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
            let value = match value.into_inner() {
                EnvValue::Text(text) => text,
                EnvValue::File(path) => read_text(&path)
                    .map_err(|error| {
                        at(
                            Some(span.clone()),
                            format!("the file {} cannot be read: {error}", path.display()),
                        )
                    })?
                    .trim_end_matches(['\r', '\n'])
                    .to_owned(),
            };
            if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
                let problem = "a variable's name may not be empty or hold `=`, and neither name nor \
                    value may hold a NUL character";
                return Err(at(Some(span), problem.to_owned()));
            }
            env.push((name, value));
        }
        Ok(Manifest {
            name: raw.name.map(|name| name.0),
            events: raw.events.into_inner(),
            grants: Grants {
                tcp: raw.grants.tcp.into_iter().map(|grant| grant.0).collect(),
                files: raw.grants.files.into_iter().map(Into::into).collect(),
                env,
            },
            limits: Limits {
                memory: raw.limits.memory.0,
                timeout: raw.limits.timeout.0,
                instances: raw.limits.instances.0,
            },
            batch: raw.limits.batch.0,
        })
    }
}

/// What is wrong with a manifest, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestError {
    file: PathBuf,
    line: Option<usize>,
    problem: String,
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    name: Option<RawName>,
    #[serde(default = "every_event")]
    events: Spanned<Vec<Pattern>>,
    #[serde(default)]
    grants: RawGrants,
    #[serde(default)]
    limits: RawLimits,
}

fn every_event() -> Spanned<Vec<Pattern>> {
    Spanned::new(0..0, vec![Pattern::any()])
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawGrants {
    tcp: Vec<RawTcp>,
    files: Vec<RawFolder>,
    env: BTreeMap<String, Spanned<EnvValue>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFolder {
    host: Spanned<PathBuf>,
    guest: Spanned<String>,
    #[serde(default)]
    write: bool,
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
struct RawLimits {
    memory: Size,
    timeout: Span,
    instances: Count<64>,
    batch: Count<10_000>,
}

impl Default for RawLimits {
    fn default() -> RawLimits {
        let Limits {
            memory,
            timeout,
            instances,
        } = Limits::default();
        let batch = crate::delivery::DeliveryOptions::default().batch;
        RawLimits {
            memory: Size(memory),
            timeout: Span(timeout),
            instances: Count(instances),
            batch: Count(batch),
        }
    }
}

struct RawName(String);

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

struct RawTcp(TcpGrant);

impl<'de> Deserialize<'de> for RawTcp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawTcp, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(RawTcp)
            .map_err(D::Error::custom)
    }
}

/// A size in bytes from 1 MiB to 4 GiB, written `"64MiB"`.
struct Size(u64);

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Size, D::Error> {
        let wrong = || D::Error::custom("is not a size from 1MiB to 4GiB, such as \"64MiB\"");
        let text = String::deserialize(deserializer).map_err(|_| wrong())?;
        let size: bytesize::ByteSize = text.parse().map_err(|_| wrong())?;
        match (1 << 20..=4 << 30).contains(&size.as_u64()) {
            true => Ok(Size(size.as_u64())),
            false => Err(wrong()),
        }
    }
}

/// A time from 1 ms to an hour, written `"5s"`.
struct Span(Duration);

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Span, D::Error> {
        let wrong =
            || D::Error::custom("is not a time from 1ms to 1h, such as \"5s\" or \"500ms\"");
        let text = String::deserialize(deserializer).map_err(|_| wrong())?;
        let span = humantime::parse_duration(&text).map_err(|_| wrong())?;
        match (Duration::from_millis(1)..=Duration::from_secs(3600)).contains(&span) {
            true => Ok(Span(span)),
            false => Err(wrong()),
        }
    }
}

/// A whole number from 1 to `MAX`.
struct Count<const MAX: usize>(usize);

impl<'de, const MAX: usize> Deserialize<'de> for Count<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count<MAX>, D::Error> {
        match usize::deserialize(deserializer) {
            Ok(count) if (1..=MAX).contains(&count) => Ok(Count(count)),
            _ => Err(D::Error::custom(format!(
                "is not a whole number from 1 to {MAX}"
            ))),
        }
    }
}

enum EnvValue {
    Text(String),
    File(PathBuf),
}

impl<'de> Deserialize<'de> for EnvValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<EnvValue, D::Error> {
        // serde's own messages would quote the value.
        let wrong = || D::Error::custom("is neither a text nor { file = \"PATH\" }");
        match toml::Value::deserialize(deserializer).map_err(|_| wrong())? {
            toml::Value::String(text) => Ok(EnvValue::Text(text)),
            toml::Value::Table(source) if source.len() == 1 => match source.get("file") {
                Some(toml::Value::String(file)) => Ok(EnvValue::File(file.into())),
                _ => Err(wrong()),
            },
            _ => Err(wrong()),
        }
    }
}

fn read_text(file: &Path) -> std::io::Result<String> {
    let size = std::fs::metadata(file)?.len();
    if size > MAX_FILE {
        let problem = format!("it has {size} bytes, more than the {MAX_FILE} allowed");
        return Err(std::io::Error::new(
            std::io::ErrorKind::FileTooLarge,
            problem,
        ));
    }
    std::fs::read_to_string(file)
}

/// The line of a position, counted from 1.
fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())]
        .iter()
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// The key whose value stands at a position, as far as its line tells.
fn key_at(text: &str, at: usize) -> Option<&str> {
    let before = text.get(..at)?;
    let line = before.rsplit('\n').next()?;
    let (key, _) = line.rsplit_once('=')?;
    let key = key
        .trim_end()
        .rsplit([' ', '{', ',', '\t'])
        .next()?
        .trim_matches('"');
    (!key.is_empty()).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Manifest, String> {
        Manifest::parse(Path::new("plugins/redis.toml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn no_manifest_means_every_event_and_no_grant() {
        let manifest = Manifest::read(Path::new("/nonexistent/plugin.toml")).unwrap();
        assert_eq!(manifest.events, [Pattern::any()]);
        assert!(manifest.grants.tcp.is_empty() && manifest.grants.files.is_empty());
        assert!(manifest.grants.env.is_empty());
        assert_eq!(manifest.limits, Limits::default());
        assert_eq!(manifest.batch, 256);
    }

    #[test]
    fn everything_a_manifest_can_say() {
        let secret = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(secret.path(), "hunter2\n").unwrap();
        let manifest = parse(&format!(
            r#"
            name = "redis-eu"
            events = ["after:*", "user.created"]
            [grants]
            tcp = ["redis.internal:6379", "[::1]:6379"]
            files = [{{ host = "data/out", guest = "/out", write = true }}, {{ host = "/", guest = "/x" }}]
            env = {{ REDIS_URL = "redis://redis.internal", REDIS_PASSWORD = {{ file = "{}" }} }}
            [limits]
            memory = "16MiB"
            timeout = "250ms"
            instances = 4
            batch = 64
            "#,
            secret.path().display()
        ))
        .unwrap();
        assert_eq!(manifest.name.as_deref(), Some("redis-eu"));
        assert_eq!(manifest.events.len(), 2);
        assert_eq!(manifest.grants.tcp[1].to_string(), "[::1]:6379");
        assert!(manifest.grants.files[0].write && !manifest.grants.files[1].write);
        assert_eq!(
            manifest.grants.env[0],
            ("REDIS_PASSWORD".into(), "hunter2".into())
        );
        let expected = Limits {
            memory: 16 << 20,
            timeout: Duration::from_millis(250),
            instances: 4,
        };
        assert_eq!((manifest.limits, manifest.batch), (expected, 64));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_key() {
        let cases = [
            ("\nevens = [\"*\"]", "line 2", "unknown field `evens`"),
            ("[grants]\nudp = []", "line 2", "unknown field `udp`"),
            ("events = []", "line 1", "`events`: names no event type"),
            ("events = [\"\"]", "line 1", "is empty"),
            ("events = \"after:*\"", "line 1", "`events`"),
            (
                "[limits]\nmemory = \"64 parsecs\"",
                "line 2",
                "`memory`: is not a size",
            ),
            ("[limits]\nmemory = 64", "line 2", "`memory`: is not a size"),
            ("[limits]\nmemory = \"1KiB\"", "line 2", "1MiB to 4GiB"),
            (
                "[limits]\n\ntimeout = \"soon\"",
                "line 3",
                "`timeout`: is not a time",
            ),
            (
                "[limits]\ninstances = 0",
                "line 2",
                "`instances`: is not a whole number from 1 to 64",
            ),
            (
                "[limits]\nbatch = -1",
                "line 2",
                "`batch`: is not a whole number",
            ),
            ("[grants]\ntcp = [\"redis\"]", "line 2", "is not HOST:PORT"),
            (
                "[grants]\nfiles = [{ host = \"/nonexistent\", guest = \"/x\" }]",
                "line 2",
                "`host`: /nonexistent is not a folder, or does not exist",
            ),
            (
                "[grants]\nfiles = [{ host = \"/\", guest = \"in\" }]",
                "line 2",
                "`guest`: is not a path from `/` on",
            ),
            (
                "[grants]\nfiles = [{ host = \"x\" }]",
                "line 2",
                "missing field `guest`",
            ),
            (
                "[grants.env]\nA = \"1\"\nB = { file = \"/nonexistent/secret\" }",
                "line 3",
                "`B`: the file /nonexistent/secret cannot be read",
            ),
            (
                "[grants.env]\n\"A=B\" = \"1\"",
                "line 2",
                "may not be empty or hold `=`",
            ),
            (
                "name = \"Not A Name\"",
                "line 1",
                "`name`: a name has 1 to 64",
            ),
            ("events = [", "line 1", ""),
        ];
        for (text, line, problem) in cases {
            let error = parse(text).unwrap_err();
            assert!(
                error.starts_with(&format!("plugins/redis.toml, {line}: ")),
                "{text}: {error}"
            );
            assert!(error.contains(problem), "{text}: {error}");
        }
    }

    #[test]
    fn a_secret_is_in_no_message() {
        for text in [
            "[grants.env]\nPASSWORD = [\"hunter2\"]",
            "[grants.env]\nPASSWORD = \"hunter2\\u0000\"",
            "[grants.env]\nPASSWORD = { text = \"hunter2\" }",
        ] {
            let error = parse(text).unwrap_err();
            assert!(
                !error.contains("hunter2") && error.contains("PASSWORD"),
                "{error}"
            );
        }
        let manifest = parse("[grants.env]\nPASSWORD = \"hunter2\"").unwrap();
        assert!(!format!("{manifest:?}").contains("hunter2"));
    }

    #[test]
    fn a_manifest_that_is_not_text_or_too_large_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"events = [\"\xff\"]").unwrap();
        assert!(
            Manifest::read(file.path())
                .unwrap_err()
                .to_string()
                .contains("UTF-8")
        );
        std::fs::write(file.path(), vec![b'\n'; MAX_FILE as usize + 1]).unwrap();
        assert!(
            Manifest::read(file.path())
                .unwrap_err()
                .to_string()
                .contains("bytes, more than")
        );
    }
}
