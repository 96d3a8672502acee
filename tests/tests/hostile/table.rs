//! The figures of all attacks, as a table.

use std::fmt;
use std::time::Duration;

use crate::attacks::Kind;

pub(crate) const MIB: u64 = 1 << 20;

/// The longest outcome that is shown, in characters.
const OUTCOME: usize = 110;

pub(crate) struct Row {
    pub(crate) attack: String,
    pub(crate) kind: Kind,
    /// Events a second of the honest plugin without the attack.
    pub(crate) alone: f64,
    /// The same under attack.
    pub(crate) attacked: f64,
    /// The longest a post was not answered under attack.
    pub(crate) slowest: Duration,
    /// By how many bytes the host was larger, at most.
    pub(crate) grown: u64,
    /// By how many bytes its instances may make it larger.
    pub(crate) allowed: u64,
    /// What became of it; `None` if it did not take place.
    pub(crate) outcome: Option<String>,
}

#[derive(Default)]
pub(crate) struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Row {
    pub(crate) fn ratio(&self) -> f64 {
        self.attacked / self.alone.max(1.0)
    }
}

impl Table {
    pub(crate) fn push(&mut self, row: Row) {
        eprintln!("{row}");
        self.rows.push(row);
    }

    pub(crate) fn note(&mut self, text: String) {
        self.notes.push(text);
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "| attack | takes | honest alone/s | under attack/s | ratio | slowest answer ms | memory grown MiB | of MiB | what the host says of it |\n\
             | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
        )?;
        for row in &self.rows {
            writeln!(f, "{row}")?;
        }
        for note in &self.notes {
            writeln!(f, "\n{note}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::None => "nothing",
            Kind::Cpu => "processor",
            Kind::Other => "other",
        };
        let outcome = self.outcome.as_deref().unwrap_or("NOTHING");
        let mut short: String = outcome.chars().take(OUTCOME).collect();
        if short.len() < outcome.len() {
            short.push_str("...");
        }
        write!(
            f,
            "| {} | {kind} | {:.0} | {:.0} | {:.2} | {} | {} | {} | {} |",
            self.attack,
            self.alone,
            self.attacked,
            self.ratio(),
            self.slowest.as_millis(),
            self.grown / MIB,
            self.allowed / MIB,
            short.replace('|', "\\|").replace('\n', " ")
        )
    }
}
