//! A file: CloudEvents as lines.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use async_trait::async_trait;
use backhaul::Event;
use backhaul::wasm::{FileGrant, Grants};
use backhaul_tests::components;
use tempfile::TempDir;

use super::{Broker, Client};

/// A folder on the disk where the benchmarks are built.
pub(super) struct LineFile(TempDir);

impl LineFile {
    fn path(&self) -> PathBuf {
        self.0.path().join("events.ndjson")
    }
}

#[async_trait]
impl Broker for LineFile {
    const NAME: &str = "file";
    const PLUGIN: &str = "file";
    const CLIENT: &str = "std::fs, one write for each batch";
    const EVENTS: usize = 256_000;

    async fn start() -> anyhow::Result<Option<LineFile>> {
        Ok(Some(LineFile(tempfile::tempdir_in(components::target())?)))
    }

    fn grants(&self) -> anyhow::Result<Grants> {
        let folder = FileGrant {
            host: self.0.path().to_owned(),
            guest: "/out".to_owned(),
            write: true,
        };
        Ok(Grants {
            files: vec![folder],
            ..Grants::default()
        })
    }

    fn settings(&self) -> Vec<(&'static str, String)> {
        vec![("FILE_PATH", "/out/events.ndjson".to_owned())]
    }

    async fn empty(&self) -> anyhow::Result<()> {
        // Both sides append, so the next line is the first.
        let file = File::options().append(true).create(true).open(self.path());
        Ok(file?.set_len(0)?)
    }

    async fn len(&self) -> anyhow::Result<usize> {
        let bytes = std::fs::read(self.path())?;
        Ok(bytes.iter().filter(|byte| **byte == b'\n').count())
    }

    async fn connect(&self) -> anyhow::Result<Box<dyn Client>> {
        let file = File::options().append(true).create(true).open(self.path());
        Ok(Box::new(Appender(file?)))
    }
}

struct Appender(File);

#[async_trait]
impl Client for Appender {
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()> {
        let mut lines = Vec::with_capacity(512 * events.len());
        for event in events {
            // Nothing in these needs an escape.
            write!(
                lines,
                r#"{{"specversion":"1.0","id":"{}","source":"{}","type":"{}","time":"{}","datacontenttype":"application/json","data":"#,
                event.id(),
                event.source(),
                event.event_type(),
                event.time(),
            )?;
            lines.extend_from_slice(event.data());
            lines.extend_from_slice(b"}\n");
        }
        Ok(self.0.write_all(&lines)?)
    }
}
