//! The settings of `backhaul serve`: flags win over the environment
//! (`BACKHAUL_*`), the environment over `backhaul.toml`, that over defaults.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use bytesize::ByteSize;
use clap::Args;
use serde::Deserialize;

use crate::wasm::WasmEngine;

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

    /// Folder for what the host keeps: now, compiled plugins [default:
    /// backhaul in the user's cache folder, $XDG_CACHE_HOME or ~/.cache]
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
}

/// The settings in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Config {
    pub(super) plugins: PathBuf,
    pub(super) data: Option<PathBuf>,
    pub(super) listen: SocketAddr,
    pub(super) max_body: usize,
    pub(super) drain: Duration,
}

impl Config {
    pub(super) fn from(flags: Flags) -> anyhow::Result<Config> {
        let file = match &flags.config {
            Some(path) => File::read(path)?,
            None if Path::new(DEFAULT_FILE).exists() => File::read(Path::new(DEFAULT_FILE))?,
            None => File::default(),
        };
        let max_body = match (flags.max_body, file.max_body) {
            (Some(size), _) => size,
            (None, Some(text)) => text.parse().map_err(|_| {
                anyhow::anyhow!("`max_body`: {text:?} is not a size such as \"4MiB\"")
            })?,
            (None, None) => ByteSize::mib(4),
        };
        let drain = match (flags.drain, file.drain) {
            (Some(time), _) => time,
            (None, Some(text)) => humantime::parse_duration(&text)
                .with_context(|| format!("`drain`: {text:?} is not a time such as \"10s\""))?,
            (None, None) => Duration::from_secs(10),
        };
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
            max_body: usize::try_from(max_body.as_u64()).unwrap_or(usize::MAX),
            drain,
        })
    }

    /// Where compiled plugins are kept; `None` where there is no place.
    pub(super) fn cache(&self) -> Option<PathBuf> {
        match &self.data {
            Some(data) => Some(data.join("cache")),
            None => WasmEngine::default_cache(),
        }
    }
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
        let (_file, mut flags) =
            file("plugins = \"p\"\nlisten = \"127.0.0.1:1\"\nmax_body = \"1MiB\"\ndrain = \"2s\"");
        flags.listen = Some("127.0.0.1:2".parse().unwrap());
        let config = Config::from(flags).unwrap();
        let expected = Config {
            plugins: "p".into(),
            data: None,
            listen: "127.0.0.1:2".parse().unwrap(),
            max_body: 1 << 20,
            drain: Duration::from_secs(2),
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
