//! What `file` takes from its environment, and when a new file is due by it.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `FILE_PATH` | the file, as the plugin sees it | `/out/events.ndjson` |
//! | `FILE_MAX_SIZE` | a new file before one grows larger, `100MiB`, at least 1kB | no bound |
//! | `FILE_MAX_AGE` | a new file at each multiple of this time since 1970, `24h`, at least 1s | no bound |
//! | `FILE_KEEP` | rotated files that stay, at least 1 | all |
//! | `FILE_COMPRESSION` | of rotated files: `none` or `gzip` | `none` |
//! | `FILE_SYNC` | what is on the disk when an event counts as published: `never` asked for, or each `batch` | `never` |

use backhaul_guest::{SettingError, parsed_setting, setting_or};
use bytesize::ByteSize;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

#[derive(Default)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) max_size: Option<u64>,
    pub(crate) max_age: Option<Duration>,
    pub(crate) keep: Option<NonZeroUsize>,
    pub(crate) gzip: bool,
    pub(crate) sync: bool,
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, SettingError> {
        Ok(Self {
            path: setting_or("FILE_PATH", "/out/events.ndjson").into(),
            max_size: max_size()?,
            max_age: max_age()?,
            keep: parsed_setting("FILE_KEEP", "a whole number of files, at least 1")?,
            gzip: one_of("FILE_COMPRESSION", ["none", "gzip"])?,
            sync: one_of("FILE_SYNC", ["never", "batch"])?,
        })
    }

    /// Whether a file of this length, last written to then, takes no more lines
    /// of `added` bytes. One that is empty takes any.
    ///
    /// By age a file ends with the period its last line is from, so a start of the
    /// host needs not know when the first was written.
    pub(crate) fn is_due(
        &self,
        length: u64,
        added: usize,
        changed: Option<SystemTime>,
        now: SystemTime,
    ) -> bool {
        let grown = length.saturating_add(added as u64);
        let full = self.max_size.is_some_and(|max| grown > max);
        let old = self.max_age.is_some_and(|age| {
            changed.is_some_and(|changed| period(changed, age) != period(now, age))
        });
        length > 0 && (full || old)
    }
}

/// How many whole `age`s lie between 1970 and `time`.
fn period(time: SystemTime, age: Duration) -> u128 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH);
    since.unwrap_or_default().as_nanos() / age.as_nanos()
}

fn max_size() -> Result<Option<u64>, SettingError> {
    let expected = "a size of at least 1kB, such as 100MiB";
    let size = parsed_setting::<ByteSize>("FILE_MAX_SIZE", expected)?;
    match size {
        Some(size) if size.as_u64() < 1000 => {
            let value = size.to_string();
            Err(SettingError::invalid("FILE_MAX_SIZE", &value, expected))
        }
        size => Ok(size.map(|size| size.as_u64())),
    }
}

fn max_age() -> Result<Option<Duration>, SettingError> {
    let expected = "a duration of at least 1s, such as 24h";
    let age = parsed_setting::<humantime::Duration>("FILE_MAX_AGE", expected)?;
    match age {
        Some(age) if *age < Duration::from_secs(1) => {
            let value = age.to_string();
            Err(SettingError::invalid("FILE_MAX_AGE", &value, expected))
        }
        age => Ok(age.map(Into::into)),
    }
}

/// Whether the setting is the second of these; it is the first if it is not set.
fn one_of(name: &str, [no, yes]: [&str; 2]) -> Result<bool, SettingError> {
    let value = setting_or(name, no);
    if value == no || value == yes {
        return Ok(value == yes);
    }
    let expected = format!("{no} or {yes}");
    Err(SettingError::invalid(name, &value, &expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_due_when_lines_would_not_fit_or_a_period_is_over() {
        let settings = Settings {
            max_size: Some(1000),
            max_age: Some(Duration::from_secs(3600)),
            ..Settings::default()
        };
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let due = |length, added, changed, now| {
            settings.is_due(length, added, Some(at(changed)), at(now))
        };
        assert!(!due(500, 500, 0, 3599));
        assert!(due(500, 501, 0, 0));
        assert!(!due(0, 5000, 0, 0), "lines larger than any file have one");
        assert!(due(1, 1, 3599, 3600));
        assert!(!due(0, 1, 0, 3600), "an empty file is of no age");
        assert!(!Settings::default().is_due(u64::MAX, 1, Some(at(0)), at(1 << 40)));
    }
}
