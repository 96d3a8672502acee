//! Compiled code on disk, so that a component is compiled once per machine.
//!
//! An entry is named by the component's SHA-256 and by the engine's mark (version
//! and settings of Wasmtime, and the processor). It holds a digest over both and
//! the code, then the code. The code is run as it is, so whoever can write here
//! can run code as this user. Hence:
//!
//! - The folder belongs to this user and is writable by nobody else; and nobody
//!   else can put another in its place: it is no symlink, and no folder above it
//!   can be changed by anyone but this user and root.
//! - The folder is opened once, and entries are opened in it, not by its path.
//! - So it is with an entry, which must also be a file with no other name: one
//!   with another could be written to from elsewhere.
//! - An entry is read into memory, then checked, then used: changing the file in
//!   between changes nothing. (That is also why it is not mapped.)
//!
//! The digest is against damage and mistakes, such as an entry copied to another's
//! name. It is no secret, and against someone who can write here it is no help.
//!
//! What was not used for a month is removed, and so is what was not used for
//! longest when all of it is too large.

use std::fmt;
use std::fs::{DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags};
use sha2::{Digest, Sha256};
use wasmtime::Engine;
use wasmtime::component::Component;

use super::engine::EngineMark;
use super::text::hex;

const DIGEST_LEN: usize = 32;

/// The most bytes all entries may have together.
const MAX_BYTES: u64 = 1 << 30;

/// How long an entry is kept that is not used.
const MAX_UNUSED: Duration = Duration::from_secs(30 * 24 * 3600);

/// How old a file is that a writer has left unfinished.
const ABANDONED: Duration = Duration::from_secs(3600);

/// How exactly it is known when an entry was last used.
const USED_WITHIN: Duration = Duration::from_secs(24 * 3600);

pub(super) struct CodeCache {
    path: PathBuf,
    /// `path`, opened.
    folder: File,
    /// What besides the component the code depends on.
    mark: EngineMark,
}

/// The SHA-256 of a component.
#[derive(Clone, Copy)]
pub(super) struct ComponentHash([u8; DIGEST_LEN]);

impl ComponentHash {
    pub(super) fn of(wasm: &[u8]) -> ComponentHash {
        ComponentHash(Sha256::digest(wasm).into())
    }
}

impl fmt::Display for ComponentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl CodeCache {
    /// A cache in the folder `path`, which is made if missing.
    ///
    /// # Errors
    ///
    /// If the folder is not private to this user, or cannot be made.
    pub(super) fn open(path: &Path, mark: EngineMark) -> io::Result<CodeCache> {
        let path = std::path::absolute(path)?;
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, &path, flags, Mode::empty())
            .map_err(|error| match error {
                rustix::io::Errno::LOOP | rustix::io::Errno::NOTDIR => {
                    refused("it is a symlink; name the folder it leads to".to_owned())
                }
                other => other.into(),
            })?
            .into();
        let cache = CodeCache { path, folder, mark };
        cache.check_folders()?;
        cache.remove_unused(MAX_BYTES);
        Ok(cache)
    }

    fn check_folders(&self) -> io::Result<()> {
        let own = self.folder.metadata()?;
        if !is_private(&own) {
            return Err(refused(
                "it belongs to another user, or others may write to it".to_owned(),
            ));
        }
        let real = self.path.canonicalize()?;
        for above in real.ancestors().skip(1) {
            let metadata = above.metadata()?;
            let owner_is_trusted = metadata.uid() == 0 || is_own(&metadata);
            // In a sticky folder, such as /tmp, one can only move what is one's own.
            if !owner_is_trusted || (metadata.mode() & 0o022 != 0 && metadata.mode() & 0o1000 == 0)
            {
                return Err(refused(format!(
                    "another user could put a folder in its place: {} belongs to another user, \
                     or others may write to it",
                    above.display()
                )));
            }
        }
        // That the path led past a symlink of someone else's makes no difference, as
        // long as what was opened is what was looked at.
        let found = real.metadata()?;
        match (found.dev(), found.ino()) == (own.dev(), own.ino()) {
            true => Ok(()),
            false => Err(refused("it was exchanged just now".to_owned())),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.path
    }

    /// The compiled component, if there is a sound entry for it.
    pub(super) fn get(&self, engine: &Engine, hash: ComponentHash) -> Option<Component> {
        let name = self.name(hash);
        let entry = self.read(&name)?;
        let sound = |(digest, code): &(&[u8], &[u8])| *digest == self.digest(hash, code);
        let Some((_, code)) = entry.split_at_checked(DIGEST_LEN).filter(sound) else {
            tracing::warn!(entry = name, "a cache entry is damaged; compiling anew");
            return None;
        };
        // SAFETY: this is what `put` wrote: the file is in a folder and is itself one
        // that nobody but this user may write to, and the digest is right for this
        // component, engine and code. `code` is a copy that nobody can change.
        match unsafe { Component::deserialize(engine, code) } {
            Ok(component) => Some(component),
            Err(error) => {
                tracing::debug!(entry = name, %error, "a cache entry does not fit");
                None
            }
        }
    }

    /// The content of an entry that nobody else may write to.
    fn read(&self, name: &str) -> Option<Vec<u8>> {
        // Non-blocking: opening a pipe would wait for its other end.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut file: File = match rustix::fs::openat(&self.folder, name, flags, Mode::empty()) {
            Ok(file) => file.into(),
            Err(rustix::io::Errno::NOENT) => return None,
            Err(error) => {
                tracing::warn!(entry = name, %error, "a cache entry cannot be opened; compiling anew");
                return None;
            }
        };
        let metadata = file.metadata().ok()?;
        if !metadata.is_file() || !is_private(&metadata) || metadata.nlink() != 1 {
            tracing::warn!(entry = name, "a cache entry is not private; compiling anew");
            return None;
        }
        if metadata.len() > MAX_BYTES {
            return None;
        }
        let mut entry = Vec::with_capacity(metadata.len() as usize);
        (&mut file).take(MAX_BYTES).read_to_end(&mut entry).ok()?;
        let unused = metadata.modified().ok()?.elapsed().unwrap_or_default();
        if unused > USED_WITHIN
            && let Err(error) = file.set_modified(SystemTime::now())
        {
            tracing::debug!(entry = name, %error, "the entry's time stays as it is");
        }
        Some(entry)
    }

    /// Keeps compiled code. Written beside and renamed, so that another process
    /// sees a whole entry or none, and what was there is replaced whatever it is.
    pub(super) fn put(&self, hash: ComponentHash, code: &[u8]) -> io::Result<()> {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let name = self.name(hash);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let unfinished = format!("{name}.{}-{count}.tmp", std::process::id());
        // Left by a process that had this id before.
        let _ = rustix::fs::unlinkat(&self.folder, &unfinished, AtFlags::empty());
        let written = (|| {
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::RUSR | Mode::WUSR;
            let mut file: File = rustix::fs::openat(&self.folder, &unfinished, flags, mode)?.into();
            file.write_all(&self.digest(hash, code))?;
            file.write_all(code)?;
            rustix::fs::renameat(&self.folder, &unfinished, &self.folder, &name)?;
            Ok(())
        })();
        if written.is_err() {
            let _ = rustix::fs::unlinkat(&self.folder, &unfinished, AtFlags::empty());
        }
        self.remove_unused(MAX_BYTES);
        written
    }

    fn name(&self, hash: ComponentHash) -> String {
        format!("{hash}-{}.cwasm", self.mark.short())
    }

    fn digest(&self, hash: ComponentHash, code: &[u8]) -> [u8; DIGEST_LEN] {
        let digest = Sha256::new_with_prefix(hash.0);
        digest
            .chain_update(self.mark.0)
            .chain_update(code)
            .finalize()
            .into()
    }

    /// Removes entries that were not used for long, then those not used for
    /// longest, until at most `max_bytes` are left. Touches nothing that is not
    /// named like an entry.
    fn remove_unused(&self, max_bytes: u64) {
        let mut entries = match self.entries() {
            Ok(entries) => entries,
            Err(error) => {
                tracing::debug!(%error, "the cache cannot be read through");
                return;
            }
        };
        entries.sort_by_key(|entry| entry.unused);
        let mut bytes = 0_u64;
        for entry in entries {
            let Entry { name, size, unused } = entry;
            bytes = bytes.saturating_add(size);
            let limit = match is_unfinished(&name) {
                true => ABANDONED,
                false => MAX_UNUSED,
            };
            if unused > limit || bytes > max_bytes {
                bytes -= size;
                match rustix::fs::unlinkat(&self.folder, &name, AtFlags::empty()) {
                    Ok(()) => tracing::debug!(entry = name, "removed from the cache"),
                    Err(error) => tracing::debug!(entry = name, %error, "an entry stays"),
                }
            }
        }
    }

    fn entries(&self) -> io::Result<Vec<Entry>> {
        let now = SystemTime::now();
        let mut entries = Vec::new();
        for entry in Dir::read_from(&self.folder)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().to_str() else {
                continue;
            };
            if !is_entry(name) && !is_unfinished(name) {
                continue;
            }
            // Gone since: another process removes, too.
            let Ok(stat) = rustix::fs::statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) else {
                continue;
            };
            if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
                continue;
            }
            let modified = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
            let unused = now.duration_since(SystemTime::UNIX_EPOCH + modified);
            entries.push(Entry {
                name: name.to_owned(),
                size: u64::try_from(stat.st_size).unwrap_or(0),
                unused: unused.unwrap_or_default(),
            });
        }
        Ok(entries)
    }
}

struct Entry {
    name: String,
    size: u64,
    /// For how long.
    unused: Duration,
}

/// Whether a name is one that [`CodeCache::name`] gives.
fn is_entry(name: &str) -> bool {
    let Some((hash, mark)) = name
        .strip_suffix(".cwasm")
        .and_then(|stem| stem.split_once('-'))
    else {
        return false;
    };
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    hash.len() == 2 * DIGEST_LEN && is_hex(hash) && mark.len() == 16 && is_hex(mark)
}

/// Whether a name is one that [`CodeCache::put`] writes to.
fn is_unfinished(name: &str) -> bool {
    let end = ".cwasm".len() + 2 * DIGEST_LEN + 17;
    name.ends_with(".tmp") && name.get(..end).is_some_and(is_entry)
}

fn refused(problem: String) -> io::Error {
    io::Error::new(io::ErrorKind::PermissionDenied, problem)
}

fn is_own(metadata: &std::fs::Metadata) -> bool {
    metadata.uid() == rustix::process::geteuid().as_raw()
}

/// Whether only this user may write to a file or folder.
fn is_private(metadata: &std::fs::Metadata) -> bool {
    is_own(metadata) && metadata.mode() & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn cache() -> (TempDir, CodeCache) {
        let folder = TempDir::new().unwrap();
        let cache = CodeCache::open(folder.path(), EngineMark([7; 32])).unwrap();
        (folder, cache)
    }

    fn names(folder: &TempDir) -> Vec<String> {
        let entries = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn age(folder: &TempDir, name: &str, age: Duration) {
        let file = File::options()
            .write(true)
            .open(folder.path().join(name))
            .unwrap();
        file.set_modified(SystemTime::now() - age).unwrap();
    }

    #[test]
    fn what_is_kept_is_given_back_for_its_component_alone() {
        let (folder, cache) = cache();
        let [one, other] = [b"one", b"two"].map(|wasm| ComponentHash::of(wasm));
        cache.put(one, b"code").unwrap();
        let entry = cache.read(&cache.name(one)).unwrap();
        assert_eq!(entry[..DIGEST_LEN], cache.digest(one, b"code"));
        assert_eq!(&entry[DIGEST_LEN..], b"code");
        assert_ne!(cache.digest(one, b"code"), cache.digest(other, b"code"));
        assert!(cache.read(&cache.name(other)).is_none());
        let engine = EngineMark([8; 32]);
        let later = CodeCache::open(folder.path(), engine).unwrap();
        assert_ne!(cache.digest(one, b"code"), later.digest(one, b"code"));
        assert!(later.read(&later.name(one)).is_none());
    }

    #[test]
    fn an_entry_that_is_sound_and_no_code_is_not_run() {
        let engine = crate::wasm::engine::new_engine().unwrap();
        let folder = TempDir::new().unwrap();
        let cache = CodeCache::open(folder.path(), EngineMark::of(&engine)).unwrap();
        let hash = ComponentHash::of(b"1");
        cache.put(hash, b"code").unwrap();
        assert!(cache.read(&cache.name(hash)).is_some());
        assert!(cache.get(&engine, hash).is_none());
    }

    #[test]
    fn what_was_not_used_for_a_month_is_removed_and_use_counts() {
        let (folder, cache) = cache();
        let [unused, used, new] = [b"1", b"2", b"3"].map(|wasm| ComponentHash::of(wasm));
        for hash in [unused, used, new] {
            cache.put(hash, b"code").unwrap();
        }
        for hash in [unused, used] {
            age(
                &folder,
                &cache.name(hash),
                MAX_UNUSED + Duration::from_secs(60),
            );
        }
        cache.read(&cache.name(used)).unwrap();
        cache.remove_unused(MAX_BYTES);
        let mut left = [used, new].map(|hash| cache.name(hash));
        left.sort();
        assert_eq!(names(&folder), left);
    }

    #[test]
    fn of_too_much_what_was_not_used_for_longest_is_removed() {
        let (folder, cache) = cache();
        let hashes = [b"1", b"2", b"3"].map(|wasm| ComponentHash::of(wasm));
        for (hash, hours) in hashes.into_iter().zip([2, 3, 1]) {
            cache.put(hash, &[0; 100]).unwrap();
            age(
                &folder,
                &cache.name(hash),
                Duration::from_secs(3600 * hours),
            );
        }
        cache.remove_unused(2 * (100 + DIGEST_LEN as u64));
        let mut left = [hashes[0], hashes[2]].map(|hash| cache.name(hash));
        left.sort();
        assert_eq!(names(&folder), left);
    }

    #[test]
    fn files_that_are_no_entries_are_never_removed_and_unfinished_ones_after_a_while() {
        let (folder, cache) = cache();
        let entry = cache.name(ComponentHash::of(b"1"));
        let others = [
            "notes.txt".to_owned(),
            "a.cwasm".to_owned(),
            "x.tmp".to_owned(),
        ];
        let unfinished = [format!("{entry}.1-1.tmp"), format!("{entry}.2-1.tmp")];
        for name in others.iter().chain(&unfinished) {
            fs::write(folder.path().join(name), "x").unwrap();
            age(&folder, name, 2 * MAX_UNUSED);
        }
        age(&folder, &unfinished[1], ABANDONED / 2);
        cache.remove_unused(0xff);
        let mut left = [&others[..], &unfinished[1..]].concat();
        left.sort();
        assert_eq!(names(&folder), left);
    }
}
