//! `cargo xtask ci`: what has to hold before a change is taken.

use std::time::Instant;

use anyhow::{Context, Result};
use xshell::{Cmd, cmd};

use crate::first_run;
use crate::step::Steps;
use crate::wasm_target::{self, TARGET};
use crate::workspace::Workspace;

/// Check everything: format, clippy, tests with none skipped, docs, some fuzzing, and a first run
///
/// The first run starts from a copy of the files git tracks, as they are in the working tree:
/// edits that are not committed yet count, files that were never `git add`ed are missing.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Ci {
    /// Check only this part; may be given several times
    #[arg(long)]
    part: Vec<Part>,
}

/// The parts, in the order they are checked: the quick ones first.
#[derive(Clone, Copy, PartialEq, clap::ValueEnum)]
enum Part {
    /// Format, and clippy with warnings denied
    Lint,
    /// `cargo xtask test`, nothing skipped
    Test,
    /// The documentation, with warnings denied
    Docs,
    /// `cargo xtask fuzz`, some seconds for each target
    Fuzz,
    /// `cargo xtask run` in a fresh copy, and events through it
    FirstRun,
}

impl Ci {
    pub(crate) fn execute(self, workspace: &Workspace) -> Result<()> {
        wasm_target::step(workspace, &mut Steps::new(1))?;
        let checked = |part| self.part.is_empty() || self.part.contains(&part);
        let started = Instant::now();
        let mut count = 0;
        let mut check = |name: &str, check: &dyn Fn() -> Result<()>| -> Result<()> {
            count += 1;
            let started = Instant::now();
            eprintln!("ci: {name}");
            check()
                .with_context(|| format!("ci: {name}: failed after {:.1?}", started.elapsed()))?;
            eprintln!("ci: {name}: ok in {:.1?}", started.elapsed());
            Ok(())
        };

        if checked(Part::Lint) {
            for (name, command) in lints(workspace) {
                check(&name, &|| Ok(command.run()?))?;
            }
        }
        if checked(Part::Test) {
            let sh = &workspace.sh;
            // As the README has it; CI=true is what forbids to skip.
            check("cargo xtask test", &|| {
                Ok(cmd!(sh, "cargo xtask test").env("CI", "true").run()?)
            })?;
        }
        if checked(Part::Docs) {
            for (name, command) in docs(workspace) {
                check(name, &|| Ok(command.run()?))?;
            }
        }
        if checked(Part::Fuzz) {
            let sh = &workspace.sh;
            check("cargo xtask fuzz", &|| {
                Ok(cmd!(sh, "cargo xtask fuzz --seconds 8").run()?)
            })?;
        }
        if checked(Part::FirstRun) {
            check("first run", &|| first_run::check(workspace))?;
        }
        eprintln!("ci: {count} checks passed in {:.0?}", started.elapsed());
        Ok(())
    }
}

fn lints(workspace: &Workspace) -> Vec<(String, Cmd<'_>)> {
    let sh = &workspace.sh;
    let guests = workspace.in_target("guests");
    let mut lints = Vec::new();
    for manifest in [
        "Cargo.toml",
        "plugins/Cargo.toml",
        "tests/guests/Cargo.toml",
    ] {
        let format = cmd!(sh, "cargo fmt --all --check --manifest-path {manifest}");
        lints.push((format!("format of {manifest}"), format));
    }

    lints.push((
        "clippy of the workspace".to_owned(),
        cmd!(sh, "cargo clippy --workspace --all-targets -- -D warnings"),
    ));
    // Each feature alone, and the library only: the tests' own dependencies
    // would turn on features that the library forgot to ask for.
    for feature in ["", "wasm", "plugins", "http"] {
        let name = match feature {
            "" => "clippy of the library without features".to_owned(),
            feature => format!("clippy of the library with {feature} alone"),
        };
        let command = cmd!(
            sh,
            "cargo clippy --package backhaul --lib --no-default-features"
        );
        lints.push((
            name,
            command
                .arg(format!("--features={feature}"))
                .args(["--", "-D", "warnings"]),
        ));
    }
    lints.push((
        "clippy of the plugins".to_owned(),
        cmd!(
            sh,
            "cargo clippy --workspace --target {TARGET} --manifest-path plugins/Cargo.toml --target-dir {guests} -- -D warnings"
        ),
    ));
    lints.push((
        "clippy of the guest crate, natively".to_owned(),
        cmd!(
            sh,
            "cargo clippy --package backhaul-guest --all-targets --manifest-path plugins/Cargo.toml --target-dir {guests} -- -D warnings"
        ),
    ));
    lints.push((
        "clippy of the test guests".to_owned(),
        cmd!(
            sh,
            "cargo clippy --lib --examples --target {TARGET} --manifest-path tests/guests/Cargo.toml --target-dir {guests} -- -D warnings"
        ),
    ));
    lints
}

fn docs(workspace: &Workspace) -> Vec<(&'static str, Cmd<'_>)> {
    let sh = &workspace.sh;
    let guests = workspace.in_target("guests");
    vec![
        ("docs of the workspace", cmd!(sh, "cargo doc --no-deps --workspace").env("RUSTDOCFLAGS", "-D warnings")),
        (
            "docs of the guest crate",
            cmd!(
                sh,
                "cargo doc --no-deps --package backhaul-guest --manifest-path plugins/Cargo.toml --target-dir {guests}"
            )
            .env("RUSTDOCFLAGS", "-D warnings"),
        ),
    ]
}
