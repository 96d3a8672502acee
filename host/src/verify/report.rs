//! What came of the cases, for people and as JSON.

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::judge::counted;

/// What came of one case.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome", content = "detail")]
pub(crate) enum Outcome {
    /// It is as it should be; says what was seen.
    Passed(String),
    /// It is not; says what was seen instead.
    Failed(String),
    /// It says nothing about this backend; says why.
    NotApplicable(String),
    /// Something else was in the way; says what.
    Undecided(String),
}

/// A case and what came of it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct CaseReport {
    pub(crate) name: &'static str,
    /// What is claimed of every backend.
    pub(crate) claim: &'static str,
    #[serde(flatten)]
    pub(crate) outcome: Outcome,
    #[serde(serialize_with = "seconds")]
    pub(crate) seconds: Duration,
}

/// All of a run.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) plugin: String,
    pub(crate) name: String,
    /// Which run it was: part of the source of each of its events.
    pub(crate) run: String,
    /// Where it was read what arrived.
    pub(crate) read: String,
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) not_applicable: usize,
    pub(crate) undecided: usize,
    #[serde(serialize_with = "seconds")]
    pub(crate) seconds: Duration,
    pub(crate) cases: Vec<CaseReport>,
}

impl Report {
    pub(super) fn add(&mut self, case: CaseReport) {
        let count = match case.outcome {
            Outcome::Passed(_) => &mut self.passed,
            Outcome::Failed(_) => &mut self.failed,
            Outcome::NotApplicable(_) => &mut self.not_applicable,
            Outcome::Undecided(_) => &mut self.undecided,
        };
        *count += 1;
        self.seconds += case.seconds;
        self.cases.push(case);
    }
}

/// One line, and what was seen below it unless it passed.
impl fmt::Display for CaseReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mark, detail) = match &self.outcome {
            Outcome::Passed(detail) => ("ok", detail),
            Outcome::Failed(detail) => ("FAILED", detail),
            Outcome::NotApplicable(detail) => ("n/a", detail),
            Outcome::Undecided(detail) => ("?", detail),
        };
        let (name, claim) = (self.name, self.claim);
        let seconds = self.seconds.as_secs_f64();
        write!(f, "{mark:<7} {name:<17} {claim}")?;
        match &self.outcome {
            Outcome::NotApplicable(_) => write!(f, "\n{:8}not applicable: {detail}", ""),
            _ => write!(f, " ({seconds:.1} s)\n{:8}{detail}", ""),
        }
    }
}

/// The last line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let passed = counted(self.passed, "case", "cases");
        write!(f, "{passed} passed, {} failed", self.failed)?;
        if self.undecided > 0 {
            write!(f, ", {} undecided", self.undecided)?;
        }
        if self.not_applicable > 0 {
            write!(f, ", {} not applicable", self.not_applicable)?;
        }
        write!(f, ", in {:.0} s", self.seconds.as_secs_f64())
    }
}

fn seconds<S: serde::Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64((time.as_secs_f64() * 1000.0).round() / 1000.0)
}
