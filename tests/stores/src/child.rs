//! What runs in a process of its own: so that its memory is its own, so that
//! it can be killed, and so that a store that panics harms nobody else.
//!
//! A child is this program with `child`, a task, a store and a folder, and
//! says what it found in lines of `name value`.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::record;
use crate::store::{Batch, Kind, Store};

/// A child that runs, with what it says.
pub(crate) struct Running {
    child: Child,
    /// Held open: a child that has nothing left to do waits for its end.
    _input: Option<ChildStdin>,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

/// Starts a child.
pub(crate) fn start(task: &str, kind: Kind, folder: &Path, arguments: &[u64]) -> Result<Running> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["child", task, kind.name()]).arg(folder);
    command.args(arguments.iter().map(u64::to_string));
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn()?;
    let output = child.stdout.take().context("a pipe was asked for")?;
    Ok(Running {
        _input: child.stdin.take(),
        lines: BufReader::new(output).lines(),
        child,
    })
}

impl Running {
    /// Kills the child once it has said `name` with `least` or more, and
    /// returns the last value it said.
    pub(crate) fn kill_at(mut self, name: &str, least: u64) -> Result<u64> {
        let mut last = 0;
        let mut killed = false;
        while let Some(Ok(line)) = self.lines.next() {
            let value = line.strip_prefix(name).map(str::trim);
            // A line may be cut by the kill.
            let Some(Ok(value)) = value.map(str::parse) else {
                continue;
            };
            last = last.max(value);
            if last >= least && !killed {
                self.child.kill()?;
                killed = true;
            }
        }
        self.child.wait()?;
        ensure!(killed, "the child ended before {name} {least}");
        Ok(last)
    }

    /// All the child says until it ends, the last of each name. It is killed
    /// after `patience`, which shows as `hung`.
    pub(crate) fn finish(mut self, patience: Duration) -> Result<HashMap<String, String>> {
        let lines = std::thread::spawn(move || {
            let split = |line: String| {
                let (name, value) = line.split_once(' ')?;
                Some((name.to_owned(), value.to_owned()))
            };
            let lines = self.lines.map_while(Result::ok);
            lines.filter_map(split).collect::<HashMap<_, _>>()
        });
        drop(self._input);
        let end = Instant::now() + patience;
        let mut hung = false;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > end && !hung {
                self.child.kill()?;
                hung = true;
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let mut said = lines.join().expect("the reader does not panic");
        if hung {
            said.insert("hung".to_owned(), "1".to_owned());
        } else if !status.success() {
            said.insert("died".to_owned(), status.to_string());
        }
        Ok(said)
    }
}

/// Says one thing to the parent.
fn say(name: &str, value: impl std::fmt::Display) -> Result<()> {
    let mut output = std::io::stdout().lock();
    writeln!(output, "{name} {value}")?;
    output.flush()?;
    Ok(())
}

/// An error on one line.
fn line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}").replace('\n', " ");
    text.chars().take(160).collect()
}

/// The child's side. `arguments` are task, store, folder, numbers.
pub(crate) fn main(arguments: &[String]) -> Result<()> {
    log::set_logger(&COUNTER).map_err(|_| anyhow::anyhow!("a second logger"))?;
    log::set_max_level(log::LevelFilter::Warn);
    let [task, kind, folder, numbers @ ..] = arguments else {
        bail!("child TASK STORE FOLDER NUMBERS");
    };
    let (kind, folder) = (Kind::named(kind)?, PathBuf::from(folder));
    let numbers: Vec<u64> = numbers
        .iter()
        .map(|n| n.parse())
        .collect::<Result<_, _>>()?;
    match (task.as_str(), &*numbers) {
        ("append", &[count, group, small, close]) => {
            append(kind, &folder, count, group, small == 1, close == 1)
        }
        ("first", &[]) => first(kind, &folder),
        ("verify", &[count, small]) => verify(kind, &folder, count, small == 1),
        ("fill", &[ballast]) => fill(kind, &folder, ballast),
        _ => bail!("no task {task} of {} numbers", numbers.len()),
    }
}

/// Appends `count` records, then closes, or waits to be killed.
fn append(
    kind: Kind,
    folder: &Path,
    count: u64,
    group: u64,
    small: bool,
    close: bool,
) -> Result<()> {
    let mut store = kind.open(folder, small)?;
    for first in (1..=count).step_by(group as usize) {
        store.append(&Batch::of(first, &record::group(first, group as usize)))?;
        say("acked", first + group - 1)?;
    }
    if close {
        return store.close();
    }
    say("waiting", 1)?;
    std::io::stdin().read_line(&mut String::new())?;
    Ok(())
}

/// Times opening, the first record, and all of them.
fn first(kind: Kind, folder: &Path) -> Result<()> {
    let before = peak_memory()?;
    let start = Instant::now();
    let mut store = kind.open(folder, false)?;
    let mut found = None;
    store.read(1, &mut |seq, _| {
        found = Some(seq);
        false
    })?;
    say("first", start.elapsed().as_secs_f64())?;
    say("first_memory", peak_memory()? - before)?;
    ensure!(found == Some(1), "the first record is {found:?}");
    let start = Instant::now();
    let mut count = 0u64;
    store.read(1, &mut |_, body| {
        count += u64::from(body.len() == record::LENGTH);
        true
    })?;
    say("all", count)?;
    say("all_seconds", start.elapsed().as_secs_f64())?;
    say("all_memory", peak_memory()? - before)?;
    store.close()
}

/// The most memory this process had, in bytes.
fn peak_memory() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.context("VmHWM in /proc/self/status")?;
    let kilobytes: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    Ok(kilobytes * 1024)
}

/// Opens and reads all that can be had, of `count` records that should be there.
fn verify(kind: Kind, folder: &Path, count: u64, small: bool) -> Result<()> {
    let opened = catch_unwind(|| kind.open(folder, small));
    let mut store = match opened {
        Ok(Ok(store)) => store,
        Ok(Err(error)) => {
            say("error", line(&error))?;
            return say("logged", COUNTER.lines.load(Ordering::Relaxed));
        }
        Err(_) => return say("panicked", "while it opened"),
    };
    say("opened", 1)?;
    let found = read_all(&mut *store, count)?;
    say("intact", found.intact)?;
    say("wrong", found.wrong)?;
    if let Some(error) = &found.error {
        say("error", error)?;
    }
    if found.panicked {
        say("panicked", "while it read")?;
    }
    say("logged", COUNTER.lines.load(Ordering::Relaxed))
}

/// What [`read_all`] found.
struct Found {
    intact: u64,
    /// Records with other bytes than were written, or twice.
    wrong: u64,
    error: Option<String>,
    panicked: bool,
}

/// Reads all, and goes on behind what cannot be read, as a patient host would.
fn read_all(store: &mut dyn Store, count: u64) -> Result<Found> {
    let mut found = Found {
        intact: 0,
        wrong: 0,
        error: None,
        panicked: false,
    };
    let mut from = 1;
    let mut fruitless = 0;
    // Each attempt costs a look-up; a thousand of them is patient.
    for _ in 0..1000 {
        let mut next = from;
        let read = catch_unwind(AssertUnwindSafe(|| {
            store.read(from, &mut |seq, body| {
                if seq < next || body != record::body(seq) {
                    found.wrong += 1;
                } else if seq <= count {
                    found.intact += 1;
                }
                next = next.max(seq + 1);
                true
            })
        }));
        match read {
            Ok(Ok(())) => return Ok(found),
            Ok(Err(error)) => found.error = Some(line(&error)),
            Err(_) => found.panicked = true,
        }
        fruitless = if next > from { 0 } else { fruitless + 1 };
        // Behind a long gap in larger and larger steps.
        from = next + 1 + (1 << (fruitless / 64u32).min(20)) / 2;
        if from > count {
            break;
        }
    }
    Ok(found)
}

/// Appends until the disk is full, makes room, and tries to go on.
fn fill(kind: Kind, folder: &Path, ballast: u64) -> Result<()> {
    let weight = folder.join("ballast");
    std::fs::write(&weight, vec![1; ballast as usize])?;
    let files = folder.join("store");
    let mut store = kind.open(&files, true)?;
    let mut next = 1;
    let attempt = |store: &mut dyn Store, next: &mut u64| -> Result<()> {
        let records = record::group(*next, 16);
        let batch = Batch::of(*next, &records);
        match catch_unwind(AssertUnwindSafe(|| store.append(&batch))) {
            Ok(Ok(())) => {
                *next += 16;
                say("acked", *next - 1)
            }
            Ok(Err(error)) => Err(error),
            Err(_) => bail!("it panicked"),
        }
    };
    // Four times what the disk holds: a store may also stop saying no.
    let refused = (0..12_000).find_map(|_| attempt(&mut *store, &mut next).err());
    say("full_at", next - 1)?;
    match refused {
        Some(error) => say("refused", line(&error))?,
        None => return say("never_refused", 1),
    }
    std::fs::remove_file(&weight)?;
    let again = (0..3).map(|_| attempt(&mut *store, &mut next));
    match again.last() {
        Some(Err(error)) => say("again", line(&error))?,
        _ => say("again", "yes")?,
    }
    // As a crash would: the parent looks at the files with a fresh process.
    std::process::exit(0);
}

/// Counts what stores log at `warn` and above.
static COUNTER: Counter = Counter {
    lines: AtomicU64::new(0),
};

/// See [`COUNTER`].
struct Counter {
    lines: AtomicU64,
}

impl log::Log for Counter {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            self.lines.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}
