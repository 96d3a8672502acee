//! What a store makes of files that something else changed.

use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::record::Numbers;
use crate::report::Table;
use crate::store::Kind;
use crate::{child, files};

/// Trials of each damage.
const TRIALS: u64 = 20;

/// Killed stores that the trials take turns with.
const KILLED: u64 = 5;

/// About this many records, 21 MB: some are in each kind of file of a store.
const RECORDS: u64 = 60_000;

/// What is done to the largest file.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// Nothing: that the trial itself finds nothing.
    None,
    /// One bit in the middle four fifths is flipped.
    Bit,
    /// The last 100 bytes of data are cut off.
    Cut,
    /// 4 KiB in the middle four fifths are zero.
    Zero,
}

/// A store's files, and how many records were acknowledged.
struct Original {
    files: PathBuf,
    acked: u64,
    /// Within `files`, the file with the most data, and how much.
    largest: (PathBuf, u64),
}

/// Damages each store in all ways.
pub(crate) fn run(folder: &Path) -> Result<Table> {
    let columns = [
        "store",
        "before",
        "damage",
        "opened",
        "error",
        "log line only",
        "panic or hang",
        "lost, median",
        "lost, worst",
        "lost, nothing said",
        "wrong bytes returned",
    ];
    let title = format!("Damage to the largest file, {TRIALS} trials each, about 60,000 records");
    let mut table = Table::new(&title, &columns);
    for kind in Kind::STORES {
        for (before, killed) in [("closed", false), ("kill -9", true)] {
            let place = tempfile::tempdir_in(folder)?;
            let count = if killed { KILLED } else { 1 };
            let make = |number| {
                original(
                    kind,
                    &place.path().join(format!("{number}")),
                    killed,
                    number,
                )
            };
            let originals: Vec<_> = (0..count).map(make).collect::<Result<_>>()?;
            for opened in [Some(kind), kind.checked()].into_iter().flatten() {
                for damage in [Damage::None, Damage::Bit, Damage::Cut, Damage::Zero] {
                    let trials = trials(opened, damage, &originals, place.path())?;
                    let example = trials.example.clone();
                    let mut row = vec![
                        opened.name().to_owned(),
                        before.to_owned(),
                        format!("{damage:?}").to_lowercase(),
                    ];
                    row.extend(trials.cells());
                    table.row(row);
                    if let Some(text) = example {
                        table.note(format!("{}: {text}", opened.name()));
                    }
                }
            }
        }
    }
    Ok(table)
}

/// Makes a store of about [`RECORDS`] records.
fn original(kind: Kind, files: &Path, killed: bool, seed: u64) -> Result<Original> {
    let acked = if killed {
        let at = RECORDS + Numbers::new(seed).below(10_000);
        let child = child::start("append", kind, files, &[10 * RECORDS, 16, 1, 0])?;
        child.kill_at("acked", at)?
    } else {
        let child = child::start("append", kind, files, &[RECORDS, 16, 1, 1])?;
        let said = child.finish(Duration::from_secs(60))?;
        let acked = said.get("acked");
        acked
            .with_context(|| format!("{kind:?} said {said:?}"))?
            .parse()?
    };
    Ok(Original {
        largest: files::largest(files)?,
        files: files.to_owned(),
        acked,
    })
}

/// What came of the trials of one damage.
#[derive(Default)]
struct Trials {
    opened: u64,
    errors: u64,
    log_only: u64,
    panics: u64,
    lost: Vec<u64>,
    silent: u64,
    wrong: u64,
    /// One error text.
    example: Option<String>,
}

/// Runs the trials of one damage.
fn trials(kind: Kind, damage: Damage, originals: &[Original], place: &Path) -> Result<Trials> {
    let mut trials = Trials::default();
    for number in 0..TRIALS {
        let original = &originals[(number % originals.len() as u64) as usize];
        let copy = place.join("copy");
        files::copy(&original.files, &copy)?;
        let (file, length) = &original.largest;
        harm(&copy.join(file), *length, damage, number)?;
        let child = child::start("verify", kind, &copy, &[original.acked, 1])?;
        let said = child.finish(Duration::from_secs(60))?;
        fs::remove_dir_all(&copy)?;
        trials.add(original.acked, said);
    }
    trials.lost.sort_unstable();
    Ok(trials)
}

/// Damages a file with `length` bytes of data.
fn harm(file: &Path, length: u64, damage: Damage, seed: u64) -> Result<()> {
    let file = File::options().read(true).write(true).open(file)?;
    let mut numbers = Numbers::new(seed ^ length);
    let at = length / 10 + numbers.below(length * 8 / 10);
    match damage {
        Damage::None => {}
        Damage::Bit => {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at)?;
            byte[0] ^= 1 << numbers.below(8);
            file.write_all_at(&byte, at)?;
        }
        Damage::Cut => file.set_len(length - 100)?,
        Damage::Zero => file.write_all_at(&[0; 4096], at & !4095)?,
    }
    Ok(())
}

impl Trials {
    /// Counts what a trial's child said about `acked` records.
    fn add(&mut self, acked: u64, mut said: HashMap<String, String>) {
        let number = |name: &str| {
            said.get(name)
                .and_then(|value| value.parse().ok())
                .unwrap_or(0)
        };
        let lost = acked.saturating_sub(number("intact"));
        let logged: u64 = number("logged");
        let broke = ["panicked", "died", "hung"]
            .iter()
            .any(|name| said.contains_key(*name));
        let error = said.contains_key("error");
        self.opened += u64::from(said.contains_key("opened"));
        self.wrong += u64::from(number("wrong") > 0);
        self.errors += u64::from(error);
        self.panics += u64::from(broke);
        self.log_only += u64::from(!error && !broke && logged > 0);
        self.silent += u64::from(lost > 0 && !error && !broke && logged == 0);
        self.lost.push(lost);
        self.example = self.example.take().or(said.remove("error"));
    }

    /// The cells of a row.
    fn cells(self) -> [String; 8] {
        let median = self.lost[self.lost.len() / 2];
        let worst = self.lost[self.lost.len() - 1];
        let of = |count: u64| format!("{count}/{TRIALS}");
        [
            of(self.opened),
            of(self.errors),
            of(self.log_only),
            of(self.panics),
            median.to_string(),
            worst.to_string(),
            of(self.silent),
            of(self.wrong),
        ]
    }
}
