//! What is kept of a backend: how far it has come, and its books.
//!
//! One file for each backend, of a fixed size, with room for four versions. Each
//! has a number and a checksum, so a version that was only half written when the
//! power went does not count and one before it does. It is written with every
//! settlement and synced now and then, and never over the version that was synced
//! last, is being synced, or was written last. A version that is lost has its
//! events delivered again, and none is lost with it.

use std::io;
use std::sync::Arc;

use super::backends::BackendId;
use super::disk::{Disk, DiskFile};
use super::record::{Malformed, read_number, read_text, write_number, write_text};
use crate::delivery::DeliveryCounts;
use crate::pattern::Pattern;

/// The room of one version.
const ROOM: usize = 64 << 10;

/// How many versions there is room for.
const ROOMS: u64 = 4;

/// The most bytes of a history's patterns.
pub(super) const MAX_PATTERNS: usize = 16 << 10;

/// Magic bytes, and the version of the format.
const MAGIC: [u8; 8] = *b"bhpos\0\0\x01";

/// Magic, checksum, length.
const HEAD: usize = 8 + 4 + 4;

/// The end of the names of these files.
pub(super) const EXTENSION: &str = "position";

/// How far a backend has come.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Position {
    pub(super) id: BackendId,
    pub(super) name: String,
    /// Its first event that is not settled is this one or a later one.
    pub(super) settled: u64,
    /// Everything below is settled, but for `open`.
    pub(super) until: u64,
    /// What is not settled below `until`, in order.
    pub(super) open: Vec<u64>,
    /// What is settled from `until` on, in order.
    pub(super) beyond: Vec<u64>,
    /// Whether something on the way could not be read and is not written off yet.
    pub(super) met_damage: bool,
    /// Up to which event those for it are counted as accepted.
    pub(super) counted: u64,
    pub(super) counts: DeliveryCounts,
    /// What of the events before it came goes to it.
    pub(super) history: Option<History>,
}

/// A backend that came later may begin with events that were accepted before.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct History {
    /// Which types of those before.
    pub(super) events: Vec<Pattern>,
    /// The first event that was accepted with it in mind, once it is met.
    pub(super) until: Option<u64>,
    /// Up to which event those from before are counted as accepted.
    pub(super) counted: u64,
}

/// Why a position file is of no use.
#[derive(Debug, thiserror::Error)]
pub(super) enum PositionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("it was written by a newer version of this program")]
    Newer,
    #[error("neither of the two versions it should hold is whole")]
    Damaged,
}

/// The file of a [`Position`].
pub(super) struct PositionFile {
    file: Arc<dyn DiskFile>,
    /// The number of the last version written, and its room.
    version: u64,
    last: u64,
    /// The rooms of the version synced last and of the one being synced.
    synced: u64,
    syncing: u64,
    buffer: Vec<u8>,
}

impl PositionFile {
    pub(super) fn name_for(backend: &str) -> String {
        format!("{backend}.{EXTENSION}")
    }

    /// Makes the file of a new backend, durably and with all the room it will need.
    pub(super) fn create(disk: &dyn Disk, position: &Position) -> io::Result<PositionFile> {
        let name = PositionFile::name_for(&position.name);
        // Under another name until it is whole.
        let making = format!("{name}.new");
        let _ = disk.remove(&making);
        let file = disk.create(&making)?;
        file.write_all_at(&vec![0; ROOMS as usize * ROOM], 0)?;
        let mut made = PositionFile::at(file, 0, 0);
        made.write(position)?;
        made.file.sync()?;
        made.synced = made.last;
        disk.rename(&making, &name)?;
        disk.sync()?;
        Ok(made)
    }

    /// Opens the file of a backend and reads the newest whole version.
    pub(super) fn open(
        disk: &dyn Disk,
        name: &str,
    ) -> Result<(PositionFile, Position), PositionError> {
        let file = disk.open(name)?;
        let (mut best, mut newer) = (None::<(u64, u64, Position)>, false);
        for at in 0..ROOMS {
            let mut room = vec![0; ROOM];
            let length = read_up_to(&*file, &mut room, at * ROOM as u64)?;
            match decode(&room[..length]) {
                Ok((version, position)) => {
                    if best.as_ref().is_none_or(|(before, ..)| version > *before) {
                        best = Some((version, at, position));
                    }
                }
                Err(PositionError::Newer) => newer = true,
                Err(_) => {}
            }
        }
        match best {
            _ if newer => Err(PositionError::Newer),
            None => Err(PositionError::Damaged),
            Some((version, at, position)) => Ok((PositionFile::at(file, version, at), position)),
        }
    }

    fn at(file: Arc<dyn DiskFile>, version: u64, room: u64) -> PositionFile {
        PositionFile {
            file,
            version,
            last: room,
            synced: room,
            syncing: room,
            buffer: Vec::new(),
        }
    }

    /// Writes the next version.
    pub(super) fn write(&mut self, position: &Position) -> io::Result<()> {
        self.version += 1;
        encode(&mut self.buffer, self.version, position);
        let used = [self.last, self.synced, self.syncing];
        let free = (0..ROOMS).find(|room| !used.contains(room));
        let room = free.expect("three of four are used at most");
        self.file.write_all_at(&self.buffer, room * ROOM as u64)?;
        self.last = room;
        Ok(())
    }

    /// The file, to sync it without holding what writes it: the version written
    /// last is kept until [`end_sync`](Self::end_sync).
    pub(super) fn begin_sync(&mut self) -> Arc<dyn DiskFile> {
        self.syncing = self.last;
        self.file.clone()
    }

    /// Notes how a sync ended.
    pub(super) fn end_sync(&mut self, is_durable: bool) {
        match is_durable {
            true => self.synced = self.syncing,
            false => self.syncing = self.synced,
        }
    }
}

pub(super) fn read_up_to(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read_at(&mut buffer[length..], offset + length as u64)? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

fn encode(to: &mut Vec<u8>, version: u64, position: &Position) {
    to.clear();
    to.extend(MAGIC);
    to.extend([0; HEAD - MAGIC.len()]);
    write_number(to, version);
    write_number(to, u64::from(position.id.0));
    write_text(to, &position.name);
    write_number(to, position.settled);
    write_number(to, position.counted);
    write_number(to, u64::from(position.met_damage));
    for count in position.counts.to_array() {
        write_number(to, count);
    }
    write_number(to, u64::from(position.history.is_some()));
    if let Some(history) = &position.history {
        // There is no event 0.
        write_number(to, history.until.unwrap_or(0));
        write_number(to, history.counted);
        write_number(to, history.events.len() as u64);
        for pattern in &history.events {
            write_text(to, pattern.as_str());
        }
    }
    write_seqs(to, position);
    let length = (to.len() - HEAD) as u32;
    let checksum = crc32fast::hash(&to[HEAD..]);
    to[MAGIC.len()..][..4].copy_from_slice(&checksum.to_le_bytes());
    to[MAGIC.len() + 4..][..4].copy_from_slice(&length.to_le_bytes());
}

/// As many as there is room for: what follows is not said to be settled, and would
/// be delivered again.
fn write_seqs(to: &mut Vec<u8>, position: &Position) {
    // A number takes ten bytes at most; `until`, two counts and as many numbers.
    let room = (ROOM - to.len()) / 10 - 3;
    let open = &position.open[..position.open.len().min(room)];
    let (until, beyond): (u64, &[u64]) = match position.open.get(open.len()) {
        Some(first_left_out) => (*first_left_out, &[]),
        None => {
            let beyond = position.beyond.len().min(room - open.len());
            (position.until, &position.beyond[..beyond])
        }
    };
    write_number(to, until);
    for seqs in [open, beyond] {
        write_number(to, seqs.len() as u64);
        let mut last = position.settled;
        for seq in seqs {
            write_number(to, seq.saturating_sub(last));
            last = *seq;
        }
    }
}

fn read_seqs(from: &mut &[u8], settled: u64) -> Result<Vec<u64>, Malformed> {
    let mut last = settled;
    let seqs = (0..read_number(from)?).map(|_| {
        last = last.saturating_add(read_number(from)?);
        Ok(last)
    });
    seqs.collect()
}

fn decode(bytes: &[u8]) -> Result<(u64, Position), PositionError> {
    let (head, rest) = bytes.split_at_checked(HEAD).ok_or(PositionError::Damaged)?;
    let (magic, sums) = head.split_at(MAGIC.len());
    if magic[..7] != MAGIC[..7] {
        return Err(PositionError::Damaged);
    }
    if magic[7] > MAGIC[7] {
        return Err(PositionError::Newer);
    }
    let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("four bytes"));
    let (checksum, length) = (number(&sums[..4]), number(&sums[4..]) as usize);
    let body = rest.get(..length).ok_or(PositionError::Damaged)?;
    if crc32fast::hash(body) != checksum {
        return Err(PositionError::Damaged);
    }
    decode_body(body).map_err(|_| PositionError::Damaged)
}

fn decode_body(mut from: &[u8]) -> Result<(u64, Position), Malformed> {
    let from = &mut from;
    let version = read_number(from)?;
    let id = u16::try_from(read_number(from)?).map_err(|_| Malformed::Short)?;
    let name = read_text(from)?;
    let settled = read_number(from)?;
    let counted = read_number(from)?;
    let met_damage = read_number(from)? != 0;
    let mut counts = DeliveryCounts::default().to_array();
    for count in &mut counts {
        *count = read_number(from)?;
    }
    let history = match read_number(from)? {
        0 => None,
        _ => Some(decode_history(from)?),
    };
    let position = Position {
        id: BackendId(id),
        name,
        settled,
        until: read_number(from)?,
        open: read_seqs(from, settled)?,
        beyond: read_seqs(from, settled)?,
        met_damage,
        counted,
        counts: DeliveryCounts::from_array(counts),
        history,
    };
    Ok((version, position))
}

fn decode_history(from: &mut &[u8]) -> Result<History, Malformed> {
    let until = Some(read_number(from)?).filter(|seq| *seq > 0);
    let counted = read_number(from)?;
    let mut events = Vec::new();
    for _ in 0..read_number(from)? {
        events.push(read_text(from)?.parse().map_err(|_| Malformed::NotText)?);
    }
    Ok(History {
        events,
        until,
        counted,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::disk::Folder;

    fn position(settled: u64) -> Position {
        Position {
            id: BackendId(3),
            name: "redis".into(),
            settled,
            until: settled + 310,
            open: vec![settled, settled + 7, settled + 300],
            beyond: vec![settled + 310, settled + 399],
            met_damage: true,
            counted: settled + 400,
            counts: DeliveryCounts::from_array([9, 4, 1, 0, 1, 0, 7]),
            history: Some(History {
                events: vec!["after:*".parse().unwrap()],
                until: None,
                counted: 12,
            }),
        }
    }

    fn folder() -> (tempfile::TempDir, Folder) {
        let folder = tempfile::tempdir().unwrap();
        let disk = Folder::open(folder.path()).unwrap();
        (folder, disk)
    }

    #[test]
    fn the_last_position_written_is_read() {
        let (_folder, disk) = folder();
        let mut file = PositionFile::create(&disk, &position(1)).unwrap();
        for settled in 2..6 {
            file.write(&position(settled)).unwrap();
            let (_, read) = PositionFile::open(&disk, "redis.position").unwrap();
            assert_eq!(read, position(settled));
        }
    }

    #[test]
    fn a_version_that_is_not_whole_leaves_the_one_before() {
        let (_folder, disk) = folder();
        let mut file = PositionFile::create(&disk, &position(1)).unwrap();
        let tear = |file: &PositionFile| {
            let at = file.last * ROOM as u64 + HEAD as u64 + 5;
            file.file.write_all_at(&[0xff], at).unwrap();
        };
        file.write(&position(2)).unwrap();
        tear(&file);
        let (_, read) = PositionFile::open(&disk, "redis.position").unwrap();
        assert_eq!(read, position(1));
        file.last = file.synced;
        tear(&file);
        let error = PositionFile::open(&disk, "redis.position").err().unwrap();
        assert!(matches!(error, PositionError::Damaged), "{error}");
    }

    #[test]
    fn what_was_synced_is_not_written_over_before_something_newer_is() {
        let (_folder, disk) = folder();
        let mut file = PositionFile::create(&disk, &position(1)).unwrap();
        let mut newest_synced = (1, file.last);
        for settled in 2..40 {
            file.write(&position(settled)).unwrap();
            assert_ne!(
                file.last, newest_synced.1,
                "{newest_synced:?} is still needed"
            );
            match settled % 5 {
                0 => drop(file.begin_sync()),
                2 => {
                    let synced = file.syncing;
                    file.end_sync(settled % 2 == 0);
                    if settled % 2 == 0 {
                        newest_synced = (settled, synced);
                    }
                }
                _ => {}
            }
        }
    }

    #[test]
    fn a_file_of_a_newer_version_is_not_read_as_an_old_one() {
        let (_folder, disk) = folder();
        let file = PositionFile::create(&disk, &position(1)).unwrap();
        file.file.write_all_at(b"bhpos\0\0\x02", 0).unwrap();
        let error = PositionFile::open(&disk, "redis.position").err().unwrap();
        assert!(matches!(error, PositionError::Newer), "{error}");
    }

    #[test]
    fn a_position_never_outgrows_its_room() {
        let (_folder, disk) = folder();
        let mut large = position(1);
        large.until = u64::MAX;
        large.open = (1..100_000).map(|n| n * 1_000_000_000_000).collect();
        PositionFile::create(&disk, &large).unwrap();
        let (_, read) = PositionFile::open(&disk, "redis.position").unwrap();
        assert!(read.open.len() > 5_000 && large.open.starts_with(&read.open));
        assert_eq!(
            read.until,
            large.open[read.open.len()],
            "nothing more is said"
        );
        assert!(read.beyond.is_empty());
    }
}
