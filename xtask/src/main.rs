//! `cargo xtask`: the project's chores. Each subcommand has a file of its own;
//! this one only reads the command line.

mod bench;
mod ci;
mod components;
mod debian_std;
mod first_run;
mod fuzz;
mod run;
mod servers;
mod step;
mod test;
mod wasm_target;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

/// The project's chores.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    Run(run::Run),
    Test(test::Test),
    Plugins(components::Plugins),
    Bench(bench::Bench),
    Fuzz(fuzz::Fuzz),
    Servers(servers::Servers),
    Ci(ci::Ci),
}

fn main() -> ExitCode {
    match execute(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // Without the backtrace that returning it would print where
            // RUST_BACKTRACE is set, as it often is in CI.
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<()> {
    let workspace = Workspace::find()?;
    match cli.chore {
        Chore::Run(run) => run.execute(&workspace),
        Chore::Test(test) => test.execute(&workspace),
        Chore::Plugins(plugins) => plugins.execute(&workspace),
        Chore::Bench(bench) => bench.execute(&workspace),
        Chore::Fuzz(fuzz) => fuzz.execute(&workspace),
        Chore::Servers(servers) => servers.execute(&workspace),
        Chore::Ci(ci) => ci.execute(&workspace),
    }
}
