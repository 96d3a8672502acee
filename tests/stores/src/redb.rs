//! redb: one table of records, one of positions, one transaction of immediate
//! durability for each group, the delivered prefix removed as a range.

use std::path::Path;

use anyhow::Result;
use redb::{Database, Durability, ReadableDatabase, TableDefinition};

use crate::store::{Batch, Store};

const RECORDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("records");
const POSITIONS: TableDefinition<'_, u16, u64> = TableDefinition::new("positions");

/// Its default is a gigabyte; a host of plugins has other uses for it.
const CACHE: usize = 64 << 20;

/// A redb database.
pub(crate) struct Redb {
    database: Database,
}

impl Redb {
    /// Opens the database in `folder`, after a check of all of it if asked.
    pub(crate) fn open(folder: &Path, checked: bool) -> Result<Self> {
        let mut builder = Database::builder();
        builder.set_cache_size(CACHE);
        builder.set_check_integrity_on_open(checked);
        let database = builder.create(folder.join("redb"))?;
        Ok(Self { database })
    }
}

impl Store for Redb {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        {
            let mut records = write.open_table(RECORDS)?;
            for (seq, record) in (batch.first..).zip(batch.records) {
                records.insert(seq, record.as_slice())?;
            }
            if let Some(below) = batch.remove_below {
                records.retain_in(..below, |_, _| false)?;
            }
        }
        if !batch.positions.is_empty() {
            let mut positions = write.open_table(POSITIONS)?;
            for (consumer, seq) in batch.positions {
                positions.insert(consumer, seq)?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn read(&mut self, from: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<()> {
        let read = self.database.begin_read()?;
        let records = read.open_table(RECORDS)?;
        for pair in records.range(from..)? {
            let (seq, body) = pair?;
            if !each(seq.value(), body.value()) {
                break;
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.close()?;
        Ok(())
    }
}
