//! A disk that is full, and then is not.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};

use crate::child;
use crate::report::Table;
use crate::store::Kind;

/// The disk: a file system in memory of 16 MiB.
const DISK: &str = "size=16m";

/// What is freed when the disk is full.
const BALLAST: u64 = 4 << 20;

/// A mounted file system, unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    /// Mounts a small file system at `path`. Needs root.
    fn mount(path: &Path) -> Result<Self> {
        std::fs::create_dir_all(path)?;
        let mut mount = Command::new("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", DISK, "tmpfs"]).arg(path);
        ensure!(mount.status()?.success(), "cannot mount a tmpfs");
        Ok(Self(path.to_owned()))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A test's disk that stays mounted is a nuisance, not a failure.
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Fills a disk with each store, frees some of it, and looks.
pub(crate) fn run(folder: &Path) -> Result<Table> {
    let columns = [
        "store",
        "acknowledged",
        "then",
        "after room was made",
        "opened again",
        "of those lost",
        "wrong bytes",
    ];
    let mut table = Table::new(
        "A full disk: tmpfs of 16 MiB with 4 MiB of ballast",
        &columns,
    );
    for kind in Kind::STORES {
        let place = tempfile::tempdir_in(folder)?;
        let disk = Disk::mount(&place.path().join("disk"))?;
        let child = child::start("fill", kind, &disk.0, &[BALLAST])?;
        let said = child.finish(Duration::from_secs(120))?;
        let text = |name: &str| said.get(name).cloned();
        let acked: u64 = text("acked")
            .and_then(|acked| acked.parse().ok())
            .unwrap_or(0);
        // Room for the recovery, whatever became of the child.
        let _ = std::fs::remove_file(disk.0.join("ballast"));
        let child = child::start("verify", kind, &disk.0.join("store"), &[acked, 1])?;
        let after = child.finish(Duration::from_secs(60))?;
        let number = |name: &str| {
            after
                .get(name)
                .and_then(|value| value.parse().ok())
                .unwrap_or(0)
        };
        let then = match (text("refused"), text("died"), text("hung")) {
            (Some(error), ..) => error,
            (_, Some(status), _) => status,
            (.., Some(_)) => "hangs".to_owned(),
            _ => "takes records without end".to_owned(),
        };
        let opened = match after.get("error") {
            None if after.contains_key("opened") => "yes",
            Some(error) => error,
            None => "no",
        };
        table.row(vec![
            kind.name().to_owned(),
            text("full_at").unwrap_or_else(|| acked.to_string()),
            then,
            text("again").unwrap_or_else(|| "-".to_owned()),
            opened.to_owned(),
            acked.saturating_sub(number("intact")).to_string(),
            number("wrong").to_string(),
        ]);
    }
    Ok(table)
}
