//! Backend `file`: appends to `FILE_PATH`, one CloudEvents JSON object a line.
//! Published means written to the operating system: safe from a crash of the
//! host, not yet from a power failure. A file has one writer, so one instance.

use backhaul_guest::{Backend, Event, Failure, OpenError, cloudevent_lines, setting_or};
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};

struct LineFile(File);

impl Backend for LineFile {
    const NAME: &'static str = "file";

    fn open() -> Result<Self, OpenError> {
        let path = setting_or("FILE_PATH", "/out/events.ndjson");
        let mut options = File::options();
        let opened = options.read(true).append(true).create(true).open(&path);
        let mut file = opened.map_err(|error| format!("cannot open {path}: {error}"))?;
        // A crash may have left half a line; it must not become part of the next.
        let mut last = [b'\n'];
        if file.seek(SeekFrom::End(-1)).is_ok() && file.read(&mut last)? == 1 && last != [b'\n'] {
            file.write_all(b"\n")?;
        }
        Ok(Self(file))
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let lines = cloudevent_lines(events);
        let length = self.0.metadata().map(|metadata| metadata.len());
        let written = length.and_then(|length| {
            let undo = |_: &_| drop(self.0.set_len(length));
            (&self.0).write_all(&lines).inspect_err(undo)
        });
        written
            .map_err(|e| Failure::all_retryable(0..events.len(), format!("is the disk full? {e}")))
    }
}

backhaul_guest::export!(LineFile);
