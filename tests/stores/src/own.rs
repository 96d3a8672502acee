//! The journal's own log, compiled from its sources.
//!
//! Positions are written over one another in a file made before, and not synced,
//! as the journal does between its syncs once a second.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::Result;

use crate::journal::disk::Folder;
use crate::journal::log::{Log, LogOptions, LogReader};
use crate::store::{Batch, Store};

/// The room of a position.
const ROOM: u64 = 256;

/// The journal's log.
pub(crate) struct Own {
    log: Log,
    reader: LogReader,
    positions: File,
}

impl Own {
    /// Opens the log in `folder`.
    pub(crate) fn open(folder: &Path, small: bool) -> Result<Self> {
        let disk = Arc::new(Folder::open(&folder.join("events"))?);
        let segment_bytes = if small { 2 << 20 } else { 64 << 20 };
        let (log, damage) = Log::open(disk, LogOptions { segment_bytes })?;
        for damage in damage {
            ::log::warn!("{damage}");
        }
        let mut options = File::options();
        let options = options.read(true).write(true).create(true).truncate(false);
        Ok(Self {
            reader: log.reader(),
            log,
            positions: options.open(folder.join("positions"))?,
        })
    }
}

impl Store for Own {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        for record in batch.records {
            self.log.push(|to| to.extend_from_slice(record));
        }
        self.log.commit()?;
        for (consumer, seq) in batch.positions {
            let mut room = [0; ROOM as usize];
            room[..8].copy_from_slice(&seq.to_le_bytes());
            let at = u64::from(*consumer) * ROOM;
            self.positions.write_all_at(&room, at)?;
        }
        if let Some(seq) = batch.remove_below {
            self.log.remove_below(seq)?;
        }
        Ok(())
    }

    fn read(&mut self, from: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<()> {
        let mut next = from.max(self.log.oldest_seq());
        let mut more = true;
        while more && next < self.log.next_seq() {
            let chunk = self
                .reader
                .read(next, u64::MAX, 1 << 20, &mut |seq, bytes| {
                    more = each(seq, bytes);
                    more
                })?;
            for damage in chunk.damage {
                ::log::warn!("{damage}");
            }
            next = chunk.next;
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.positions.sync_data()?;
        Ok(())
    }
}
