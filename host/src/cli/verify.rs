//! `backhaul verify`: whether a backend is good.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;

use super::{compile, runtime};
use crate::verify::{Progress, Report, Scale, Suite, VerifyError, Wire, case_list};
use crate::wasm::WasmEngine;

/// What is logged: what plugin and host say while things are broken on purpose is
/// none of the report.
pub(super) const DEFAULT_LOG: &str = "off";

/// The run could not be made, or not to its end.
const COULD_NOT_RUN: u8 = 2;

/// Tries a backend against the real server its manifest names: publishes events
/// through it, in good times and while connections break, and reads from the server
/// what arrived.
///
/// The server is to be one for tests. Only events of this run count; they stay there. For
/// shipped backends nothing else is needed; for others, a profile beside the component,
/// NAME.verify.toml, says how to read what arrived and what is supported. See
/// docs/verifying-a-backend.md.
///
/// Exit code: 0 all cases passed, 1 some failed, 2 it could not be found out. With
/// BACKHAUL_LOG=info, the log of host and plugin goes to standard error.
#[derive(Args)]
pub(super) struct Arguments {
    /// Component to try
    #[arg(value_name = "PLUGIN.wasm", required_unless_present = "list")]
    file: Option<PathBuf>,

    /// Manifest to load it with [default: PLUGIN.toml beside it]
    #[arg(long, value_name = "FILE")]
    manifest: Option<PathBuf>,

    /// Profile: what it supports and how to read what arrived [default:
    /// PLUGIN.verify.toml beside it, or the shipped one]
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,

    /// Show all cases and what each claims, and run none
    #[arg(long)]
    list: bool,

    /// Run these cases only
    #[arg(long, value_name = "CASE", num_args = 1.., value_delimiter = ',')]
    only: Vec<String>,

    /// Write the report as JSON to FILE, or with - to standard output in place of the text
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,

    /// How many events the case `order` publishes [default: 10000]; those in which
    /// connections break publish three tenths as many, 3000 at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    events: Option<u32>,

    /// How many events the case `memory` publishes [default: 100000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1_000..=1_000_000))]
    memory_events: Option<u32>,

    /// Publish fewer events: 1000, and 10000 for `memory`
    #[arg(long)]
    quick: bool,

    /// Command for the shell that starts the server again, and returns when it is there
    #[arg(long, value_name = "COMMAND")]
    restart_command: Option<String>,
}

impl Arguments {
    fn scale(&self) -> Scale {
        let mut scale = match self.quick {
            true => Scale {
                events: 1_000,
                memory_events: 10_000,
                fault_events: 600,
            },
            false => Scale::default(),
        };
        if let Some(events) = self.events {
            scale.events = events as usize;
            // Not so few that no connection is worth breaking.
            scale.fault_events = (scale.events * 3 / 10).clamp(60, 3_000);
        }
        if let Some(events) = self.memory_events {
            scale.memory_events = events as usize;
        }
        scale
    }
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if arguments.list {
        for (name, claim) in case_list() {
            // Whoever has seen enough closes it.
            if writeln!(std::io::stdout(), "{name:<17} {claim}").is_err() {
                break;
            }
        }
        return Ok(ExitCode::SUCCESS);
    }
    match verify(arguments) {
        Ok(report) if report.failed > 0 => Ok(ExitCode::FAILURE),
        Ok(report) if report.undecided > 0 => Ok(ExitCode::from(COULD_NOT_RUN)),
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "backhaul: {error:#}");
            Ok(ExitCode::from(COULD_NOT_RUN))
        }
    }
}

fn verify(arguments: Arguments) -> anyhow::Result<Report> {
    let runtime = runtime()?;
    let wire = Wire::new(runtime.handle().clone());
    let routed = wire.clone();
    let engine = compile::engine_builder(WasmEngine::default_cache())?
        .reroute(move |server| routed.route(server))
        .build()
        .map_err(VerifyError::from)?;
    let json = arguments.json.clone();
    // The text makes room for the JSON.
    let to_error = json.as_deref() == Some(Path::new("-"));
    // Nobody reading is no reason to end: there is still the exit code.
    let line = |text: String| {
        let _ = match to_error {
            true => writeln!(std::io::stderr(), "{text}"),
            false => writeln!(std::io::stdout(), "{text}"),
        };
    };
    let suite = Suite {
        scale: arguments.scale(),
        file: arguments.file.expect("clap asks for it"),
        manifest: arguments.manifest,
        profile: arguments.profile,
        only: arguments.only,
        restart_command: arguments.restart_command,
    };
    let report = runtime.block_on(suite.run(&engine, &wire, |progress| match progress {
        Progress::Begins(report) => {
            let Report {
                plugin,
                name,
                run,
                read,
                ..
            } = report;
            line(format!("{plugin}: `{name}`, run {run}\nreads {read}\n"));
        }
        Progress::Starts(case) => under_way(case),
        Progress::Ended(case) => {
            under_way("");
            line(case.to_string());
        }
    }))?;
    line(format!("\n{report}"));
    if let Some(file) = json {
        let text = serde_json::to_string_pretty(&report)?;
        match to_error {
            true => writeln!(std::io::stdout(), "{text}")
                .context("the report cannot be written to standard output")?,
            false => std::fs::write(&file, text + "\n")
                .with_context(|| format!("{} cannot be written", file.display()))?,
        }
    }
    Ok(report)
}

/// Shows on a terminal what goes on, until it is something else.
fn under_way(case: &str) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // Who looks on is not told of it if it cannot be shown.
        let _ = match case {
            "" => write!(terminal, "\r\x1b[K"),
            case => write!(terminal, "...     {case}"),
        };
        let _ = terminal.flush();
    }
}
