//! What was measured: rounds in turn, medians, a table and a file.

use std::cell::RefCell;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

/// How often each side is measured.
pub(crate) const ROUNDS: usize = 7;

/// How many events a round has of which each is alone, and how long nothing happens
/// after each.
pub(crate) const ALONE: usize = 500;
pub(crate) const PAUSE: Duration = Duration::from_millis(2);

/// Which way is better.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Better {
    /// A rate: more is better.
    Higher,
    /// A time or a size: less is better.
    Lower,
}

/// The benchmarks that were asked for, and their results so far.
pub(crate) struct Report {
    names: Vec<String>,
    results: RefCell<Vec<Value>>,
}

impl Report {
    pub(crate) fn new(names: Vec<String>) -> Report {
        Report {
            names,
            results: RefCell::default(),
        }
    }

    /// Whether `name` was asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| wanted == name)
    }

    /// Adds a comparison: one figure of each side per round. The ratio is above
    /// 1 where ours is better.
    pub(crate) fn compare(
        &self,
        name: &str,
        unit: &str,
        better: Better,
        rounds: &[(f64, f64)],
        note: &str,
    ) {
        let ratio = |&(ours, theirs): &(f64, f64)| match better {
            Better::Higher => ours / theirs,
            Better::Lower => theirs / ours,
        };
        let ours = median(rounds.iter().map(|round| round.0));
        let theirs = median(rounds.iter().map(|round| round.1));
        let ratio = median(rounds.iter().map(ratio));
        println!("{name:<20} {ours:>12.1} {theirs:>12.1} {unit:<9} ratio {ratio:>5.2}  {note}");
        self.add(json!({
            "name": name, "unit": unit, "ours": ours, "theirs": theirs, "ratio": ratio, "note": note,
        }));
    }

    /// Adds the median and the 99th percentile of each side's times, in microseconds.
    pub(crate) fn latencies<N: AsRef<str>>(
        &self,
        names: &[N; 2],
        rounds: &[(Vec<f64>, Vec<f64>)],
        note: &str,
    ) {
        for (name, at) in names.iter().zip([0.5, 0.99]) {
            let of = |times: &[f64]| percentile(times.iter().copied(), at);
            let rounds: Vec<_> = rounds
                .iter()
                .map(|(ours, theirs)| (of(ours), of(theirs)))
                .collect();
            self.compare(name.as_ref(), "us", Better::Lower, &rounds, note);
        }
    }

    /// Adds a figure that has no alternative.
    pub(crate) fn figure(&self, name: &str, unit: &str, rounds: &[f64], note: &str) {
        let ours = median(rounds.iter().copied());
        println!(
            "{name:<20} {ours:>12.1} {:>12} {unit:<9} {:>11}  {note}",
            "", ""
        );
        self.add(json!({
            "name": name, "unit": unit, "ours": ours, "theirs": null, "ratio": null, "note": note,
        }));
    }

    /// Says that a benchmark could not be run.
    pub(crate) fn skip(&self, name: &str, why: &str) {
        println!("{name:<20} not run: {why}");
    }

    fn add(&self, result: Value) {
        self.results.borrow_mut().push(result);
    }

    /// Writes the results where `cargo xtask bench` wants them.
    pub(crate) fn write(&self) -> anyhow::Result<()> {
        let Some(path) = std::env::var_os("BACKHAUL_BENCH_OUT").map(PathBuf::from) else {
            return Ok(());
        };
        std::fs::write(
            path,
            serde_json::to_string_pretty(&*self.results.borrow())? + "\n",
        )?;
        Ok(())
    }
}

/// The middle value.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> f64 {
    percentile(values, 0.5)
}

/// The value that the share `at` of all values is not above.
fn percentile(values: impl Iterator<Item = f64>, at: f64) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values[(last as f64 * at).round() as usize]
}
