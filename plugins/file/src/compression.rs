//! A rotated file on its way to gzip, a piece at a time.
//!
//! The piece lies in `NAME.part` until it is whole and on the disk, then it is
//! renamed to `NAME.gz`, then `NAME` is removed. Cut short, `NAME` is still there, and
//! it is done again.

use crate::rotation::{GZIP, PART, remove_if_there, with_suffix};
use flate2::write::GzEncoder;
use std::fs::{self, File};
use std::io::{self, Read, Result};
use std::path::{Path, PathBuf};

pub(crate) struct Compression {
    path: PathBuf,
    source: File,
    part: PathBuf,
    target: GzEncoder<File>,
}

impl Compression {
    /// Begins with the file at `path`.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let part = with_suffix(path, PART);
        Ok(Self {
            source: File::open(path)?,
            target: GzEncoder::new(File::create(&part)?, flate2::Compression::default()),
            path: path.to_owned(),
            part,
        })
    }

    /// Compresses so many bytes more; `true` when all is done.
    pub(crate) fn go_on(&mut self, bytes: usize) -> Result<bool> {
        let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
        let copied = io::copy(&mut (&self.source).take(bytes), &mut self.target)?;
        if copied == bytes {
            return Ok(false);
        }
        self.target.try_finish()?;
        self.target.get_ref().sync_all()?;
        // It is gone already if it was one too many to keep.
        if !self.path.exists() {
            remove_if_there(&self.part)?;
            return Ok(true);
        }
        fs::rename(&self.part, with_suffix(&self.path, GZIP))?;
        fs::remove_file(&self.path)?;
        Ok(true)
    }
}
