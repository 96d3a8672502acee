//! A guest's standard output and error: lines in the host's log.
//!
//! All instances of a plugin share one [`OutputLog`], which limits how many lines
//! a second are logged. What is too much is counted and not even made into text,
//! so that it costs the host next to nothing.

use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{OutputStream, Pollable, StreamError, StreamResult};

use super::secrets::Secrets;

/// The longest line that is logged, in bytes; a longer one is cut off. Bounds
/// the memory a guest can have the host keep for a line that never ends.
const MAX_LINE: usize = 4096;

/// The most bytes that are taken in one host call. Bounds how long a guest can
/// keep the host from letting others run.
const MAX_WRITE: usize = 4096;

/// How many seconds' worth of lines may come at once.
const BURST: f64 = 10.0;

/// How often is said, at most, that lines were not logged.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// How much a plugin has printed, over all its instances.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OutputStats {
    /// Lines that were logged.
    pub lines: u64,
    /// Lines that were not, because there were too many at a time.
    pub dropped: u64,
}

/// The output of all instances of one plugin.
pub(super) struct OutputLog {
    plugin: Arc<str>,
    secrets: Arc<Secrets>,
    /// Lines a second.
    rate: u32,
    counted: Mutex<Counted>,
}

struct Counted {
    stats: OutputStats,
    /// How many lines may be logged at once, as of `filled`.
    tokens: f64,
    filled: Instant,
    /// How many of the dropped lines were not reported yet.
    unreported: u64,
    /// When the first of them came.
    dropped_since: Instant,
    reported: Option<Instant>,
}

impl OutputLog {
    pub(super) fn new(plugin: Arc<str>, secrets: Arc<Secrets>, rate: u32) -> OutputLog {
        let now = Instant::now();
        OutputLog {
            plugin,
            secrets,
            rate,
            counted: Mutex::new(Counted {
                stats: OutputStats::default(),
                tokens: f64::from(rate) * BURST,
                filled: now,
                unreported: 0,
                dropped_since: now,
                reported: None,
            }),
        }
    }

    pub(super) fn stats(&self) -> OutputStats {
        self.counted().stats
    }

    /// To be told when a call is over: says how many lines were not logged, if
    /// this was not just said.
    pub(super) fn report_dropped(&self) {
        let mut counted = self.counted();
        if counted.unreported == 0 {
            return;
        }
        let now = Instant::now();
        if counted
            .reported
            .is_none_or(|last| now >= last + REPORT_INTERVAL)
        {
            self.report(&mut counted, now);
        }
    }

    fn line(&self, stream: &'static str, line: &[u8]) {
        if line.iter().all(u8::is_ascii_whitespace) {
            return;
        }
        let now = Instant::now();
        let mut counted = self.counted();
        let granted = counted.take(f64::from(self.rate), now);
        if counted.unreported > 0 && now >= counted.dropped_since + REPORT_INTERVAL {
            self.report(&mut counted, now);
        }
        drop(counted);
        if granted {
            let text = self
                .secrets
                .printable(&String::from_utf8_lossy(line), MAX_LINE);
            tracing::info!(target: "backhaul::plugin", plugin = &*self.plugin, stream, "{text}");
        }
    }

    fn report(&self, counted: &mut Counted, now: Instant) {
        counted.reported = Some(now);
        let lines = std::mem::take(&mut counted.unreported);
        tracing::warn!(
            plugin = &*self.plugin,
            "{lines} lines of its output were not logged: it wrote more than {} a second; see \
             `log` under [limits]",
            self.rate
        );
    }

    fn counted(&self) -> MutexGuard<'_, Counted> {
        // Nothing under this lock can leave the figures half changed.
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counted {
    /// Whether a line may be logged. It is counted either way.
    fn take(&mut self, rate: f64, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.filled);
        self.filled = now;
        self.tokens = (self.tokens + passed.as_secs_f64() * rate).min(rate * BURST);
        let granted = self.tokens >= 1.0;
        if granted {
            self.tokens -= 1.0;
            self.stats.lines += 1;
        } else {
            self.stats.dropped += 1;
            if self.unreported == 0 {
                self.dropped_since = now;
            }
            self.unreported += 1;
        }
        granted
    }
}

impl Drop for OutputLog {
    fn drop(&mut self) {
        let mut counted = self.counted();
        if counted.unreported > 0 {
            self.report(&mut counted, Instant::now());
        }
    }
}

/// One of a guest's two output streams. Clones write to the same line.
#[derive(Clone)]
pub(super) struct LogStream {
    output: Arc<OutputLog>,
    stream: &'static str,
    line: Arc<Mutex<Vec<u8>>>,
}

impl LogStream {
    pub(super) fn new(output: Arc<OutputLog>, stream: &'static str) -> LogStream {
        LogStream {
            output,
            stream,
            line: Arc::default(),
        }
    }

    fn take(&self, bytes: &[u8]) {
        let mut line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ended) = match part.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (part, false),
            };
            // One byte more than is shown, so that it shows what was cut.
            let room = MAX_LINE + 1 - line.len();
            line.extend_from_slice(&text[..text.len().min(room)]);
            if ended {
                self.output.line(self.stream, &line);
                line.clear();
            }
        }
    }
}

impl Drop for LogStream {
    fn drop(&mut self) {
        // The last words of a guest that traps often lack the line's end.
        if Arc::strong_count(&self.line) == 1 {
            let line = self.line.lock().unwrap_or_else(PoisonError::into_inner);
            self.output.line(self.stream, &line);
        }
    }
}

impl IsTerminal for LogStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for LogStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait::async_trait]
impl Pollable for LogStream {
    async fn ready(&mut self) {}
}

impl OutputStream for LogStream {
    fn write(&mut self, bytes: bytes::Bytes) -> StreamResult<()> {
        if bytes.len() > MAX_WRITE {
            return Err(StreamError::trap(
                "it wrote more to its output than `check-write` allows",
            ));
        }
        self.take(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_WRITE)
    }
}

impl AsyncWrite for LogStream {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let taken = bytes.len().min(MAX_WRITE);
        self.take(&bytes[..taken]);
        Poll::Ready(Ok(taken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
