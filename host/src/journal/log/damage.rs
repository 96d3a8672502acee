//! What could not be read, and the copies of it that are kept aside.
//!
//! Bad bytes are copied to `{segment}-{offset}.damaged` beside the segments,
//! once each, 64 MiB in all: enough to look into by hand, and no way to fill
//! the disk.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use crate::journal::disk::{Disk, DiskFile, read_full};

/// The most bytes kept aside in one folder.
pub(super) const MAX_ASIDE: u64 = 64 << 20;
pub(super) const ASIDE: &str = ".damaged";

/// A stretch of the log that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Damage {
    /// The segment.
    pub(crate) file: PathBuf,
    /// Where in it the stretch begins.
    pub(crate) offset: u64,
    /// How long it is; 0 when the bytes are missing.
    pub(crate) bytes: u64,
    /// The seqs of the records that were in it; empty when there were none, or
    /// none that can be told.
    pub(crate) lost: Range<u64>,
    /// Why.
    pub(crate) kind: DamageKind,
    /// Where the bytes were copied to.
    pub(crate) aside: Option<PathBuf>,
}

/// Why a stretch cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DamageKind {
    /// In the group that was being written when the machine or the host
    /// stopped: it was never accepted, or it is the last group that was.
    TornTail,
    /// The bytes are not what was written, or are gone.
    Unreadable,
    /// Whole segments are gone.
    MissingSegment,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display();
        match self.kind {
            DamageKind::TornTail if self.bytes == 0 => {
                write!(
                    f,
                    "{file} ends at byte {} before its last group does",
                    self.offset
                )?;
            }
            DamageKind::TornTail => write!(
                f,
                "{file} has {} bytes at {} of a group whose writing was cut short",
                self.bytes, self.offset
            )?,
            DamageKind::Unreadable if self.bytes == 0 => {
                write!(f, "{file} lacks records at byte {}", self.offset)?;
            }
            DamageKind::Unreadable => {
                write!(
                    f,
                    "{file} has {} unreadable bytes at {}",
                    self.bytes, self.offset
                )?;
            }
            DamageKind::MissingSegment => write!(f, "{file} is missing")?,
        }
        let events = self.lost.end.saturating_sub(self.lost.start);
        let numbers = match events {
            1 => format!("1 event is lost, number {}", self.lost.start),
            _ => format!(
                "{events} events are lost, numbers {} to {}",
                self.lost.start,
                self.lost.end.saturating_sub(1)
            ),
        };
        match (events, self.kind) {
            (0, _) => write!(f, ": no accepted event is known to be lost")?,
            (_, DamageKind::TornTail) => {
                write!(
                    f,
                    ": {numbers}, unless the emitter was never told that it was accepted"
                )?;
            }
            _ => write!(f, ": {numbers}")?,
        }
        match &self.aside {
            Some(aside) => write!(f, "; the bytes were copied to {}", aside.display()),
            None if self.bytes > 0 => write!(f, "; the bytes were not copied aside"),
            None => Ok(()),
        }
    }
}

/// The copies in one folder.
pub(super) struct Aside {
    /// Name and bytes of each.
    kept: Mutex<HashMap<String, u64>>,
}

impl Aside {
    /// With the copies that are there already: name and bytes.
    pub(super) fn new(kept: HashMap<String, u64>) -> Aside {
        Aside {
            kept: Mutex::new(kept),
        }
    }

    /// Copies the bytes of `file`, unless they have been; `None` when that
    /// would be too much, or fails: reading goes on without.
    pub(super) fn keep(
        &self,
        disk: &dyn Disk,
        file: &dyn DiskFile,
        segment: u64,
        offset: u64,
        bytes: u64,
    ) -> Option<PathBuf> {
        if bytes == 0 {
            return None;
        }
        let name = format!("{segment:020}-{offset}{ASIDE}");
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let there = kept.get(&name).copied();
        if there.is_some_and(|there| there >= bytes) {
            return Some(disk.path(&name));
        }
        let total: u64 = kept.values().sum();
        if total - there.unwrap_or(0) + bytes > MAX_ASIDE {
            return None;
        }
        match copy(disk, file, &name, there.is_some(), offset, bytes) {
            Ok(()) => {
                let path = disk.path(&name);
                kept.insert(name, bytes);
                Some(path)
            }
            Err(error) => {
                tracing::warn!(
                    file = %disk.path(&name).display(),
                    "cannot keep a copy of damaged bytes: {error}"
                );
                if there.is_none() {
                    let _ = disk.remove(&name);
                }
                None
            }
        }
    }
}

fn copy(
    disk: &dyn Disk,
    file: &dyn DiskFile,
    name: &str,
    exists: bool,
    offset: u64,
    bytes: u64,
) -> io::Result<()> {
    let to = if exists {
        disk.open(name)?
    } else {
        disk.create(name)?
    };
    let mut buffer = vec![0; bytes.min(256 << 10) as usize];
    let mut done = 0;
    while done < bytes {
        let want = (bytes - done).min(buffer.len() as u64) as usize;
        let got = read_full(file, &mut buffer[..want], offset + done)?;
        if got == 0 {
            break;
        }
        to.write_all_at(&buffer[..got], done)?;
        done += got as u64;
    }
    to.sync()?;
    disk.sync()
}
