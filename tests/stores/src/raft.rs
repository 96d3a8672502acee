//! raft-engine: one group, its entries are the records, positions are key
//! values of the group, `Compact` removes the prefix, files are purged after.

use std::path::Path;

use anyhow::{Context, Result};
use protobuf::well_known_types::BytesValue;
use raft_engine::{Command, Config, Engine, LogBatch, MessageExt, ReadableSize, RecoveryMode};

use crate::store::{Batch, Store};

/// The only group.
const GROUP: u64 = 1;

/// Entries fetched at once.
const PIECE: u64 = 256;

/// A raft-engine.
pub(crate) struct Raft {
    engine: Engine,
}

/// An entry: eight bytes of number, then the record. An entry must be a
/// message of the `protobuf` crate and know its number.
struct Entry;

impl MessageExt for Entry {
    type Entry = BytesValue;

    fn index(entry: &BytesValue) -> u64 {
        let head = entry.value.first_chunk().copied().unwrap_or_default();
        u64::from_be_bytes(head)
    }
}

impl Raft {
    /// Opens the engine in `folder`.
    pub(crate) fn open(folder: &Path, small: bool) -> Result<Self> {
        let (file, purge) = if small { (2, 4) } else { (16, 64) };
        let engine = Engine::open(Config {
            dir: folder.to_str().context("a folder in UTF-8")?.to_owned(),
            // Otherwise it refuses to open for one flipped bit.
            recovery_mode: RecoveryMode::TolerateAnyCorruption,
            target_file_size: ReadableSize::mb(file),
            purge_threshold: ReadableSize::mb(purge),
            // The other stores do not compress here.
            batch_compression_threshold: ReadableSize(0),
            ..Config::default()
        })?;
        Ok(Self { engine })
    }

    /// One entry, where the piece around it cannot be had.
    fn one(&self, seq: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<bool> {
        let entry = self.engine.get_entry::<Entry>(GROUP, seq)?;
        Ok(entry.is_none_or(|entry| hand(&entry, each)))
    }
}

/// Hands the record in `entry` on.
fn hand(entry: &BytesValue, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> bool {
    each(
        Entry::index(entry),
        entry.value.get(8..).unwrap_or_default(),
    )
}

impl Store for Raft {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        let mut write = LogBatch::with_capacity(2 + batch.positions.len());
        let entry = |(seq, record): (u64, &Vec<u8>)| {
            let mut entry = BytesValue::new();
            entry.value.extend_from_slice(&seq.to_be_bytes());
            entry.value.extend_from_slice(record);
            entry
        };
        let entries: Vec<_> = (batch.first..).zip(batch.records).map(entry).collect();
        write.add_entries::<Entry>(GROUP, &entries)?;
        for (consumer, seq) in batch.positions {
            let (key, value) = (consumer.to_be_bytes(), seq.to_be_bytes());
            write.put(GROUP, key.to_vec(), value.to_vec())?;
        }
        if let Some(index) = batch.remove_below {
            write.add_command(GROUP, Command::Compact { index });
        }
        self.engine.write(&mut write, true)?;
        if batch.remove_below.is_some() {
            self.engine.purge_expired_files()?;
        }
        Ok(())
    }

    fn read(&mut self, from: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<()> {
        let range = (
            self.engine.first_index(GROUP),
            self.engine.last_index(GROUP),
        );
        let (Some(first), Some(last)) = range else {
            return Ok(());
        };
        let mut entries = Vec::new();
        for start in (from.max(first)..=last).step_by(PIECE as usize) {
            let end = (start + PIECE).min(last + 1);
            entries.clear();
            let fetched =
                self.engine
                    .fetch_entries_to::<Entry>(GROUP, start, end, None, &mut entries);
            if fetched.is_err() {
                for seq in start..end {
                    if !self.one(seq, each)? {
                        return Ok(());
                    }
                }
            } else if !entries.iter().all(|entry| hand(entry, each)) {
                return Ok(());
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.engine.sync()?;
        Ok(())
    }
}
