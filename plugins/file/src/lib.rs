//! Backend `file`: appends to `FILE_PATH`, one CloudEvents JSON object a line, and
//! begins a new file where the settings ask for it. Published means written to the
//! operating system: safe from a crash of the host, and with `FILE_SYNC=batch` from a
//! power failure. A file has one writer, so one instance.
mod compression;
mod rotation;
mod settings;

use backhaul_guest::{Backend, Event, Failure, OpenError, cloudevent_lines};
use compression::Compression;
use rotation::Rotated;
use settings::Settings;
use std::fs::File;
use std::io::{Read, Result, Seek, SeekFrom, Write};
use std::time::SystemTime;

struct LineFile {
    settings: Settings,
    rotated: Rotated,
    file: File,
    /// When the last line was written, if there is one.
    changed: Option<SystemTime>,
    compression: Option<Compression>,
}

impl Backend for LineFile {
    const NAME: &'static str = "file";

    fn open() -> std::result::Result<Self, OpenError> {
        Ok(Self::open_with(Settings::from_env()?)?)
    }

    fn publish(&mut self, events: &[Event]) -> std::result::Result<(), Vec<Failure>> {
        let lines = cloudevent_lines(events);
        self.append(&lines, SystemTime::now())
            .map_err(|error| Failure::all_retryable(0..events.len(), error))?;
        self.compress(lines.len());
        Ok(())
    }
}

impl LineFile {
    fn open_with(settings: Settings) -> std::result::Result<Self, String> {
        let path = settings.path.display();
        let rotated = Rotated::beside(&settings.path)?;
        let file = open_at_a_line(&settings).and_then(|file| {
            if settings.sync {
                // It may be new.
                rotated.sync()?;
            }
            Ok(file)
        });
        let file = file.map_err(|error| format!("cannot open {path}: {error}"))?;
        let metadata = file.metadata();
        let metadata = metadata.map_err(|error| format!("cannot read of {path}: {error}"))?;
        let changed = (metadata.len() > 0).then(|| metadata.modified().ok());
        Ok(Self {
            rotated,
            file,
            changed: changed.flatten(),
            compression: None,
            settings,
        })
    }

    /// Writes the lines to the file, or to a new one. On an error none is there.
    fn append(&mut self, lines: &[u8], now: SystemTime) -> std::result::Result<(), String> {
        let length = self.file.metadata().map(|metadata| metadata.len());
        let mut length = length.map_err(|error| error.to_string())?;
        if self.settings.is_due(length, lines.len(), self.changed, now) {
            self.rotate(now)
                .map_err(|error| format!("cannot begin a new file: {error}"))?;
            length = 0;
        }
        let written = self.write(lines);
        if written.is_err() {
            let _ = self.file.set_len(length);
        }
        self.changed = Some(now);
        written.map_err(|error| format!("is the disk full? {error}"))
    }

    fn write(&mut self, lines: &[u8]) -> Result<()> {
        self.file.write_all(lines)?;
        if self.settings.sync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// A rename, and then a new file: cut short in between, the next start makes it.
    fn rotate(&mut self, now: SystemTime) -> Result<()> {
        let path = &self.settings.path;
        std::fs::rename(path, self.rotated.next(now)?)?;
        self.file = File::options().append(true).create(true).open(path)?;
        if self.settings.sync {
            self.rotated.sync()?;
        }
        if let Some(keep) = self.settings.keep {
            self.rotated.remove_all_but(keep.get())?;
        }
        Ok(())
    }

    /// Goes on with the compression of a rotated file, in proportion to what was
    /// written: in one go a large one would take longer than a call may. That it
    /// fails harms no event; the file stays as it is and is begun anew later.
    fn compress(&mut self, written: usize) {
        if !self.settings.gzip {
            return;
        }
        let compressed = self.compress_some(written.saturating_mul(2).saturating_add(1 << 20));
        if let Err(error) = compressed {
            eprintln!("a rotated file cannot be compressed, is the disk full? {error}");
            self.compression = None;
        }
    }

    fn compress_some(&mut self, bytes: usize) -> Result<()> {
        if self.compression.is_none() {
            let next = self.rotated.uncompressed()?;
            self.compression = next.map(|path| Compression::of(&path)).transpose()?;
        }
        if let Some(compression) = &mut self.compression
            && compression.go_on(bytes)?
        {
            self.compression = None;
        }
        Ok(())
    }
}

/// A crash may have left half a line; it must not become part of the next.
fn open_at_a_line(settings: &Settings) -> Result<File> {
    let mut options = File::options();
    let path = &settings.path;
    let mut file = options.read(true).append(true).create(true).open(path)?;
    let mut last = [b'\n'];
    if file.seek(SeekFrom::End(-1)).is_ok() && file.read(&mut last)? == 1 && last != [b'\n'] {
        file.write_all(b"\n")?;
    }
    Ok(file)
}

backhaul_guest::export!(LineFile);

#[cfg(test)]
mod tests;
