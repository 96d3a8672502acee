//! The settings of `backhaul serve`: flags win over the environment
//! (`BACKHAUL_*`), the environment over `backhaul.toml`, that over defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use serde::Deserialize;

use crate::journal::JournalOptions;
use crate::wasm::WasmEngine;

/// The smallest journal, in bytes.
const MIN_JOURNAL: u64 = 1 << 20;

/// The configuration file that is read if it is there and no other is named.
const DEFAULT_FILE: &str = "backhaul.toml";

/// The settings as given on the command line or in the environment.
#[derive(Args, Default)]
pub(super) struct Flags {
    /// Configuration file [default: backhaul.toml, if it exists]
    #[arg(long, env = "BACKHAUL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Folder of the plugins: NAME.wasm, with NAME.toml beside it [default: plugins]
    #[arg(long, env = "BACKHAUL_PLUGINS", value_name = "DIR")]
    plugins: Option<PathBuf>,

    /// Folder for what the host keeps: the journal, and compiled plugins [default:
    /// backhaul in the user's data folder ($XDG_DATA_HOME or ~/.local/share), and
    /// in the user's cache folder ($XDG_CACHE_HOME or ~/.cache)]
    #[arg(long, env = "BACKHAUL_DATA", value_name = "DIR")]
    data: Option<PathBuf>,

    /// Address to take events at; port 0 picks a free one [default: 127.0.0.1:7070]
    #[arg(long, env = "BACKHAUL_LISTEN", value_name = "ADDR")]
    listen: Option<SocketAddr>,

    /// Largest request body, for instance 4MiB [default: 4MiB]
    #[arg(long, env = "BACKHAUL_MAX_BODY", value_name = "SIZE")]
    max_body: Option<ByteSize>,

    /// How long a stopping host may deliver what it has accepted, for instance
    /// 10s [default: 10s]
    #[arg(long, env = "BACKHAUL_DRAIN", value_name = "TIME", value_parser = humantime::parse_duration)]
    drain: Option<Duration>,

    /// Whether accepted events are kept on disk until they are delivered; else they
    /// wait in memory [default: on]
    #[arg(long, env = "BACKHAUL_JOURNAL", value_name = "on|off", action = clap::ArgAction::Set,
          value_parser = on_or_off)]
    journal: Option<bool>,

    /// The most bytes of events on disk; then events are refused for a while (429)
    /// [default: 1GiB]
    #[arg(long, env = "BACKHAUL_JOURNAL_SIZE", value_name = "SIZE")]
    journal_size: Option<ByteSize>,

    /// How much is kept of what was delivered, for plugins with `from = "oldest"`
    /// [default: 64MiB]
    #[arg(long, env = "BACKHAUL_JOURNAL_RETAIN_SIZE", value_name = "SIZE")]
    journal_retain_size: Option<ByteSize>,

    /// For how long [default: 1h]
    #[arg(long, env = "BACKHAUL_JOURNAL_RETAIN_AGE", value_name = "TIME", value_parser = humantime::parse_duration)]
    journal_retain_age: Option<Duration>,
}

fn on_or_off(text: &str) -> Result<bool, &'static str> {
    match text {
        "on" | "true" => Ok(true),
        "off" | "false" => Ok(false),
        _ => Err("either on or off"),
    }
}

/// The same settings in the file.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct File {
    plugins: Option<PathBuf>,
    data: Option<PathBuf>,
    listen: Option<SocketAddr>,
    max_body: Option<String>,
    drain: Option<String>,
    journal: JournalTable,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct JournalTable {
    enabled: Option<bool>,
    size: Option<String>,
    retain_size: Option<String>,
    retain_age: Option<String>,
}

/// The settings in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) plugins: PathBuf,
    pub(super) data: Option<PathBuf>,
    pub(super) listen: SocketAddr,
    pub(super) max_body: usize,
    pub(super) drain: Duration,
    /// How large the journal may grow; `None` without one.
    pub(super) journal: Option<JournalOptions>,
}

impl Config {
    pub(super) fn from(flags: Flags) -> anyhow::Result<Config> {
        let file = match &flags.config {
            Some(path) => File::read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => File::read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let max_body = size("max_body", flags.max_body, file.max_body)?;
        let max_body = max_body.unwrap_or(4 << 20);
        let drain = time("drain", flags.drain, file.drain)?;
        let drain = drain.unwrap_or(Duration::from_secs(10));
        let table = file.journal;
        let defaults = JournalOptions::default();
        let journal = JournalOptions {
            size: size("journal.size", flags.journal_size, table.size)?.unwrap_or(defaults.size),
            retain_size: size(
                "journal.retain_size",
                flags.journal_retain_size,
                table.retain_size,
            )?
            .unwrap_or(defaults.retain_size),
            retain_age: time(
                "journal.retain_age",
                flags.journal_retain_age,
                table.retain_age,
            )?
            .unwrap_or(defaults.retain_age),
        };
        anyhow::ensure!(
            journal.size >= MIN_JOURNAL,
            "`journal.size`: at least 1MiB, or an event may never fit"
        );
        let with_journal = flags.journal.or(table.enabled).unwrap_or(true);
        Ok(Config {
            plugins: flags
                .plugins
                .or(file.plugins)
                .unwrap_or_else(|| "plugins".into()),
            data: flags.data.or(file.data),
            listen: flags
                .listen
                .or(file.listen)
                .unwrap_or((Ipv4Addr::LOCALHOST, 7070).into()),
            max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
            drain,
            journal: with_journal.then_some(journal),
        })
    }

    /// Where events are kept.
    pub(super) fn journal_folder(&self) -> anyhow::Result<PathBuf> {
        let data = match &self.data {
            Some(data) => data.clone(),
            None => dirs::data_dir()
                .context("there is no folder for the journal: name one with --data, or say --journal off")?
                .join("backhaul"),
        };
        Ok(data.join("journal"))
    }

    /// Where compiled plugins are kept; `None` where there is no place.
    pub(super) fn cache(&self) -> Option<PathBuf> {
        match &self.data {
            Some(data) => Some(data.join("cache")),
            None => WasmEngine::default_cache(),
        }
    }
}

/// A size in bytes, from the flag or else the file's `key`.
fn size(key: &str, flag: Option<ByteSize>, file: Option<String>) -> anyhow::Result<Option<u64>> {
    let parse = |text: String| -> anyhow::Result<ByteSize> {
        let wrong = |_| anyhow::anyhow!("`{key}`: {text:?} is not a size such as \"4MiB\"");
        text.parse().map_err(wrong)
    };
    let size = flag.map(Ok).or(file.map(parse)).transpose()?;
    Ok(size.map(|size| size.as_u64()))
}

/// A time, from the flag or else the file's `key`.
fn time(
    key: &str,
    flag: Option<Duration>,
    file: Option<String>,
) -> anyhow::Result<Option<Duration>> {
    let parse = |text: String| {
        humantime::parse_duration(&text)
            .with_context(|| format!("`{key}`: {text:?} is not a time such as \"10s\""))
    };
    flag.map(Ok).or(file.map(parse)).transpose()
}

impl File {
    fn read(path: &Path) -> anyhow::Result<File> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("the configuration file {} cannot be read", path.display()))?;
        toml::from_str(&text)
            .with_context(|| format!("the configuration file {} is wrong", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> (tempfile::NamedTempFile, Flags) {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let flags = Flags {
            config: Some(file.path().to_owned()),
            ..Flags::default()
        };
        (file, flags)
    }

    #[test]
    fn flags_win_over_the_file_and_the_file_over_defaults() {
        let (_file, mut flags) = file(
            "plugins = \"p\"\nlisten = \"127.0.0.1:1\"\nmax_body = \"1MiB\"\ndrain = \"2s\"\n[journal]\nsize = \"2MiB\"",
        );
        flags.listen = Some("127.0.0.1:2".parse().unwrap());
        let config = Config::from(flags).unwrap();
        let expected = Config {
            plugins: "p".into(),
            data: None,
            listen: "127.0.0.1:2".parse().unwrap(),
            max_body: 1 << 20,
            drain: Duration::from_secs(2),
            journal: Some(JournalOptions {
                size: 2 << 20,
                ..JournalOptions::default()
            }),
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_wrong_file_is_refused_with_the_reason() {
        for (text, problem) in [
            ("lisen = \"x\"", "unknown field `lisen`"),
            ("listen = \"here\"", "invalid socket address"),
            ("max_body = \"much\"", "is not a size"),
            ("drain = \"soon\"", "is not a time"),
            ("[journal]\nsize = \"1kB\"", "at least 1MiB"),
            (
                "[journal]\nretain_age = \"for ever\"",
                "`journal.retain_age`",
            ),
        ] {
            let (_file, flags) = file(text);
            let error = format!("{:#}", Config::from(flags).unwrap_err());
            assert!(error.contains(problem), "{text}: {error}");
        }
        let missing = Flags {
            config: Some("/nonexistent/backhaul.toml".into()),
            ..Flags::default()
        };
        let error = format!("{:#}", Config::from(missing).unwrap_err());
        assert!(
            error.contains("/nonexistent/backhaul.toml cannot be read"),
            "{error}"
        );
    }
}
