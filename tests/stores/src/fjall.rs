//! fjall: two keyspaces of one database, sequential big-endian keys, one batch
//! with `SyncData` for each group. It has no call that removes a range, so
//! delivered records are removed one by one, in the same batch.

use std::path::Path;

use anyhow::Result;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use crate::store::{Batch, Store};

/// A fjall database.
pub(crate) struct Fjall {
    database: Database,
    records: Keyspace,
    positions: Keyspace,
    /// The oldest record that was not removed.
    first: Option<u64>,
}

impl Fjall {
    /// Opens the database in `folder`.
    pub(crate) fn open(folder: &Path, small: bool) -> Result<Self> {
        let builder = Database::builder(folder.join("fjall"));
        // The least it takes: a journal in steady state should not keep half
        // a gigabyte of old journals.
        let database = builder.max_journaling_size(64 << 20).open()?;
        let options = || {
            let memtable = if small { 2 << 20 } else { 16 << 20 };
            KeyspaceCreateOptions::default().max_memtable_size(memtable)
        };
        Ok(Self {
            records: database.keyspace("records", options)?,
            positions: database.keyspace("positions", options)?,
            database,
            first: None,
        })
    }

    /// The oldest record, looked up once.
    fn first(&mut self) -> Result<u64> {
        if let Some(first) = self.first {
            return Ok(first);
        }
        let first = match self.records.first_key_value() {
            Some(pair) => seq_of(&pair.key()?)?,
            None => 1,
        };
        Ok(*self.first.insert(first))
    }
}

/// The number in a key.
fn seq_of(key: &[u8]) -> Result<u64> {
    Ok(u64::from_be_bytes(key.try_into()?))
}

impl Store for Fjall {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        let mut write = self
            .database
            .batch()
            .durability(Some(PersistMode::SyncData));
        for (seq, record) in (batch.first..).zip(batch.records) {
            write.insert(&self.records, seq.to_be_bytes(), record.as_slice());
        }
        for (consumer, seq) in batch.positions {
            write.insert(&self.positions, consumer.to_be_bytes(), seq.to_be_bytes());
        }
        if let Some(below) = batch.remove_below {
            let first = self.first()?;
            for seq in first..below {
                write.remove(&self.records, seq.to_be_bytes());
            }
            self.first = Some(first.max(below));
        }
        write.commit()?;
        Ok(())
    }

    fn read(&mut self, from: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<()> {
        for pair in self.records.range(from.to_be_bytes()..) {
            let (key, value) = pair.into_inner()?;
            if !each(seq_of(&key)?, &value) {
                break;
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.persist(PersistMode::SyncAll)?;
        Ok(())
    }
}
