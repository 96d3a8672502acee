//! The files that came before `FILE_PATH`: beside it, named after it with the time
//! they were closed, as in `events.ndjson.2026-01-31T12-00-00.000Z`, and with `.gz`
//! once they are compressed. Files of other names are left alone.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Result};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What the name of a compressed file ends with.
pub(crate) const GZIP: &str = ".gz";

/// What the name of one ends with that is not whole.
pub(crate) const PART: &str = ".part";

pub(crate) struct Rotated {
    folder: PathBuf,
    /// The name of `FILE_PATH`, and a dot.
    prefix: String,
}

impl Rotated {
    /// Those beside this file.
    ///
    /// # Errors
    ///
    /// If the path does not name a file.
    pub(crate) fn beside(path: &Path) -> std::result::Result<Self, String> {
        let (folder, name) = (
            path.parent(),
            path.file_name().and_then(|name| name.to_str()),
        );
        match (folder, name) {
            (Some(folder), Some(name)) => Ok(Self {
                folder: folder.to_owned(),
                prefix: format!("{name}."),
            }),
            _ => Err(format!(
                "the setting FILE_PATH is {:?}, expected the path of a file; correct it in grants.env of the manifest",
                path.display().to_string()
            )),
        }
    }

    /// A name for the file that is closed now, which sorts after those there are.
    pub(crate) fn next(&self, now: SystemTime) -> Result<PathBuf> {
        let newest = self.times()?.pop_last();
        let after = newest.map(|newest| newest + Duration::from_millis(1));
        Ok(self.path(after.map_or(now, |after| after.max(now))))
    }

    /// Removes the oldest, so that this many are left.
    pub(crate) fn remove_all_but(&self, keep: usize) -> Result<()> {
        let times = self.times()?;
        for time in times.iter().take(times.len().saturating_sub(keep)) {
            let path = self.path(*time);
            // Begun, and cut short. Alone it would not be found any more.
            remove_if_there(&with_suffix(&path, PART))?;
            remove_if_there(&path)?;
            remove_if_there(&with_suffix(&path, GZIP))?;
        }
        Ok(())
    }

    /// The oldest one that is not compressed yet.
    pub(crate) fn uncompressed(&self) -> Result<Option<PathBuf>> {
        let paths = self.times()?.into_iter().map(|time| self.path(time));
        Ok(paths.into_iter().find(|path| path.exists()))
    }

    /// Has the names in the folder on the disk.
    pub(crate) fn sync(&self) -> Result<()> {
        File::open(&self.folder)?.sync_all()
    }

    fn times(&self) -> Result<BTreeSet<SystemTime>> {
        let mut times = BTreeSet::new();
        for entry in fs::read_dir(&self.folder)? {
            times.extend(entry?.file_name().to_str().and_then(|name| self.time(name)));
        }
        Ok(times)
    }

    /// The time in a name, compressed or not; `None` if the name is not ours.
    fn time(&self, name: &str) -> Option<SystemTime> {
        let time = name.strip_prefix(&self.prefix)?;
        let time = time.strip_suffix(GZIP).unwrap_or(time);
        let (date, clock) = time.split_once('T')?;
        let text = format!("{date}T{}", clock.replace('-', ":"));
        let parsed = humantime::parse_rfc3339(&text).ok()?;
        (written(parsed) == time).then_some(parsed)
    }

    fn path(&self, time: SystemTime) -> PathBuf {
        let Self { folder, prefix } = self;
        folder.join(format!("{prefix}{}", written(time)))
    }
}

/// To the millisecond, without the colons some file systems refuse.
fn written(time: SystemTime) -> String {
    let time = humantime::format_rfc3339_millis(time);
    time.to_string().replace(':', "-")
}

/// `path` with something added to its name.
pub(crate) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
