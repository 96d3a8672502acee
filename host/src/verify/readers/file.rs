//! Reads the lines of a file. Configured by the variables of `file`, and the
//! manifest's folders.

use std::fs;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::{Reader, ReaderError, Setup, from_json};
use crate::event::Event;

/// How much is read at a time.
const CHUNK: u64 = 4 << 20;

pub(super) struct File {
    path: PathBuf,
    /// How far it was read.
    position: u64,
    /// The beginning of a line whose end has not come.
    begun: Vec<u8>,
}

impl File {
    pub(super) fn open(setup: &Setup<'_>) -> Result<File, ReaderError> {
        if let Some(name) = ["FILE_MAX_SIZE", "FILE_MAX_AGE"]
            .into_iter()
            .find(|name| setup.variable(name).is_some())
        {
            return Err(ReaderError(format!(
                "one file is read, so it must stay that file: try it without {name} in the manifest"
            )));
        }
        let inside = setup.variable_or("FILE_PATH", "/out/events.ndjson");
        let path = on_the_host(inside, setup).ok_or_else(|| {
            ReaderError(format!(
                "{inside} is in no folder the manifest grants; see `files` under [grants]"
            ))
        })?;
        let position = match fs::metadata(&path) {
            Ok(metadata) => metadata.len(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => 0,
            Err(error) => return Err(ReaderError::at("read", &shown(&path), error)),
        };
        Ok(File {
            path,
            position,
            begun: Vec::new(),
        })
    }

    fn chunk(&mut self) -> io::Result<()> {
        let mut file = match fs::File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            opened => opened?,
        };
        file.seek(SeekFrom::Start(self.position))?;
        let read = file.take(CHUNK).read_to_end(&mut self.begun)?;
        self.position += read as u64;
        Ok(())
    }
}

impl Reader for File {
    fn read(&mut self) -> Result<Vec<Event>, ReaderError> {
        let read = self.chunk();
        read.map_err(|error| ReaderError::at("read", &shown(&self.path), error))?;
        let Some(end) = self.begun.iter().rposition(|byte| *byte == b'\n') else {
            return Ok(Vec::new());
        };
        let rest = self.begun.split_off(end + 1);
        let lines = std::mem::replace(&mut self.begun, rest);
        let lines = lines.split(|byte| *byte == b'\n');
        // What is no event is somebody else's, or is missed.
        Ok(lines
            .filter_map(|line| from_json(line.to_vec()).ok())
            .collect())
    }

    fn place(&self) -> String {
        shown(&self.path)
    }
}

fn shown(path: &Path) -> String {
    format!("the file {}", path.display())
}

/// Where a path of the plugin's is for us.
fn on_the_host(inside: &str, setup: &Setup<'_>) -> Option<PathBuf> {
    let inside = Path::new(inside);
    let grants = setup.grants.files.iter();
    grants
        .filter_map(|grant| {
            let rest = inside.strip_prefix(&grant.guest).ok()?;
            Some((grant.guest.len(), grant.host.join(rest)))
        })
        .max()
        .map(|(_, path)| path)
}
