//! SQLite through rusqlite: write-ahead log, `synchronous=FULL`, prepared
//! statements, one immediate transaction for each group.

use std::path::Path;

use anyhow::{Result, ensure};
use rusqlite::{Connection, TransactionBehavior, params};

use crate::store::{Batch, Store};

/// A SQLite database.
pub(crate) struct Sqlite {
    connection: Connection,
}

impl Sqlite {
    /// Opens the database in `folder`, after a check of all of it if asked.
    pub(crate) fn open(folder: &Path, checked: bool) -> Result<Self> {
        let connection = Connection::open(folder.join("sqlite"))?;
        let text = |pragma: &str| connection.query_row(pragma, [], |row| row.get::<_, String>(0));
        let mode = text("PRAGMA journal_mode = WAL")?;
        ensure!(mode == "wal", "no write-ahead log, but {mode}");
        if checked {
            let found = text("PRAGMA integrity_check")?;
            ensure!(found == "ok", "integrity check: {found}");
        }
        connection.execute_batch(
            "PRAGMA synchronous = FULL;
             CREATE TABLE IF NOT EXISTS records (seq INTEGER PRIMARY KEY, body BLOB NOT NULL);
             CREATE TABLE IF NOT EXISTS positions (consumer INTEGER PRIMARY KEY, seq INTEGER NOT NULL);",
        )?;
        Ok(Self { connection })
    }
}

impl Store for Sqlite {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        let behavior = TransactionBehavior::Immediate;
        let write = self.connection.transaction_with_behavior(behavior)?;
        {
            let mut insert = write.prepare_cached("INSERT INTO records VALUES (?1, ?2)")?;
            for (seq, record) in (batch.first..).zip(batch.records) {
                insert.execute(params![seq.cast_signed(), record])?;
            }
            let mut settle = write.prepare_cached("REPLACE INTO positions VALUES (?1, ?2)")?;
            for (consumer, seq) in batch.positions {
                settle.execute(params![consumer, seq.cast_signed()])?;
            }
            if let Some(below) = batch.remove_below {
                let mut remove = write.prepare_cached("DELETE FROM records WHERE seq < ?1")?;
                remove.execute([below.cast_signed()])?;
            }
        }
        write.commit()?;
        Ok(())
    }

    fn read(&mut self, from: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<()> {
        let select = "SELECT seq, body FROM records WHERE seq >= ?1 ORDER BY seq";
        let mut select = self.connection.prepare_cached(select)?;
        let mut rows = select.query([from.cast_signed()])?;
        while let Some(row) = rows.next()? {
            let seq: i64 = row.get(0)?;
            if !each(seq.cast_unsigned(), row.get_ref(1)?.as_blob()?) {
                break;
            }
        }
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.connection.close().map_err(|(_, error)| error)?;
        Ok(())
    }
}
