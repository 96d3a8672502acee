//! The journal: what was accepted is on disk before anybody is told so.
//!
//! One append for each event, however many backends it goes to; each backend has
//! its own position. `log` keeps records and knows nothing of events; `commit`
//! is the one thread that writes it; `feed` is what a delivery reads from, out of
//! memory (`recent`) or the log; `backends`, `progress` and `position` keep how far each
//! has come, `known` shows it; `dead` keeps the dead letters. All of it stands on
//! `disk`, so that tests can cut the power.
//!
//! Invariants:
//!
//! - [`append`](Journal::append) returns `Ok` only after the events are synced.
//! - A record is removed only when every backend it was for has settled it, and
//!   that is synced too.
//! - Of each backend, accepted = delivered + dead + dropped + pending, also over
//!   a crash: position and books are one write.
//! - What cannot be read is reported, put aside and counted, and what follows it
//!   is read.

mod backends;
mod commit;
mod damage_report;
mod dead;
mod disk;
mod feed;
mod known;
mod log;
#[cfg(test)]
mod model_disk;
mod options;
mod position;
mod progress;
mod recent;
mod record;
#[cfg(test)]
mod tests;
mod upkeep;

use std::fs::{File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::backend::{AsyncBackend, PublishError};
use crate::delivery::{Delivery, DeliveryOptions, Feed};
use crate::event::Event;
use crate::pattern::Pattern;
use backends::{Backend, Backends};
use commit::Intake;
use damage_report::DamageReport;
use dead::Dead;
use disk::{Disk, Folder};
use feed::JournalFeed;
use log::{Log, LogOptions, LogReader};
use position::History;
use recent::Recent;

pub(crate) use backends::BackendId;
pub use known::{ForgetError, KnownBackend};
pub use options::{JournalError, JournalOptions, JournalState, JournalStatus, StartAt};
pub(crate) use record::Targets;

/// A segment has an eighth of the journal, and at most this.
const MAX_SEGMENT: u64 = 64 << 20;

/// The largest event that is taken, in memory.
const MAX_EVENT: usize = 32 << 20;

/// The longest name of a backend, in bytes.
const MAX_NAME: usize = 200;

/// The dead letters have this part of the journal's size, beside the events.
const DEAD_SHARE: u64 = 4;

/// A journal. Cloning is cheap, and the clones are one journal. When the last is
/// dropped, what was taken is written and the folder is free for another.
#[derive(Clone)]
pub struct Journal(Arc<Owner>);

struct Owner {
    inner: Arc<Inner>,
    writer: Mutex<Option<JoinHandle<()>>>,
}

/// What the writer, the feeds and those who append share.
struct Inner {
    folder: PathBuf,
    options: JournalOptions,
    segment_bytes: u64,
    intake: Mutex<Intake>,
    /// Told when there is something to write.
    arrived: Condvar,
    /// Locked after a backend's progress, never before.
    recent: Mutex<Recent>,
    /// One past the newest durable event.
    head: watch::Sender<u64>,
    backends: Mutex<Backends>,
    /// The same, by their numbers.
    by_id: ArcSwap<Vec<Option<Arc<Backend>>>>,
    reader: LogReader,
    size: AtomicU64,
    oldest: AtomicU64,
    /// How many groups were written.
    groups: AtomicU64,
    /// Why the disk cannot be used, while it cannot, by what was tried.
    failures: Mutex<[Option<String>; 3]>,
    /// Whether events were refused for want of room since that was looked after.
    refused: AtomicBool,
    was_full: AtomicBool,
    damage: DamageReport,
    dead: Dead,
    /// Locked as long as the journal is open.
    _lock: File,
}

/// The folders of a journal.
struct Disks {
    positions: Arc<dyn Disk>,
    events: Arc<dyn Disk>,
    dead: Arc<dyn Disk>,
}

impl Journal {
    /// Opens the journal in `folder`, or makes one. Reads and writes files, so it
    /// may take a moment.
    ///
    /// # Errors
    ///
    /// If the folder cannot be used, another process uses it, or a newer version
    /// of this library wrote it. Damage is no error: what can be read is kept, and
    /// what cannot is logged, counted and put aside.
    pub fn open(folder: &Path, options: JournalOptions) -> Result<Journal, JournalError> {
        let unusable = |error: std::io::Error| JournalError::unusable(folder, error);
        let disk: Arc<dyn Disk> = Arc::new(Folder::open(folder).map_err(unusable)?);
        let lock = lock_folder(folder)?;
        let events = Folder::open(&folder.join("events")).map_err(unusable)?;
        let dead = Folder::open(&folder.join("dead")).map_err(unusable)?;
        let disks = Disks {
            positions: disk,
            events: Arc::new(events),
            dead: Arc::new(dead),
        };
        Journal::open_on(folder, disks, lock, options)
    }

    fn open_on(
        folder: &Path,
        disks: Disks,
        lock_file: File,
        options: JournalOptions,
    ) -> Result<Journal, JournalError> {
        let size = options.size.max(options::MIN_SIZE);
        let options = JournalOptions { size, ..options };
        let segment_bytes = (size / 8).min(MAX_SEGMENT);
        let log_options = LogOptions { segment_bytes };
        let (mut log, damage) = Log::open(disks.events, log_options)
            .map_err(|error| JournalError::log(folder, error))?;
        let (dead, dead_damage) = Dead::open(disks.dead, size / DEAD_SHARE)
            .map_err(|error| JournalError::log(folder, error))?;
        for damage in dead_damage {
            tracing::error!("of the dead letters: {damage}");
        }
        let mut problems = Vec::new();
        let backends = Backends::open(disks.positions, log.oldest_seq(), &mut problems)
            .map_err(|error| JournalError::backends(folder, error))?;
        for problem in problems {
            tracing::error!("{problem}");
        }
        // What a backend has settled must never be the number of a new event.
        let known = backends
            .all()
            .iter()
            .map(|backend| backend.progress().known_end());
        let end = known.max().unwrap_or(0).max(dead.known_end());
        let damage_report = DamageReport::default();
        if end > log.next_seq() {
            damage_report.note_end(folder, log.next_seq()..end);
            log.skip_to(end);
            backends
                .all()
                .iter()
                .for_each(|backend| backend.note_damage());
        }
        let head = log.next_seq();
        let inner = Arc::new(Inner {
            folder: folder.to_owned(),
            options,
            segment_bytes,
            intake: Mutex::default(),
            arrived: Condvar::new(),
            recent: Mutex::new(Recent::new(head)),
            head: watch::Sender::new(head),
            by_id: ArcSwap::default(),
            backends: Mutex::new(backends),
            reader: log.reader(),
            size: log.size().into(),
            oldest: log.oldest_seq().into(),
            groups: AtomicU64::new(0),
            failures: Mutex::default(),
            refused: AtomicBool::new(false),
            was_full: AtomicBool::new(false),
            damage: damage_report,
            dead,
            _lock: lock_file,
        });
        inner.note_damage(&damage, &[]);
        inner
            .count_accepted()
            .map_err(|error| JournalError::unusable(folder, error))?;
        inner.settle_all_dead();
        // What comes from now on names those it is for.
        for backend in lock(&inner.backends).all() {
            backend.progress().end_history(head);
        }
        inner.show_backends(&lock(&inner.backends));
        let writer = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn({
                let inner = inner.clone();
                move || commit::run(&inner, log)
            })
            .map_err(|error| JournalError::unusable(folder, error))?;
        Ok(Journal(Arc::new(Owner {
            inner,
            writer: Mutex::new(Some(writer)),
        })))
    }

    /// A delivery to `backend` of what is accepted for it and kept here. One that
    /// was known before goes on where it was; a new one begins as `start` says,
    /// with events of the types `events` if with old ones.
    ///
    /// A delivery of the same name that is in use is waited for: only one can be.
    ///
    /// # Errors
    ///
    /// If the backend cannot be entered: its name is empty, longer than 200 bytes or
    /// has a `/`, or the disk fails.
    pub fn delivery(
        &self,
        backend: impl AsyncBackend,
        options: DeliveryOptions,
        start: StartAt,
        events: &[Pattern],
    ) -> Result<Delivery, JournalError> {
        let known = self.enter(backend.name(), start, events)?;
        let feed: Arc<dyn Feed> = Arc::new(JournalFeed::new(self.clone(), known));
        Ok(Delivery::fed(backend, options, feed))
    }

    /// The number of a backend that was entered.
    pub(crate) fn backend_id(&self, name: &str) -> Option<BackendId> {
        let backends = lock(&self.0.inner.backends);
        backends.of_name(name).map(|backend| backend.id)
    }

    /// Keeps events durably, each for the backends it names: all of them or none.
    /// Those that are appended at the same time share one sync.
    ///
    /// # Errors
    ///
    /// [`PublishError::QueueFull`] if there is no room, [`PublishError::Retryable`]
    /// if the disk fails, [`PublishError::Permanent`] for an event that is too
    /// large, [`PublishError::Closed`].
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the events may or may not be kept.
    pub(crate) async fn append(&self, records: Vec<(Event, Targets)>) -> Result<(), PublishError> {
        if records.is_empty() {
            return Ok(());
        }
        let mut bytes = 0;
        for (event, _) in &records {
            let weight = event.weight();
            if weight > MAX_EVENT {
                let problem = format!(
                    "an event of {weight} bytes is too large for the journal ({MAX_EVENT})"
                );
                return Err(PublishError::Permanent(problem));
            }
            bytes += weight;
        }
        let inner = &*self.0.inner;
        if bytes as u64 > inner.options.size {
            return Err(PublishError::BatchTooLarge {
                backend: "journal".into(),
                events: records.len(),
                limit: inner.size_limit(),
            });
        }
        let group = {
            let mut intake = lock(&inner.intake);
            if intake.closed {
                return Err(PublishError::Closed);
            }
            if inner.size.load(Ordering::Relaxed) + intake.bytes + bytes as u64 > inner.options.size
            {
                drop(intake);
                inner.refused.store(true, Ordering::Relaxed);
                return Err(inner.full());
            }
            intake.push(records, bytes)
        };
        inner.arrived.notify_one();
        group.written().await.map_err(PublishError::Retryable)
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.0.inner.folder
    }

    /// How the journal is.
    pub fn status(&self) -> JournalStatus {
        let inner = &*self.0.inner;
        let failure = lock(&inner.failures).iter().flatten().next().cloned();
        let size = inner.size.load(Ordering::Relaxed);
        let (state, problem) = match failure {
            Some(failure) => (JournalState::Failing, Some(failure)),
            None if size > inner.options.size - inner.segment_bytes / 8 => {
                (JournalState::Full, Some(inner.full().to_string()))
            }
            None => (JournalState::Ok, None),
        };
        JournalStatus {
            folder: inner.folder.clone(),
            state,
            problem,
            size,
            max_size: inner.options.size,
            oldest: inner.oldest.load(Ordering::Relaxed),
            next: *inner.head.borrow(),
            unreadable: inner.damage.unreadable(),
            groups: inner.groups.load(Ordering::Relaxed),
        }
    }

    fn inner(&self) -> &Inner {
        &self.0.inner
    }

    /// The backend of that name, made known if it was not.
    fn enter(
        &self,
        name: &str,
        start: StartAt,
        events: &[Pattern],
    ) -> Result<Arc<Backend>, JournalError> {
        let inner = &*self.0.inner;
        let failed = |reason: String| JournalError::Backend {
            backend: name.to_owned(),
            reason,
        };
        // It names a file.
        if !(1..=MAX_NAME).contains(&name.len()) || name.contains(['/', '\0']) {
            let rule = format!("a name has 1 to {MAX_NAME} bytes, and no `/` among them");
            return Err(failed(rule));
        }
        let mut backends = lock(&inner.backends);
        if let Some(known) = backends.of_name(name) {
            return Ok(known.clone());
        }
        let patterns: usize = events.iter().map(|events| events.as_str().len()).sum();
        if start == StartAt::Oldest && patterns > position::MAX_PATTERNS {
            let rule = format!(
                "to begin with the oldest event, its patterns have {} bytes at most",
                position::MAX_PATTERNS
            );
            return Err(failed(rule));
        }
        let history = (start == StartAt::Oldest).then(|| History {
            events: events.to_vec(),
            ..History::default()
        });
        let bounds = (inner.oldest.load(Ordering::Relaxed), *inner.head.borrow());
        let added = backends.add(name, bounds, history);
        inner.show_backends(&backends);
        added.map_err(|error| failed(error.to_string()))
    }
}

impl Inner {
    fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    /// Shows `backends`, which are locked so that none is forgotten by another.
    fn show_backends(&self, backends: &Backends) {
        let mut by_id: Vec<Option<Arc<Backend>>> = Vec::new();
        for backend in backends.all() {
            let id = usize::from(backend.id.0);
            if by_id.len() <= id {
                by_id.resize(id + 1, None);
            }
            by_id[id] = Some(backend.clone());
        }
        self.by_id.store(Arc::new(by_id));
    }

    fn size_limit(&self) -> String {
        format!("{} MiB", self.options.size >> 20)
    }

    /// The answer when there is no room, with who takes it.
    fn full(&self) -> PublishError {
        let slowest = lock(&self.backends)
            .all()
            .iter()
            .filter_map(|backend| Some((backend.wants()?, backend.clone())))
            .min_by_key(|(wants, _)| *wants);
        let limit = self.size_limit();
        PublishError::QueueFull {
            backend: "journal".into(),
            limit: match slowest {
                Some((_, backend)) => format!(
                    "{limit}; backend `{}` has {} events to deliver",
                    backend.name,
                    backend.books.counts().pending()
                ),
                None => limit,
            },
        }
    }

    fn cannot_write(&self, what: Trouble, error: &std::io::Error) -> String {
        let problem = format!(
            "the journal in {} cannot be written: {error}; make room or mend the disk, then it goes on by itself",
            self.folder.display()
        );
        self.note_failure(what, Some(problem.clone()));
        problem
    }

    fn cannot_read(&self, error: &std::io::Error) {
        let folder = self.folder.display();
        let problem = format!("the journal in {folder} cannot be read: {error}");
        self.note_failure(Trouble::Reading, Some(problem));
    }

    fn has_failed(&self, what: Trouble) -> bool {
        lock(&self.failures)[what as usize].is_some()
    }

    /// Notes that something does not work, and why, or that it does.
    fn note_failure(&self, what: Trouble, problem: Option<String>) {
        let mut failures = lock(&self.failures);
        let failure = &mut failures[what as usize];
        match (&failure, &problem) {
            (None, None) => return,
            (None, Some(problem)) => tracing::error!("{problem}"),
            (Some(_), None) => {
                tracing::info!(folder = %self.folder.display(), "{}", what.mended());
            }
            (Some(_), Some(_)) => {}
        }
        *failure = problem;
    }
}

/// What cannot be done with the disk.
#[derive(Clone, Copy, Debug)]
enum Trouble {
    Log,
    Positions,
    Reading,
}

impl Trouble {
    fn mended(self) -> &'static str {
        match self {
            Trouble::Log => "the journal can be written again",
            Trouble::Positions => "how far backends have come can be written again",
            Trouble::Reading => "the journal can be read again",
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        lock(&self.inner.intake).closed = true;
        self.inner.arrived.notify_one();
        if let Some(writer) = lock(&self.writer).take() {
            let _ = writer.join();
        }
    }
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Journal").field(&self.status()).finish()
    }
}

/// Keeps other processes out of `folder`.
fn lock_folder(folder: &Path) -> Result<File, JournalError> {
    let unusable = |error: std::io::Error| JournalError::unusable(folder, error);
    let mut options = File::options();
    let options = options.read(true).write(true).create(true).truncate(false);
    let options = options.mode(0o600);
    let mut file = options.open(folder.join("lock")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => {
            // For messages only, and the disk may be full.
            let _ = file.set_len(0);
            let _ = write!(file, "{}", std::process::id());
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let known = file.read_to_string(&mut holder).is_ok() && !holder.is_empty();
            Err(JournalError::InUse {
                folder: folder.to_owned(),
                holder: match known {
                    true => format!(" ({holder})"),
                    false => String::new(),
                },
            })
        }
        Err(TryLockError::Error(error)) => Err(unusable(error)),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing under these locks can leave what they guard half changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
