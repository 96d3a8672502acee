//! How fast: durable appends, the steady state, and a start with a backlog.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::child;
use crate::files;
use crate::record;
use crate::report::{self, Table};
use crate::store::{Batch, Kind};

/// Consumers with a position in the steady state.
const CONSUMERS: u16 = 4;

/// Records that are not delivered yet in the steady state.
const WINDOW: u64 = 100_000;

/// Records that go through the window.
const THROUGH: u64 = 2_000_000;

/// Records that wait when the host starts.
const BACKLOG: u64 = 1_000_000;

/// Durable appends of groups of three sizes.
pub(crate) fn append(folder: &Path) -> Result<Table> {
    let columns = ["store", "groups of 1", "groups of 16", "groups of 256"];
    let mut table = Table::new(
        "Durable append, records per second, median of three (least to most), of the bare loop beside it",
        &columns,
    );
    let mut rates = vec![vec![Vec::new(); 3]; Kind::TIMED.len()];
    // In turn, so that a busy minute of the machine meets more than one store.
    for _ in 0..3 {
        for (at, size) in [1, 16, 256].into_iter().enumerate() {
            for (kind, rates) in Kind::TIMED.into_iter().zip(&mut rates) {
                rates[at].push(append_once(kind, folder, size)?);
            }
        }
    }
    // Of the same round, and in front: the limit.
    let limit = rates[0].clone();
    for (kind, rates) in Kind::TIMED.into_iter().zip(rates) {
        let mut row = vec![kind.name().to_owned()];
        for (rates, limit) in rates.into_iter().zip(&limit) {
            let ratios = rates.iter().zip(limit).map(|(rate, limit)| rate / limit);
            let ratio = median(ratios.collect());
            let least = rates.iter().copied().fold(f64::INFINITY, f64::min);
            let most = rates.iter().copied().fold(0.0, f64::max);
            let [least, most, middle] = [least, most, median(rates)].map(report::thousands);
            row.push(format!("{middle} ({least} to {most}), {ratio:.2}"));
        }
        table.row(row);
    }
    Ok(table)
}

/// The one in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Two seconds of appends; records per second.
fn append_once(kind: Kind, folder: &Path, size: usize) -> Result<f64> {
    let folder = tempfile::tempdir_in(folder)?;
    let mut store = kind.open(folder.path(), false)?;
    // Making records is not the store's work.
    let records = record::group(1, size);
    let mut first = 1;
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(2) {
        store.append(&Batch::of(first, &records))?;
        first += size as u64;
    }
    let rate = (first - 1) as f64 / start.elapsed().as_secs_f64();
    store.close()?;
    Ok(rate)
}

/// Append, settle and remove in steady state.
pub(crate) fn steady(folder: &Path) -> Result<Table> {
    let title = "Steady state: 2 M records in groups of 256 through a window of 100 k (35 MB)";
    let columns = ["store", "records/s", "largest on disk", "at the end"];
    let mut table = Table::new(title, &columns);
    for kind in Kind::TIMED {
        let folder = tempfile::tempdir_in(folder)?;
        let files = folder.path();
        let mut store = kind.open(files, false)?;
        let records = record::group(1, 256);
        let mut largest = 0;
        let start = Instant::now();
        for (turn, first) in (1..=THROUGH).step_by(records.len()).enumerate() {
            let delivered = first.saturating_sub(WINDOW);
            let positions: Vec<_> = (0..CONSUMERS).map(|name| (name, delivered)).collect();
            // A store need not remove each record at once: every 4,096.
            let remove = turn % 16 == 0 && delivered > 0;
            store.append(&Batch {
                first,
                records: &records,
                positions: &positions,
                remove_below: remove.then_some(delivered),
            })?;
            if turn % 100 == 0 {
                largest = largest.max(files::size(files)?);
            }
        }
        let seconds = start.elapsed().as_secs_f64();
        let end = files::size(files)?;
        store.close()?;
        table.row(vec![
            kind.name().to_owned(),
            report::thousands(THROUGH as f64 / seconds),
            report::megabytes(largest.max(end)),
            report::megabytes(end),
        ]);
    }
    Ok(table)
}

/// Opening with a backlog, and reading it.
pub(crate) fn backlog(folder: &Path) -> Result<Table> {
    let title = "Opening with 1 M unread records, files in the page cache";
    let columns = [
        "store",
        "opened after",
        "first record",
        "memory",
        "read all, records/s",
        "memory then",
    ];
    let mut table = Table::new(title, &columns);
    for kind in [&[Kind::Bare][..], &Kind::STORES].concat() {
        let folder = tempfile::tempdir_in(folder)?;
        let files = folder.path();
        // Killed first: that opening leaves the store closed in order.
        let child = child::start("append", kind, files, &[BACKLOG, 256, 0, 0])?;
        child.kill_at("waiting", 1)?;
        let mut openings = vec![(kind, "kill -9"), (kind, "close")];
        openings.extend(kind.checked().map(|checked| (checked, "close")));
        for (kind, after) in openings {
            let child = child::start("first", kind, files, &[])?;
            let said = child.finish(Duration::from_secs(300))?;
            let number = |name: &str| -> Result<f64> {
                let value = said.get(name);
                let value = value.with_context(|| format!("{kind:?} said {said:?}"))?;
                Ok(value.parse()?)
            };
            table.row(vec![
                kind.name().to_owned(),
                after.to_owned(),
                format!("{:.3} s", number("first")?),
                report::megabytes(number("first_memory")? as u64),
                report::thousands(number("all")? / number("all_seconds")?),
                report::megabytes(number("all_memory")? as u64),
            ]);
        }
    }
    Ok(table)
}
