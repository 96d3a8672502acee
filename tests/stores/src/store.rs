//! What the journal asks of a store, and the list of those that are compared.
//!
//! Another store: a file that implements [`Store`], a [`Kind`], and its line
//! in [`Kind::name`] and [`Kind::open`]. Nothing else knows the stores apart.

use std::path::Path;

use anyhow::Result;

use crate::{bare, fjall, own, raft, redb, sqlite};

/// One append, with what the journal has to say at the same time.
pub(crate) struct Batch<'a> {
    /// The number of the first record; the next have the next numbers.
    pub(crate) first: u64,
    /// The records.
    pub(crate) records: &'a [Vec<u8>],
    /// How far each consumer is. May be lost in a crash.
    pub(crate) positions: &'a [(u16, u64)],
    /// Records below this number are not needed any more.
    pub(crate) remove_below: Option<u64>,
}

impl<'a> Batch<'a> {
    /// Records alone.
    pub(crate) fn of(first: u64, records: &'a [Vec<u8>]) -> Self {
        Self {
            first,
            records,
            positions: &[],
            remove_below: None,
        }
    }
}

/// An embedded store, used the way its documentation recommends for this.
pub(crate) trait Store {
    /// Appends. The records are on the disk when this returns.
    fn append(&mut self, batch: &Batch<'_>) -> Result<()>;

    /// Reads in order from record `from`, or the first that is there, until
    /// `each` answers no. An error says that the next one cannot be read.
    fn read(&mut self, from: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<()>;

    /// Closes in good order.
    fn close(self: Box<Self>) -> Result<()>;
}

/// A store in a certain configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Append and fdatasync to a growing file: the limit.
    Bare,
    /// The same over bytes that were written before, without growth.
    BareOver,
    /// fjall.
    Fjall,
    /// redb.
    Redb,
    /// redb that checks the whole file when it opens it.
    RedbChecked,
    /// SQLite, write-ahead log, full synchronous.
    Sqlite,
    /// SQLite with `PRAGMA integrity_check` after opening.
    SqliteChecked,
    /// raft-engine.
    Raft,
    /// The journal's own log.
    Own,
}

impl Kind {
    /// Those whose speed is compared.
    pub(crate) const TIMED: [Kind; 7] = [
        Kind::Bare,
        Kind::BareOver,
        Kind::Fjall,
        Kind::Redb,
        Kind::Sqlite,
        Kind::Raft,
        Kind::Own,
    ];

    /// Those that keep records and are damaged.
    pub(crate) const STORES: [Kind; 5] =
        [Kind::Fjall, Kind::Redb, Kind::Sqlite, Kind::Raft, Kind::Own];

    /// The same files opened with more checks, where the store has that.
    pub(crate) fn checked(self) -> Option<Kind> {
        match self {
            Kind::Redb => Some(Kind::RedbChecked),
            Kind::Sqlite => Some(Kind::SqliteChecked),
            _ => None,
        }
    }

    /// The name in tables, and between the processes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Bare => "bare",
            Kind::BareOver => "bare-over",
            Kind::Fjall => "fjall",
            Kind::Redb => "redb",
            Kind::RedbChecked => "redb-checked",
            Kind::Sqlite => "sqlite",
            Kind::SqliteChecked => "sqlite-checked",
            Kind::Raft => "raft-engine",
            Kind::Own => "own",
        }
    }

    /// The kind of that name.
    pub(crate) fn named(name: &str) -> Result<Kind> {
        let mut all = Self::TIMED.into_iter();
        let mut checked = Self::TIMED.into_iter().filter_map(Kind::checked);
        all.find(|kind| kind.name() == name)
            .or_else(|| checked.find(|kind| kind.name() == name))
            .ok_or_else(|| anyhow::anyhow!("no store is called {name}"))
    }

    /// Opens the store in `folder`, which is made if it is not there.
    /// A small one keeps its files small, for a disk of some megabytes and
    /// so that little data is spread over the files as much data would be.
    pub(crate) fn open(self, folder: &Path, small: bool) -> Result<Box<dyn Store>> {
        std::fs::create_dir_all(folder)?;
        Ok(match self {
            Kind::Bare => Box::new(bare::Bare::open(folder, false)?),
            Kind::BareOver => Box::new(bare::Bare::open(folder, true)?),
            Kind::Fjall => Box::new(fjall::Fjall::open(folder, small)?),
            Kind::Redb => Box::new(redb::Redb::open(folder, false)?),
            Kind::RedbChecked => Box::new(redb::Redb::open(folder, true)?),
            Kind::Sqlite => Box::new(sqlite::Sqlite::open(folder, false)?),
            Kind::SqliteChecked => Box::new(sqlite::Sqlite::open(folder, true)?),
            Kind::Raft => Box::new(raft::Raft::open(folder, small)?),
            Kind::Own => Box::new(own::Own::open(folder, small)?),
        })
    }
}
