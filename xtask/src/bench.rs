//! `cargo xtask bench`: runs the benchmarks, which live in the tests package.

use anyhow::Result;
use xshell::cmd;

use crate::components;
use crate::servers;
use crate::step::Steps;
use crate::wasm_target;
use crate::workspace::Workspace;

/// Run the benchmarks, all or those named, and write target/bench/results.json
#[derive(clap::Args)]
pub(crate) struct Bench {
    /// Benchmarks to run, such as redis-batch-256; all where none is named
    names: Vec<String>,
}

impl Bench {
    pub(crate) fn execute(self, workspace: &Workspace) -> Result<()> {
        let mut steps = Steps::new(4);
        wasm_target::step(workspace, &mut steps)?;
        steps.next("the plugins");
        components::build_plugins(workspace)?;

        steps.next("the brokers' own benchmarks");
        if let Err(error) = servers::install_benchmarks(workspace) {
            eprintln!("They are left out: {error:#}");
        }

        steps.next("the benchmarks");
        let results = workspace.in_target("bench/results.json");
        workspace.sh.create_dir(workspace.in_target("bench"))?;
        let sh = &workspace.sh;
        // One of the benchmarks measures the program itself.
        cmd!(sh, "cargo build --release --package backhaul").run()?;
        let names = &self.names;
        cmd!(
            sh,
            "cargo bench --package backhaul-tests --bench speed -- {names...}"
        )
        .env("BACKHAUL_BENCH_OUT", &results)
        .run()?;
        eprintln!("The figures are in {}.", workspace.shown(&results));
        Ok(())
    }
}
