//! The limit: one write and one fdatasync for each group. Not a store: no
//! checksum, no removal, no position.

use std::fs::File;
use std::io::{BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anyhow::Result;

use crate::store::{Batch, Store};

/// How much is written beforehand, for writing over it.
const WRITTEN: u64 = 256 << 20;

/// A file.
pub(crate) struct Bare {
    file: File,
    end: u64,
    /// Written over in a circle, so that the file does not grow.
    over: bool,
    buffer: Vec<u8>,
}

impl Bare {
    /// Opens the file in `folder`.
    pub(crate) fn open(folder: &Path, over: bool) -> Result<Self> {
        let mut options = File::options();
        let options = options.create(true).truncate(false).read(true).write(true);
        let file = options.open(folder.join("log"))?;
        let mut end = file.metadata()?.len();
        if over {
            let zeros = vec![0; 1 << 20];
            for at in (0..WRITTEN).step_by(zeros.len()) {
                file.write_all_at(&zeros, at)?;
            }
            file.sync_all()?;
            end = 0;
        }
        Ok(Self {
            file,
            end,
            over,
            buffer: Vec::new(),
        })
    }
}

impl Store for Bare {
    fn append(&mut self, batch: &Batch<'_>) -> Result<()> {
        self.buffer.clear();
        for (seq, record) in (batch.first..).zip(batch.records) {
            let length = u32::try_from(record.len())?;
            self.buffer.extend_from_slice(&length.to_le_bytes());
            self.buffer.extend_from_slice(&seq.to_le_bytes());
            self.buffer.extend_from_slice(record);
        }
        if self.over && self.end + self.buffer.len() as u64 > WRITTEN {
            self.end = 0;
        }
        self.file.write_all_at(&self.buffer, self.end)?;
        self.end += self.buffer.len() as u64;
        self.file.sync_data()?;
        Ok(())
    }

    fn read(&mut self, from: u64, each: &mut dyn FnMut(u64, &[u8]) -> bool) -> Result<()> {
        let mut reader = BufReader::with_capacity(1 << 18, &self.file);
        reader.seek(SeekFrom::Start(0))?;
        let mut body = Vec::new();
        loop {
            let mut head = [0; 12];
            match reader.read_exact(&mut head) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
                other => other?,
            }
            let (length, seq) = head.split_at(4);
            body.resize(u32::from_le_bytes(length.try_into()?) as usize, 0);
            reader.read_exact(&mut body)?;
            let seq = u64::from_le_bytes(seq.try_into()?);
            if seq >= from && !each(seq, &body) {
                return Ok(());
            }
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
