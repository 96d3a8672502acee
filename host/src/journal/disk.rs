//! What the journal needs of a file system, and the real one.
//!
//! A trait, so that a test can put a disk beneath the journal that loses what
//! was not synced. It knows one folder and the files in it, nothing deeper.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

/// One folder of files.
pub(crate) trait Disk: Send + Sync + 'static {
    /// The names of the files in it, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens a file that exists, to read and write it.
    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Makes a file that does not exist yet.
    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Gives a file another name, in place of the file that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Returns when the names made, removed and changed before are durable.
    fn sync(&self) -> io::Result<()>;
    /// Where a file is, for messages.
    fn path(&self, name: &str) -> PathBuf;
}

/// One open file.
pub(crate) trait DiskFile: Send + Sync + 'static {
    /// Reads some bytes; none at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes all of `bytes`. After an error any part of them may be written.
    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;
    /// The length in bytes.
    fn len(&self) -> io::Result<u64>;
    /// Cuts or lengthens it.
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Returns when bytes and length are durable (`fdatasync`). After an error
    /// nothing is known of what was written since the last success, and a
    /// second sync that succeeds says nothing of it either.
    fn sync(&self) -> io::Result<()>;
    /// When it was last written.
    fn modified(&self) -> io::Result<SystemTime>;
}

/// Reads until `buffer` is full or the file ends.
pub(crate) fn read_full(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buffer.len() {
        match file.read_at(&mut buffer[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(done)
}

/// A folder of the operating system.
pub(crate) struct Folder {
    path: PathBuf,
    /// Held open to sync the names in it.
    handle: fs::File,
}

impl Folder {
    /// Opens the folder, and makes it if it is missing: for its owner alone,
    /// because events carry what an application's users typed.
    pub(crate) fn open(path: &Path) -> io::Result<Folder> {
        if !path.is_dir() {
            // From the nearest folder that is there, so that every new name
            // on the way is synced into its parent.
            let mut missing = vec![path];
            while let Some(parent) = missing[missing.len() - 1].parent() {
                if parent.as_os_str().is_empty() || parent.is_dir() {
                    break;
                }
                missing.push(parent);
            }
            for folder in missing.into_iter().rev() {
                match fs::DirBuilder::new().mode(0o700).create(folder) {
                    Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                        return Err(error);
                    }
                    _ => {}
                }
                let parent = match folder.parent() {
                    Some(parent) if !parent.as_os_str().is_empty() => parent,
                    _ => Path::new("."),
                };
                fs::File::open(parent)?.sync_all()?;
            }
        }
        Ok(Folder {
            handle: fs::File::open(path)?,
            path: path.to_owned(),
        })
    }
}

impl Disk for Folder {
    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            // A name that is not UTF-8 is none of the journal's.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::File::options()
            .read(true)
            .write(true)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn DiskFile>> {
        let mut options = fs::File::options();
        options.read(true).write(true).create_new(true).mode(0o600);
        Ok(Arc::new(options.open(self.path.join(name))?))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn sync(&self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl DiskFile for fs::File {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, buffer, offset)
    }

    fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        fs::File::set_len(self, len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn modified(&self) -> io::Result<SystemTime> {
        self.metadata()?.modified()
    }
}
