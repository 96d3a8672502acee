//! What is in the plugins folder, and what of it has changed and come to rest.
//!
//! A file counts as changed only when it has looked the same for a while
//! (`SETTLED`): `cp` and editors write in steps. It looks, and remembers; what a
//! change leads to is decided in `life`.

use std::collections::BTreeMap;
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a file must have looked the same before it is taken.
const SETTLED: Duration = Duration::from_millis(300);

/// How a component and its manifest look from outside. Equal stamps mean that
/// nothing was written in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    wasm: FileStamp,
    manifest: Option<FileStamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct FileStamp {
    device: u64,
    inode: u64,
    size: u64,
    /// Set by the kernel alone, so it also tells of a copy that keeps its time.
    changed: (i64, i64),
}

impl Stamp {
    /// The stamp of the component `file`; `None` if it is not there.
    pub(super) fn of(file: &Path) -> Option<Stamp> {
        let wasm = metadata(file).filter(|metadata| !metadata.is_dir())?;
        let manifest = metadata(&file.with_extension("toml"));
        Some(Stamp {
            wasm: FileStamp::of(&wasm),
            manifest: manifest.as_ref().map(FileStamp::of),
        })
    }
}

/// Of what a link leads to; of the link itself if that is not there.
fn metadata(file: &Path) -> Option<Metadata> {
    let metadata = std::fs::metadata(file).or_else(|_| std::fs::symlink_metadata(file));
    metadata.ok()
}

impl FileStamp {
    fn of(metadata: &Metadata) -> FileStamp {
        FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What is to be done about a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// It is new, or other than it was.
    Written(PathBuf, Stamp),
    /// It is no longer there.
    Removed(PathBuf),
}

/// The folder as it was last seen.
pub(super) struct Folder {
    path: PathBuf,
    files: BTreeMap<PathBuf, Seen>,
}

struct Seen {
    /// As it looks now; `None` if it is gone.
    stamp: Option<Stamp>,
    since: Instant,
    /// As it looked when it was last reported.
    reported: Option<Stamp>,
}

impl Folder {
    pub(super) fn new(path: PathBuf) -> Folder {
        Folder {
            path,
            files: BTreeMap::new(),
        }
    }

    /// Everything that is there, settled or not: for the start.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read.
    pub(super) fn take_all(&mut self) -> io::Result<Vec<Change>> {
        self.look(Instant::now())?;
        Ok(self.report(|_| true))
    }

    /// What has changed since it was last reported, and come to rest.
    ///
    /// # Errors
    ///
    /// If the folder cannot be read: that says nothing of the files in it.
    pub(super) fn take_settled(&mut self, now: Instant) -> io::Result<Vec<Change>> {
        self.look(now)?;
        Ok(self.report(|seen| now.saturating_duration_since(seen.since) >= SETTLED))
    }

    /// Whether something has changed and not come to rest.
    pub(super) fn is_restless(&self) -> bool {
        self.files.values().any(|seen| seen.stamp != seen.reported)
    }

    /// Has `file` reported once more, though it has not changed.
    pub(super) fn report_again(&mut self, file: &Path) {
        // Of one that is gone, that it is gone is still to be reported.
        if let Some(seen) = self.files.get_mut(file)
            && seen.stamp.is_some()
        {
            seen.reported = None;
        }
    }

    fn look(&mut self, now: Instant) -> io::Result<()> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&self.path)? {
            let path = entry?.path();
            if !is_component(&path) {
                continue;
            }
            if let Some(stamp) = Stamp::of(&path) {
                found.insert(path, stamp);
            }
        }
        for (path, seen) in &mut self.files {
            let stamp = found.remove(path);
            if stamp != seen.stamp {
                seen.stamp = stamp;
                seen.since = now;
            }
        }
        for (path, stamp) in found {
            let seen = Seen {
                stamp: Some(stamp),
                since: now,
                reported: None,
            };
            self.files.insert(path, seen);
        }
        Ok(())
    }

    fn report(&mut self, settled: impl Fn(&Seen) -> bool) -> Vec<Change> {
        let mut changes = Vec::new();
        for (path, seen) in &mut self.files {
            if seen.stamp == seen.reported || !settled(seen) {
                continue;
            }
            seen.reported.clone_from(&seen.stamp);
            changes.push(match &seen.stamp {
                Some(stamp) => Change::Written(path.clone(), stamp.clone()),
                None => Change::Removed(path.clone()),
            });
        }
        self.files
            .retain(|_, seen| seen.stamp.is_some() || seen.reported.is_some());
        changes
    }
}

/// Whether a path is named like a component. Names that begin with a dot are
/// what tools write to before they rename.
fn is_component(path: &Path) -> bool {
    let hidden = |name: &std::ffi::OsStr| name.as_encoded_bytes().starts_with(b".");
    path.extension()
        .is_some_and(|extension| extension == "wasm")
        && !path.file_name().is_some_and(hidden)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    struct Test {
        temporary: TempDir,
        folder: Folder,
        now: Instant,
    }

    impl Test {
        fn new() -> Test {
            let temporary = TempDir::new().unwrap();
            Test {
                folder: Folder::new(temporary.path().to_owned()),
                temporary,
                now: Instant::now(),
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.temporary.path().join(name)
        }

        fn write(&self, name: &str, text: &str) {
            fs::write(self.path(name), text).unwrap();
        }

        /// What has settled after a look, a while, and another look.
        fn settled(&mut self) -> Vec<String> {
            assert_eq!(self.taken(), Vec::<String>::new());
            self.now += SETTLED;
            self.taken()
        }

        fn taken(&mut self) -> Vec<String> {
            let changes = self.folder.take_settled(self.now).unwrap();
            let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
            changes
                .iter()
                .map(|change| match change {
                    Change::Written(path, _) => format!("+{}", name(path)),
                    Change::Removed(path) => format!("-{}", name(path)),
                })
                .collect()
        }
    }

    #[test]
    fn a_file_is_reported_once_when_it_has_come_to_rest() {
        let mut test = Test::new();
        test.write("a.wasm", "1");
        assert!(test.taken().is_empty());
        assert!(test.folder.is_restless());
        test.now += SETTLED / 2;
        test.write("a.wasm", "12");
        assert!(test.taken().is_empty(), "it was written to again");
        test.now += SETTLED / 2;
        assert!(test.taken().is_empty());
        test.now += SETTLED / 2;
        assert_eq!(test.taken(), ["+a.wasm"]);
        assert!(!test.folder.is_restless());
        assert!(test.settled().is_empty());
    }

    #[test]
    fn a_changed_manifest_is_a_change_of_its_component() {
        let mut test = Test::new();
        test.write("a.wasm", "1");
        test.write("b.toml", "a manifest without a component");
        assert_eq!(test.settled(), ["+a.wasm"]);
        test.write("a.toml", "1");
        assert_eq!(test.settled(), ["+a.wasm"]);
        fs::remove_file(test.path("a.toml")).unwrap();
        assert_eq!(test.settled(), ["+a.wasm"]);
    }

    #[test]
    fn a_file_that_was_replaced_by_renaming_has_changed_even_with_the_same_size() {
        let mut test = Test::new();
        test.write("a.wasm", "1");
        assert_eq!(test.settled(), ["+a.wasm"]);
        test.write(".a.wasm.Xy3", "2");
        test.write(".hidden.wasm", "2");
        assert!(test.settled().is_empty());
        fs::rename(test.path(".a.wasm.Xy3"), test.path("a.wasm")).unwrap();
        assert_eq!(test.settled(), ["+a.wasm"]);
    }

    #[test]
    fn a_file_that_is_away_for_a_moment_was_not_removed() {
        let mut test = Test::new();
        test.write("a.wasm", "1");
        assert_eq!(test.settled(), ["+a.wasm"]);
        fs::rename(test.path("a.wasm"), test.path("a.wasm~")).unwrap();
        assert!(test.taken().is_empty());
        test.now += SETTLED / 2;
        test.write("a.wasm", "2");
        assert!(test.taken().is_empty());
        test.now += SETTLED;
        assert_eq!(test.taken(), ["+a.wasm"]);
        fs::remove_file(test.path("a.wasm")).unwrap();
        assert_eq!(test.settled(), ["-a.wasm"]);
        assert!(test.settled().is_empty());
    }

    #[test]
    fn a_folder_that_cannot_be_read_says_nothing_of_its_files() {
        let mut test = Test::new();
        test.write("a.wasm", "1");
        assert_eq!(test.settled(), ["+a.wasm"]);
        let away = test.temporary.path().with_extension("away");
        fs::rename(test.temporary.path(), &away).unwrap();
        test.folder.take_settled(test.now).unwrap_err();
        fs::rename(&away, test.temporary.path()).unwrap();
        assert!(test.settled().is_empty());
    }
}
