//! A run: what is needed for it, and its cases one after the other.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::VerifyError;
use super::arrivals::Arrivals;
use super::cases::{CASES, Case, Context, Scale, Stop};
use super::profile::Profile;
use super::readers::{self, Setup};
use super::report::{CaseReport, Outcome, Report};
use super::target::Target;
use super::wire::Wire;
use crate::pattern::Pattern;
use crate::wasm::WasmEngine;

/// What a run is made with.
pub(crate) struct Suite {
    /// The component.
    pub(crate) file: PathBuf,
    /// Its manifest; beside it unless set.
    pub(crate) manifest: Option<PathBuf>,
    /// Its profile; beside it, or shipped, unless set.
    pub(crate) profile: Option<PathBuf>,
    /// The names of the cases to run; all if empty.
    pub(crate) only: Vec<String>,
    pub(crate) scale: Scale,
    /// A command for the shell that starts the server again.
    pub(crate) restart_command: Option<String>,
}

/// The names of all cases, and what each claims.
pub(crate) fn case_list() -> impl Iterator<Item = (&'static str, &'static str)> {
    CASES.iter().map(|case| (case.name, case.claim))
}

impl Suite {
    /// Runs the cases. `begin` is told what is tried and read before the first,
    /// `starting` each case that starts, and `done` what came of it.
    ///
    /// # Errors
    ///
    /// If no case can be run.
    pub(crate) async fn run(
        self,
        engine: &WasmEngine,
        wire: &Wire,
        mut watch: impl FnMut(Progress<'_>),
    ) -> Result<Report, VerifyError> {
        let chosen = self.chosen()?;
        let manifest = self.manifest.clone();
        let manifest = manifest.unwrap_or_else(|| self.file.with_extension("toml"));
        let target = Target::load(engine, &self.file, &manifest).await?;
        let mut env = target.env();
        let (profile, profile_file) =
            Profile::read(&target.name, &env, &self.file, self.profile.as_deref())?;
        let Some(reader) = &profile.reader else {
            return Err(VerifyError::NoReader {
                name: target.name,
                file: profile_file.unwrap_or_else(|| self.file.with_extension("verify.toml")),
            });
        };
        env.extend(profile.settings.clone());
        let run = Uuid::new_v4().simple().to_string()[..12].to_owned();
        let event_type = event_type(&profile, &target.manifest.events);
        let setup = Setup {
            env,
            grants: &target.manifest.grants,
            event_type: &event_type,
            run: &run,
        };
        let reader = tokio::task::block_in_place(|| readers::open(reader, &setup))?;
        let arrivals = Arrivals::of(reader, profile.patience);
        let mut report = Report {
            plugin: self.file.display().to_string(),
            name: target.name.clone(),
            run: run.clone(),
            read: arrivals.place().to_owned(),
            passed: 0,
            failed: 0,
            not_applicable: 0,
            undecided: 0,
            seconds: Duration::ZERO,
            cases: Vec::new(),
        };
        watch(Progress::Begins(&report));
        for case in chosen {
            watch(Progress::Starts(case.name));
            let context = Context {
                case: case.name,
                target: &target,
                profile: &profile,
                arrivals: &arrivals,
                wire,
                run: &run,
                event_type: &event_type,
                scale: self.scale,
                restart_command: self.restart_command.as_deref(),
            };
            let done = run_case(case, &context).await;
            watch(Progress::Ended(&done));
            report.add(done);
        }
        Ok(report)
    }

    fn chosen(&self) -> Result<Vec<&'static Case>, VerifyError> {
        let known = |name: &String| CASES.iter().any(|case| case.name == name);
        if let Some(unknown) = self.only.iter().find(|name| !known(name)) {
            return Err(VerifyError::NoSuchCase(unknown.clone()));
        }
        let chosen =
            |case: &&Case| self.only.is_empty() || self.only.iter().any(|name| name == case.name);
        Ok(CASES.iter().filter(chosen).collect())
    }
}

/// What a run tells while it goes on.
pub(crate) enum Progress<'a> {
    /// It begins; nothing is in the report yet.
    Begins(&'a Report),
    /// The case of this name starts.
    Starts(&'a str),
    /// A case has ended.
    Ended(&'a CaseReport),
}

async fn run_case(case: &Case, context: &Context<'_>) -> CaseReport {
    let began = Instant::now();
    context.begin();
    let verdict = (case.run)(context).await;
    context.wire.release();
    let outcome = match verdict {
        Ok(seen) => Outcome::Passed(seen),
        Err(Stop::Failed(why)) => Outcome::Failed(why),
        Err(Stop::NotApplicable(why)) => Outcome::NotApplicable(why),
        Err(Stop::Undecided(why)) => Outcome::Undecided(why),
    };
    CaseReport {
        name: case.name,
        claim: case.claim,
        outcome,
        seconds: began.elapsed(),
    }
}

/// The type of the events: the profile's, or one the manifest has come to the plugin.
fn event_type(profile: &Profile, patterns: &[Pattern]) -> String {
    let default = "after:verify";
    let pattern = patterns.first().map(ToString::to_string);
    match (&profile.event_type, pattern.as_deref()) {
        (Some(event_type), _) => event_type.clone(),
        (None, None | Some("*")) => default.to_owned(),
        (None, Some(pattern)) => pattern.replace('*', "verify"),
    }
}
