//! A small file system, in memory, that can be full or read-only.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::skip;

/// A mounted tmpfs. Dropping it unmounts it.
pub struct Tmpfs(TempDir);

impl Tmpfs {
    /// Mounts one with `megabytes` MiB; `None`, and the test is skipped, if this
    /// user may not.
    pub fn mount(megabytes: usize) -> Option<Tmpfs> {
        let folder = TempDir::with_prefix("backhaul-tmpfs").expect("a temporary folder");
        let size = format!("size={megabytes}m,mode=700");
        let mount = mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], folder.path());
        if !mount {
            skip::skip_because("a small file system cannot be mounted (it takes root)");
            return None;
        }
        Some(Tmpfs(folder))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all the room there is but `kilobytes` KiB, for files of others.
    /// Remove the file `ballast` to give it back.
    pub fn fill(&self, kilobytes: u64) {
        let figures = rustix::fs::statvfs(self.path()).expect("the figures of the tmpfs");
        let free = figures.f_bavail * figures.f_frsize;
        let size = free.saturating_sub(kilobytes << 10);
        fs::write(self.path().join("ballast"), vec![0; size as usize]).expect("the ballast");
    }

    /// Gives back what [`fill`](Self::fill) took.
    pub fn free(&self) {
        fs::remove_file(self.path().join("ballast")).expect("the ballast");
    }

    /// Lets nobody write to it. It must not be written to just now.
    pub fn make_read_only(&self) {
        assert!(mount(&["-o", "remount,ro"], self.path()), "it is in use");
    }

    /// Lets its files be written again.
    pub fn make_writable(&self) {
        assert!(mount(&["-o", "remount,rw"], self.path()), "it is mounted");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Lazily: a process that still has it open must not keep it.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn mount(arguments: &[&str], folder: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(arguments).arg(folder).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
