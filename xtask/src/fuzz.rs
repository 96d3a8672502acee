//! `cargo xtask fuzz`: has libFuzzer look for input that makes the host do what
//! it must not. The targets are in `tests/fuzz`.
//!
//! Our own crates are compiled once more, so that libFuzzer can see which
//! branches an input takes; dependencies are those of every other build. It
//! needs nothing but a C++ compiler.

use std::fmt;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::components;
use crate::step::Steps;
use crate::wasm_target;
use crate::workspace::{Workspace, cargo_build};

/// How often it is said how far a target is.
const REPORT_EVERY: Duration = Duration::from_secs(10);

/// The most time of one input, in seconds: the targets hold the host to less,
/// but a hang says nothing.
const INPUT_TIMEOUT: u32 = 60;

/// The most memory of the whole process, in MiB. The largest input makes a
/// plugin use 8 MiB; compiling one takes more.
const MEMORY: u32 = 2048;

/// Look for input that makes the host do what it must not, with libFuzzer
///
/// What is found is kept in target/fuzz/findings, with the command that shows it again, and the
/// chore fails. Input that reaches new code is kept in target/fuzz/corpus and is where the next run
/// goes on from. When a finding is fixed, put its file into tests/fuzz/corpus/TARGET: every
/// `cargo test` reads it from then on.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(crate) struct Fuzz {
    /// The targets: the folders of tests/fuzz/corpus; all where none is named
    targets: Vec<String>,
    /// How long, for each target
    #[arg(long, default_value_t = 60, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
    /// Only read this file, for what was found; takes one target
    #[arg(long, value_name = "FILE")]
    replay: Option<PathBuf>,
}

impl Fuzz {
    pub(crate) fn execute(self, workspace: &Workspace) -> Result<()> {
        // Relative to where the chore was called, not to the root.
        let replay = self.replay.as_ref().map(std::path::absolute).transpose()?;
        let all = targets(&workspace.root.join("tests/fuzz/corpus"))?;
        if let Some(unknown) = self.targets.iter().find(|name| !all.contains(name)) {
            bail!("there is no target {unknown}; there are {}", all.join(", "));
        }
        let targets = match self.targets.is_empty() {
            true => all,
            false => self.targets,
        };
        if replay.is_some() && targets.len() != 1 {
            bail!("--replay takes one target: cargo xtask fuzz TARGET --replay FILE");
        }

        let mut steps = Steps::new(4 + targets.len());
        wasm_target::step(workspace, &mut steps)?;
        steps.next("the plugins");
        components::build_plugins(workspace)?;
        steps.next("the guests of the tests");
        components::build_test_guests(workspace)?;
        steps.next("libFuzzer, and the host with a view to its branches");
        let program = build(workspace)?;

        if let Some(file) = replay {
            steps.next(&format!("{} reads {}", targets[0], file.display()));
            let status = program_for(&program, &targets[0]).arg(&file).status()?;
            if !status.success() {
                bail!("the finding is there ({status})");
            }
            eprintln!("It was read without a finding.");
            return Ok(());
        }
        let mut found = Vec::new();
        for target in &targets {
            steps.next(&format!("{target}, for {} s", self.seconds));
            found.extend(Run::new(workspace, &program, target, self.seconds)?.watch()?);
        }
        if !found.is_empty() {
            for finding in &found {
                eprintln!("\n{finding}");
            }
            bail!("there are findings: {}", found.len());
        }
        eprintln!("\nNothing was found.");
        Ok(())
    }
}

/// The names of the targets: each has input to begin with.
fn targets(corpus: &Path) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in corpus
        .read_dir()
        .with_context(|| format!("cannot read {}", corpus.display()))?
    {
        targets.extend(entry?.file_name().into_string().ok());
    }
    targets.sort();
    Ok(targets)
}

fn build(workspace: &Workspace) -> Result<PathBuf> {
    let sh = &workspace.sh;
    let wrapper = workspace.root.join("tests/fuzz/instrument.sh");
    let built = cargo_build(
        cmd!(
            sh,
            "cargo test --workspace --features backhaul-fuzz/engine --test fuzzer --no-run"
        )
        .env("RUSTC_WORKSPACE_WRAPPER", wrapper)
        // Of what is built rarely, whole is quicker than in small parts.
        .env("CARGO_INCREMENTAL", "0"),
    )?;
    let program = built
        .into_iter()
        .find(|artifact| artifact.kinds.iter().any(|kind| kind == "test"))
        .and_then(|artifact| artifact.files.into_iter().next());
    program.context("cargo built no fuzzer")
}

fn program_for(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("BACKHAUL_FUZZ", target)
        .arg(format!("-timeout={INPUT_TIMEOUT}"))
        .arg(format!("-rss_limit_mb={MEMORY}"));
    command
}

/// One target, on its way.
struct Run<'a> {
    workspace: &'a Workspace,
    target: &'a str,
    command: Command,
    seconds: u32,
    log: PathBuf,
}

impl<'a> Run<'a> {
    fn new(
        workspace: &'a Workspace,
        program: &Path,
        target: &'a str,
        seconds: u32,
    ) -> Result<Run<'a>> {
        let sources = workspace.root.join("tests/fuzz");
        let folder = |kind: &str| workspace.in_target(&format!("fuzz/{kind}/{target}"));
        let (corpus, findings) = (folder("corpus"), folder("findings"));
        workspace.sh.create_dir(&corpus)?;
        workspace.sh.create_dir(&findings)?;
        let mut command = program_for(program, target);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", findings.display()));
        let dictionary = sources.join(format!("dictionaries/{target}.dict"));
        if dictionary.exists() {
            command.arg(format!("-dict={}", dictionary.display()));
        }
        // New input goes to the first folder; the second is only read.
        command.arg(corpus).arg(sources.join("corpus").join(target));
        Ok(Run {
            workspace,
            target,
            command,
            seconds,
            log: workspace.in_target(&format!("fuzz/{target}.log")),
        })
    }

    /// Runs it to its end, says how far it is, and returns what it found.
    fn watch(mut self) -> Result<Option<Finding>> {
        let mut child = self
            .command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("the fuzzer cannot be started")?;
        let stderr = child.stderr.take().context("it was to be piped")?;
        let (mut log, mut progress) = (Vec::new(), Progress::default());
        let (started, mut reported) = (Instant::now(), Instant::now());
        for line in BufReader::new(stderr).split(b'\n') {
            let line = line?;
            progress.read(&String::from_utf8_lossy(&line));
            log.extend(line);
            log.push(b'\n');
            if reported.elapsed() >= REPORT_EVERY {
                reported = Instant::now();
                let seconds = started.elapsed().as_secs();
                eprintln!("  {seconds:>4} of {} s: {progress}", self.seconds);
            }
        }
        let status = child.wait()?;
        self.workspace.sh.write_file(&self.log, &log)?;
        eprintln!("  {progress}");
        match status.success() {
            true => Ok(None),
            false => Ok(Some(self.finding(&String::from_utf8_lossy(&log), status))),
        }
    }

    fn finding(&self, log: &str, status: ExitStatus) -> Finding {
        Finding {
            target: self.target.to_owned(),
            status,
            said: what_happened(log),
            input: log
                .lines()
                .find_map(|line| line.split_once("Test unit written to "))
                .map(|(_, path)| self.workspace.shown(Path::new(path)).to_string()),
            log: self.workspace.shown(&self.log).to_string(),
        }
    }
}

/// The lines that say what went wrong: of a panic, or of libFuzzer itself.
fn what_happened(log: &str) -> Vec<String> {
    let lines: Vec<&str> = log.lines().collect();
    let said = |mark: &str| lines.iter().position(|line| line.contains(mark));
    let Some(at) = said("panicked at").or_else(|| said("ERROR: libFuzzer")) else {
        let last = lines.len().saturating_sub(5);
        return lines[last..]
            .iter()
            .map(|line| (*line).to_owned())
            .collect();
    };
    let shown = lines[at..].iter().take(4);
    let cut = |line: &&str| line.chars().take(400).collect();
    shown
        .take_while(|line| !line.starts_with("note:") && !line.starts_with("stack backtrace"))
        .map(cut)
        .collect()
}

/// What libFuzzer says of itself in its lines of progress.
#[derive(Debug, Default, PartialEq)]
struct Progress {
    runs: u64,
    coverage: u64,
    inputs: u64,
}

impl Progress {
    /// A line is `#1234 NEW cov: 56 ft: 78 corp: 9/1011b` and more, with tabs in it.
    fn read(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let runs = words.next().and_then(|word| word.strip_prefix('#'));
        let Some(runs) = runs.and_then(|runs| runs.parse().ok()) else {
            return;
        };
        self.runs = runs;
        while let Some(word) = words.next() {
            let mut number = || {
                let digits = words.next()?.split('/').next()?;
                digits.parse().ok()
            };
            match word {
                "cov:" => self.coverage = number().unwrap_or(self.coverage),
                "corp:" => self.inputs = number().unwrap_or(self.inputs),
                _ => {}
            }
        }
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Progress {
            runs,
            coverage,
            inputs,
        } = self;
        write!(
            f,
            "{runs} inputs tried, {coverage} branches seen, {inputs} inputs kept"
        )
    }
}

/// What went wrong with one target, and how to see it again.
struct Finding {
    target: String,
    status: ExitStatus,
    said: Vec<String>,
    input: Option<String>,
    log: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { target, status, .. } = self;
        writeln!(f, "found by {target} ({status}):")?;
        for line in &self.said {
            writeln!(f, "  {line}")?;
        }
        match &self.input {
            Some(input) => write!(
                f,
                "see it again: cargo xtask fuzz {target} --replay {input}"
            ),
            None => write!(f, "it left no input; all it said is in {}", self.log),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_libfuzzers_lines() {
        let mut progress = Progress::default();
        for line in [
            "INFO: Seed: 12",
            "#5\tINITED cov: 793 ft: 1460 corp: 4/828b exec/s: 0 rss: 41Mb",
            "#70\tNEW    cov: 800 ft: 1461 corp: 5/1Kb lim: 8 exec/s: 0 rss: 41Mb L: 5/9 MS: 1 x-",
            "\tNEW_FUNC[1/9]: 0x558862511c01",
            "#211384\tDONE   cov: 1429 ft: 3824 corp: 515/66Kb lim: 306 exec/s: 23487 rss: 42Mb",
        ] {
            progress.read(line);
        }
        let expected = Progress {
            runs: 211_384,
            coverage: 1429,
            inputs: 515,
        };
        assert_eq!(progress, expected);
    }

    #[test]
    fn a_finding_says_what_happened_and_how_to_see_it_again() {
        let log = "#5\tINITED cov: 1\n\nthread '<unnamed>' (7) panicked at tests/fuzz/src/x.rs:3:4:\n\
            it must not\nnote: run with `RUST_BACKTRACE=1`\n==7== ERROR: libFuzzer: deadly signal\n";
        let finding = Finding {
            target: "texts".to_owned(),
            status: ExitStatus::default(),
            said: what_happened(log),
            input: Some("target/fuzz/findings/texts/crash-1".to_owned()),
            log: String::new(),
        };
        let shown = finding.to_string();
        assert!(
            shown.contains("x.rs:3:4:\n  it must not\nsee it again"),
            "{shown}"
        );
        assert!(
            shown.ends_with("cargo xtask fuzz texts --replay target/fuzz/findings/texts/crash-1")
        );
        let hang = "#5\tINITED\n==7== ERROR: libFuzzer: timeout after 60 seconds\n";
        assert_eq!(
            what_happened(hang),
            ["==7== ERROR: libFuzzer: timeout after 60 seconds"]
        );
    }
}
