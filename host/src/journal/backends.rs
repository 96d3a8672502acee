//! The backends a journal knows: each with a number that stands in the records,
//! and what it has settled.
//!
//! A backend is known from the day it first came, whether or not it is there
//! now: what was accepted for it waits. The names are kept twice, in a list and
//! in the position files, so that the loss of either is noticed and mended.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::disk::Disk;
use super::lock;
use super::position::{EXTENSION, History, Position, PositionError, PositionFile};
use super::progress::Progress;
use super::recent::Recent;
use crate::delivery::{Books, DropReason};

/// The number of a backend in the records of a journal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BackendId(pub(super) u16);

/// The file with the list of the backends.
const LIST: &str = "backends.json";

/// A backend the journal knows.
pub(super) struct Backend {
    pub(super) id: BackendId,
    pub(super) name: Arc<str>,
    pub(super) books: Arc<Books>,
    /// Held by the feed that is in use; a later one waits for it.
    pub(super) in_use: Arc<Semaphore>,
    /// Whether something on the way could not be read.
    pub(super) met_damage: AtomicBool,
    /// Shared by those that keep dead letters of it: who begins waits for them.
    pub(super) burying: Arc<tokio::sync::RwLock<()>>,
    /// Held while its position is synced.
    syncing: Mutex<()>,
    progress: Mutex<Progress>,
}

/// The list as it is written.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct List {
    version: u32,
    next: u16,
    backends: BTreeMap<String, u16>,
    /// CRC-32 of the others.
    checksum: u32,
}

impl List {
    fn sum(&self) -> u32 {
        let text = format!("{} {} {:?}", self.version, self.next, self.backends);
        crc32fast::hash(text.as_bytes())
    }
}

const LIST_VERSION: u32 = 1;

/// Why the backends of a journal cannot be known.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackendsError {
    #[error("{file} was written by a newer version of this program")]
    Newer { file: String },
    #[error("{file} cannot be read or written: {source}")]
    Io { file: String, source: io::Error },
}

/// All backends a journal knows.
pub(super) struct Backends {
    disk: Arc<dyn Disk>,
    list: List,
    all: Vec<Arc<Backend>>,
}

impl Backends {
    /// Reads what is known. `head` is where the log ends; `oldest` where a backend
    /// begins whose position is lost. `problems` gets what is wrong and was mended.
    pub(super) fn open(
        disk: Arc<dyn Disk>,
        oldest: u64,
        problems: &mut Vec<String>,
    ) -> Result<Backends, BackendsError> {
        let failed = |file: &str| {
            let file = disk.path(file).display().to_string();
            move |source| BackendsError::Io { file, source }
        };
        let read = read_list(&*disk, problems)?;
        let mut list = read.clone();
        let mut all = Vec::new();
        let names = disk.list().map_err(failed(""))?;
        let files = names
            .iter()
            .filter_map(|file| Some((file, file.strip_suffix(&format!(".{EXTENSION}"))?)));
        let mut lost = Vec::new();
        for (file, name) in files {
            match PositionFile::open(&*disk, file) {
                Ok((opened, position)) if position.name == name => {
                    let id = position.id;
                    list.backends.insert(name.to_owned(), id.0);
                    list.next = list.next.max(id.0 + 1);
                    all.push(Arc::new(Backend::from(position, opened)));
                }
                Err(PositionError::Newer) => {
                    let file = disk.path(file).display().to_string();
                    return Err(BackendsError::Newer { file });
                }
                Err(PositionError::Io(source)) => return Err(failed(file)(source)),
                Ok(_) | Err(PositionError::Damaged) => lost.push(file.clone()),
            }
        }
        for file in lost {
            // Kept for whoever wants to look at it.
            let aside = format!("{file}.damaged");
            disk.rename(&file, &aside).map_err(failed(&file))?;
            problems.push(format!(
                "{} is damaged and was put aside as {aside}",
                disk.path(&file).display()
            ));
        }
        let missing: Vec<(String, u16)> = list
            .backends
            .iter()
            .filter(|(name, _)| !all.iter().any(|backend| *backend.name == ***name))
            .map(|(name, id)| (name.clone(), *id))
            .collect();
        for (name, id) in missing {
            problems.push(format!(
                "how far backend `{name}` had come is not known; it begins with the oldest event \
                 that is kept, so some may be delivered again"
            ));
            let position = Position {
                id: BackendId(id),
                settled: oldest,
                until: oldest,
                counted: oldest,
                name,
                ..Position::default()
            };
            let file = PositionFile::name_for(&position.name);
            let made = PositionFile::create(&*disk, &position).map_err(failed(&file))?;
            all.push(Arc::new(Backend::from(position, made)));
        }
        let backends = Backends { disk, list, all };
        // A disk that is full is no reason not to start.
        if backends.list != read || read.checksum == 0 {
            let written = backends.write_list();
            written.map_err(|source| BackendsError::Io {
                file: backends.disk.path(LIST).display().to_string(),
                source,
            })?;
        }
        Ok(backends)
    }

    pub(super) fn all(&self) -> &[Arc<Backend>] {
        &self.all
    }

    pub(super) fn of_name(&self, name: &str) -> Option<&Arc<Backend>> {
        self.all.iter().find(|backend| &*backend.name == name)
    }

    /// Makes a new backend known, durably. It begins at `head`, or at the oldest
    /// event if it has a `history`.
    pub(super) fn add(
        &mut self,
        name: &str,
        (oldest, head): (u64, u64),
        history: Option<History>,
    ) -> io::Result<Arc<Backend>> {
        let id = self.list.next;
        let next = id
            .checked_add(1)
            .ok_or_else(|| io::Error::other("there have been more than 65,535 backends"))?;
        let begin = if history.is_some() { oldest } else { head };
        let position = Position {
            id: BackendId(id),
            name: name.to_owned(),
            settled: begin,
            until: begin,
            counted: head,
            history,
            ..Position::default()
        };
        self.list.next = next;
        self.list.backends.insert(name.to_owned(), id);
        let made = self
            .write_list()
            .and_then(|()| PositionFile::create(&*self.disk, &position));
        let file = made.inspect_err(|_| {
            self.list.backends.remove(name);
        })?;
        let backend = Arc::new(Backend::from(position, file));
        self.all.push(backend.clone());
        Ok(backend)
    }

    fn write_list(&self) -> io::Result<()> {
        let making = format!("{LIST}.new");
        let _ = self.disk.remove(&making);
        let file = self.disk.create(&making)?;
        let list = List {
            checksum: self.list.sum(),
            ..self.list.clone()
        };
        file.write_all_at(&serde_json::to_vec_pretty(&list)?, 0)?;
        file.sync()?;
        self.disk.rename(&making, LIST)?;
        self.disk.sync()
    }
}

/// Reads the list; one that is damaged is made again from the position files.
fn read_list(disk: &dyn Disk, problems: &mut Vec<String>) -> Result<List, BackendsError> {
    let path = disk.path(LIST).display().to_string();
    let empty = List {
        version: LIST_VERSION,
        next: 1,
        ..List::default()
    };
    let read = || -> io::Result<Vec<u8>> {
        let file = disk.open(LIST)?;
        let mut text = vec![0; file.len()?.min(64 << 20) as usize];
        let length = super::position::read_up_to(&*file, &mut text, 0)?;
        text.truncate(length);
        Ok(text)
    };
    let text = match read() {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty),
        Err(source) => return Err(BackendsError::Io { file: path, source }),
    };
    match serde_json::from_slice::<List>(&text) {
        Ok(list) if list.version > LIST_VERSION => Err(BackendsError::Newer { file: path }),
        Ok(list) if list.checksum == list.sum() => Ok(list),
        damaged => {
            let why = damaged.map_or_else(
                |error| error.to_string(),
                |_| "its checksum is another".to_owned(),
            );
            problems.push(format!(
                "{path} is damaged ({why}) and is made again from the position files"
            ));
            Ok(empty)
        }
    }
}

impl Backend {
    fn from(position: Position, file: PositionFile) -> Backend {
        Backend {
            id: position.id,
            name: position.name.as_str().into(),
            books: Arc::new(Books::restore(&position.counts)),
            in_use: Arc::new(Semaphore::new(1)),
            met_damage: AtomicBool::new(position.met_damage),
            burying: Arc::default(),
            syncing: Mutex::default(),
            progress: Mutex::new(Progress::from(position, file)),
        }
    }

    pub(super) fn progress(&self) -> MutexGuard<'_, Progress> {
        lock(&self.progress)
    }

    /// The oldest event it may still want; none if nothing waits for it.
    pub(super) fn wants(&self) -> Option<u64> {
        let progress = self.progress();
        let wants = progress.in_history() || self.books.counts().pending() > 0;
        wants.then(|| progress.settled())
    }

    /// Passes what is not its own, while it is away and nothing waits for it.
    pub(super) fn pass(&self, recent: &Mutex<Recent>) {
        let mut progress = self.progress();
        let recent = lock(recent);
        if !self.is_present() && !progress.in_history() && self.books.counts().pending() == 0 {
            progress.pass(recent.head());
        }
    }

    /// Whether a feed of it is in use.
    pub(super) fn is_present(&self) -> bool {
        self.in_use.available_permits() == 0
    }

    /// Settles everything up to `head` without delivering it; returns how many
    /// events that were. Not while a feed is in use.
    pub(super) fn forget(&self, recent: &Mutex<Recent>) -> u64 {
        let mut progress = self.progress();
        let (head, pending) = {
            let recent = lock(recent);
            let pending = self.books.counts().pending();
            self.books.drop_(DropReason::Forgotten, pending);
            (recent.head(), pending)
        };
        progress.pass(head);
        progress.end_history(head);
        progress.write(self, recent);
        pending
    }

    /// Writes its position if that is behind, and syncs it if that was not done since.
    pub(super) fn sync(&self, recent: &Mutex<Recent>) -> io::Result<()> {
        let _syncing = lock(&self.syncing);
        let file = {
            let mut progress = self.progress();
            let head = lock(recent).head();
            if progress.is_behind(self, head) {
                progress.write(self, recent);
            }
            progress.begin_sync()
        };
        let unwritten = |error: io::Error| {
            let problem = format!("how far backend `{}` has come: {error}", self.name);
            io::Error::new(error.kind(), problem)
        };
        let Some(file) = file.map_err(unwritten)? else {
            return Ok(());
        };
        let synced = file.sync();
        self.progress().end_sync(synced.is_ok());
        synced.map_err(unwritten)
    }

    /// Counts events as dead of which its position does not know: the dead letters
    /// do. Nothing must be handed out.
    pub(super) fn settle_dead(&self, seqs: &[u64], recent: &Mutex<Recent>) {
        let mut progress = self.progress();
        let unknown = progress.settle_dead(seqs);
        if unknown.is_empty() {
            return;
        }
        self.books.bury(unknown.len() as u64);
        // What was accepted but lost from the log was not counted yet. Of a history,
        // what was not counted is when it is met.
        let is_counted = |seq: &&u64| {
            let history = progress.history.as_ref();
            history.is_none_or(|history| {
                **seq < history.counted || history.until.is_some_and(|until| **seq >= until)
            })
        };
        let counted = unknown.iter().filter(is_counted).count() as u64;
        let uncounted = self.books.counts().uncounted();
        self.books.accept(uncounted.min(counted));
        progress.write(self, recent);
    }

    pub(super) fn note_damage(&self) {
        self.met_damage.store(true, Ordering::Relaxed);
    }
}
