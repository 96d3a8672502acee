//! A folder in memory that loses what was not synced, and fails when told to.
//!
//! Kept for each file: the bytes that are durable, and the writes since. A
//! power cut keeps each of these, each change of a length, and each change of a
//! name, or does not, independently of the others; of a write, each sector of
//! 512 bytes. After a failed sync the writes before it count as written, as the
//! systems do that drop the pages: what they did not reach is never written.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use super::disk::{Disk, DiskFile};

const SECTOR: u64 = 512;

/// A small generator of numbers (xorshift64*), from a seed a test is given.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// Below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 11) % bound.max(1)
    }

    fn coin(&mut self) -> bool {
        self.below(2) == 0
    }
}

/// What an operation that is made to fail says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    NoSpace,
    Io,
}

impl Fault {
    fn error(self) -> io::Error {
        match self {
            Fault::NoSpace => io::Error::new(io::ErrorKind::StorageFull, "no space (injected)"),
            Fault::Io => io::Error::other("input/output error (injected)"),
        }
    }
}

/// Which changing operations fail: `count`, after `after` others.
struct Failing {
    after: u64,
    count: u64,
    fault: Fault,
}

#[derive(Clone)]
pub(crate) struct ModelDisk {
    state: Arc<Mutex<State>>,
}

struct State {
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    files: Vec<FileState>,
    rng: Rng,
    fail_in: Option<Failing>,
    full: bool,
    /// Writing in place takes space, too.
    copy_on_write: bool,
    /// Handles from before the last power cut are dead.
    boot: u64,
}

#[derive(Default)]
struct FileState {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    Len(u64),
}

enum NameChange {
    Create(String, usize),
    Remove(String, usize),
    Rename {
        from: String,
        to: String,
        file: usize,
    },
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<String, usize>) {
        match self {
            NameChange::Create(name, file) => {
                names.insert(name.clone(), *file);
            }
            NameChange::Remove(name, file) => {
                if names.get(name) == Some(file) {
                    names.remove(name);
                }
            }
            NameChange::Rename { from, to, file } => {
                if names.get(from) == Some(file) {
                    names.remove(from);
                }
                names.insert(to.clone(), *file);
            }
        }
    }
}

impl FileState {
    /// Makes the pending changes durable; not what is seen besides, which a
    /// sync that failed has given up.
    fn sync(&mut self) {
        for change in self.pending.drain(..) {
            match change {
                Change::Write { offset, bytes } => {
                    let end = offset as usize + bytes.len();
                    if self.durable.len() < end {
                        self.durable.resize(end, 0);
                    }
                    self.durable[offset as usize..end].copy_from_slice(&bytes);
                }
                Change::Len(len) => self.durable.resize(len as usize, 0),
            }
        }
    }

    /// Keeps of the pending changes what chance keeps.
    fn settle(&mut self, rng: &mut Rng) {
        let mut bytes = std::mem::take(&mut self.durable);
        let mut len = bytes.len();
        for change in self.pending.drain(..) {
            match change {
                Change::Write {
                    offset,
                    bytes: written,
                } => {
                    let kind = rng.below(4);
                    let end = offset as usize + written.len();
                    if bytes.len() < end {
                        bytes.resize(end, 0);
                    }
                    let mut at = offset;
                    while at < end as u64 {
                        let to = ((at / SECTOR + 1) * SECTOR).min(end as u64);
                        let kept = match kind {
                            0 => false,
                            1 => true,
                            _ => rng.coin(),
                        };
                        if kept {
                            bytes[at as usize..to as usize].copy_from_slice(
                                &written[(at - offset) as usize..(to - offset) as usize],
                            );
                        }
                        at = to;
                    }
                }
                Change::Len(new) if rng.coin() => {
                    if (new as usize) < len {
                        bytes.truncate(new as usize);
                    }
                    len = new as usize;
                }
                Change::Len(_) => {}
            }
        }
        bytes.resize(len, 0);
        self.durable = bytes;
    }
}

impl ModelDisk {
    pub(crate) fn new(seed: u64) -> ModelDisk {
        let state = State {
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            files: Vec::new(),
            rng: Rng::new(seed),
            fail_in: None,
            full: false,
            copy_on_write: false,
            boot: 0,
        };
        ModelDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Loses what chance does not keep of what was not synced. Files that are
    /// open can no longer be used.
    pub(crate) fn cut_power(&self, rng: &mut Rng) {
        let state = &mut *self.state();
        for file in &mut state.files {
            file.settle(rng);
            file.seen = file.durable.clone();
        }
        for change in state.pending_names.drain(..) {
            if rng.coin() {
                change.apply(&mut state.durable_names);
            }
        }
        state.names = state.durable_names.clone();
        state.boot += 1;
        state.fail_in = None;
    }

    /// The `n`-th changing operation from now on fails; 0 is the next.
    pub(crate) fn fail_in(&self, n: u64, fault: Fault) {
        self.fail_several_in(n, 1, fault);
    }

    /// So do the ones behind it, `count` in all.
    pub(crate) fn fail_several_in(&self, n: u64, count: u64, fault: Fault) {
        self.state().fail_in = Some(Failing {
            after: n,
            count,
            fault,
        });
    }

    /// Nothing fails any more, but for want of space.
    pub(crate) fn heal(&self) {
        self.state().fail_in = None;
    }

    /// While true no file can be made or lengthened. Writing in place works, as
    /// it does on ext4 and XFS, unless `copy_on_write` was called.
    pub(crate) fn set_full(&self, full: bool) {
        self.state().full = full;
    }

    /// From now on writing in place takes space, as it does on Btrfs and ZFS.
    pub(crate) fn copy_on_write(&self) {
        self.state().copy_on_write = true;
    }

    /// Changes one bit, as it is seen and on the disk.
    pub(crate) fn flip_bit(&self, name: &str, byte: u64, bit: u32) {
        self.change(name, |bytes| bytes[byte as usize] ^= 1 << bit);
    }

    /// Changes the bytes of a file behind the log's back, durably.
    pub(crate) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = self.state();
        let id = state.names[name];
        let file = &mut state.files[id];
        change(&mut file.seen);
        file.durable = file.seen.clone();
        file.pending.clear();
    }

    /// Adds a file with these bytes, durably.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.state();
        let id = state.files.len();
        state.files.push(FileState {
            seen: bytes.clone(),
            durable: bytes,
            pending: Vec::new(),
        });
        state.names.insert(name.to_owned(), id);
        state.durable_names.insert(name.to_owned(), id);
    }

    /// Removes a file behind the log's back, durably.
    pub(crate) fn remove_file(&self, name: &str) {
        let mut state = self.state();
        state.names.remove(name);
        state.durable_names.remove(name);
    }

    /// The bytes of a file as they are seen.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.files[state.names[name]].seen.clone()
    }

    /// The names that end so, sorted.
    pub(crate) fn names(&self, end: &str) -> Vec<String> {
        self.state()
            .names
            .keys()
            .filter(|name| name.ends_with(end))
            .cloned()
            .collect()
    }
}

impl State {
    /// Counts a changing operation; says whether it fails.
    fn operate(&mut self) -> Option<Fault> {
        let failing = self.fail_in.as_mut()?;
        if failing.after > 0 {
            failing.after -= 1;
            return None;
        }
        let fault = failing.fault;
        failing.count -= 1;
        if failing.count == 0 {
            self.fail_in = None;
        }
        Some(fault)
    }

    fn id(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn change_name(&mut self, change: NameChange) {
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }
}

impl Disk for ModelDisk {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.state().names.keys().cloned().collect())
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let state = self.state();
        let id = state.id(name)?;
        Ok(Arc::new(ModelFile {
            disk: self.clone(),
            id,
            boot: state.boot,
        }))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        if state.full {
            return Err(Fault::NoSpace.error());
        }
        if let Some(fault) = state.operate() {
            return Err(fault.error());
        }
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let id = state.files.len();
        state.files.push(FileState::default());
        state.change_name(NameChange::Create(name.to_owned(), id));
        Ok(Arc::new(ModelFile {
            disk: self.clone(),
            id,
            boot: state.boot,
        }))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut state = self.state();
        let id = state.id(name)?;
        if let Some(fault) = state.operate() {
            return Err(fault.error());
        }
        state.change_name(NameChange::Remove(name.to_owned(), id));
        Ok(())
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut state = self.state();
        let file = state.id(from)?;
        if let Some(fault) = state.operate() {
            return Err(fault.error());
        }
        let (from, to) = (from.to_owned(), to.to_owned());
        state.change_name(NameChange::Rename { from, to, file });
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let state = &mut *self.state();
        if let Some(fault) = state.operate() {
            return Err(fault.error());
        }
        state.pending_names.clear();
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        PathBuf::from("/model").join(name)
    }
}

struct ModelFile {
    disk: ModelDisk,
    id: usize,
    boot: u64,
}

impl ModelFile {
    fn with<T>(&self, operate: impl FnOnce(&mut State, usize) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.disk.state();
        assert_eq!(state.boot, self.boot, "a file was used after the power cut");
        operate(&mut state, self.id)
    }
}

fn write(file: &mut FileState, bytes: &[u8], offset: u64) {
    let end = offset as usize + bytes.len();
    file.pending.push(Change::Write {
        offset,
        bytes: bytes.to_vec(),
    });
    if file.seen.len() < end {
        file.seen.resize(end, 0);
        file.pending.push(Change::Len(end as u64));
    }
    file.seen[offset as usize..end].copy_from_slice(bytes);
}

impl DiskFile for ModelFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.with(|state, id| {
            let seen = &state.files[id].seen;
            let from = (offset as usize).min(seen.len());
            let n = buffer.len().min(seen.len() - from);
            buffer[..n].copy_from_slice(&seen[from..from + n]);
            Ok(n)
        })
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.with(|state, id| {
            let longer = offset as usize + bytes.len() > state.files[id].seen.len();
            let takes_space = longer || state.copy_on_write;
            let fault = match state.operate() {
                _ if state.full && takes_space => Some(Fault::NoSpace),
                Some(Fault::NoSpace) if !takes_space => Some(Fault::Io),
                fault => fault,
            };
            if let Some(fault) = fault {
                let part = state.rng.below(bytes.len() as u64 + 1) as usize;
                write(&mut state.files[id], &bytes[..part], offset);
                return Err(fault.error());
            }
            write(&mut state.files[id], bytes, offset);
            Ok(())
        })
    }

    fn len(&self) -> io::Result<u64> {
        self.with(|state, id| Ok(state.files[id].seen.len() as u64))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|state, id| {
            if let Some(fault) = state.operate() {
                return Err(fault.error());
            }
            let file = &mut state.files[id];
            file.seen.resize(len as usize, 0);
            file.pending.push(Change::Len(len));
            Ok(())
        })
    }

    fn sync(&self) -> io::Result<()> {
        self.with(|state, id| {
            if let Some(fault) = state.operate() {
                let mut rng = state.rng.clone();
                state.files[id].settle(&mut rng);
                state.rng = rng;
                return Err(fault.error());
            }
            state.files[id].sync();
            Ok(())
        })
    }

    fn modified(&self) -> io::Result<SystemTime> {
        Ok(SystemTime::UNIX_EPOCH)
    }
}
