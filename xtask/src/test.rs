//! `cargo xtask test`: sets up and runs every test.
//!
//! A test that needs a server which is not installed is skipped by the test
//! harness, which notes it in a file; the list is shown at the end, so that a
//! skipped test is never mistaken for a passed one.

use std::path::Path;

use anyhow::{Context, Result, bail};
use xshell::cmd;

use crate::components;
use crate::step::Steps;
use crate::wasm_target;
use crate::workspace::Workspace;

/// Build what the tests need, and run every test
#[derive(clap::Args)]
pub(crate) struct Test {
    /// Fail where a server that tests need is missing, instead of skipping them; so too with CI=true set
    #[arg(long)]
    no_skip: bool,
    /// Arguments for `cargo test`, such as `--package xtask`; with any, only that part is run
    #[arg(last = true)]
    args: Vec<String>,
}

impl Test {
    pub(crate) fn execute(self, workspace: &Workspace) -> Result<()> {
        let everything = self.args.is_empty();
        let no_skip = self.no_skip || std::env::var("CI").is_ok_and(|ci| ci == "true");
        let skipped_file = workspace.in_target("test-skipped.txt");

        let mut steps = Steps::new(if everything { 6 } else { 4 });
        wasm_target::step(workspace, &mut steps)?;
        steps.next("the plugins");
        components::build_plugins(workspace)?;
        steps.next("the guests of the tests");
        components::build_test_guests(workspace)?;

        steps.next("the tests of the workspace");
        workspace.sh.write_file(&skipped_file, "")?;
        let tested = self
            .test_workspace(workspace, &skipped_file, no_skip)
            .and_then(|()| {
                if everything {
                    test_beside_workspace(workspace, &mut steps)
                } else {
                    Ok(())
                }
            });

        let skipped = std::fs::read_to_string(&skipped_file)
            .with_context(|| format!("cannot read {}", skipped_file.display()))?;
        let skipped = skipped_tests(&skipped);
        if !skipped.is_empty() {
            eprintln!("\n{} skipped:", tests(skipped.len()));
            for test in &skipped {
                eprintln!("  {test}");
            }
        }
        tested?;
        if no_skip && !skipped.is_empty() {
            bail!(
                "{} skipped, and with --no-skip or CI=true none may be",
                tests(skipped.len())
            );
        }
        match (everything, skipped.len()) {
            (true, 0) => eprintln!("\nAll tests passed, none skipped."),
            (false, 0) => eprintln!("\nThe chosen tests passed, none skipped."),
            (_, count) => eprintln!(
                "\nThe other tests passed; {} skipped, listed above.",
                tests(count)
            ),
        }
        Ok(())
    }

    fn test_workspace(
        &self,
        workspace: &Workspace,
        skipped_file: &Path,
        no_skip: bool,
    ) -> Result<()> {
        let sh = &workspace.sh;
        // The end-to-end tests start the program; a chosen part would not build it.
        cmd!(sh, "cargo build --package backhaul").run()?;
        let args = &self.args;
        // Given both, cargo would ignore a --package among the arguments.
        let workspace = args.is_empty().then_some("--workspace");
        let mut test = cmd!(sh, "cargo test {workspace...} {args...}")
            .env("BACKHAUL_TEST_SKIPPED", skipped_file)
            // Only this chore decides, or an old setting of the shell would.
            .env_remove("BACKHAUL_TEST_NO_SKIP");
        if no_skip {
            test = test.env("BACKHAUL_TEST_NO_SKIP", "1");
        }
        Ok(test.run()?)
    }
}

fn test_beside_workspace(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let sh = &workspace.sh;
    steps.next("the tests of the guest crate and the plugins, on this machine's own target");
    let guests = workspace.in_target("guests");
    cmd!(
        sh,
        "cargo test --workspace --manifest-path plugins/Cargo.toml --target-dir {guests}"
    )
    .run()?;
    steps.next("the bus without Wasm and HTTP");
    cmd!(sh, "cargo check --package backhaul --no-default-features").run()?;
    Ok(())
}

/// The harness writes a line for each skipped test, several processes at once.
fn skipped_tests(file: &str) -> Vec<&str> {
    let mut tests: Vec<&str> = file
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty())
        .collect();
    tests.sort_unstable();
    tests.dedup();
    tests
}

fn tests(count: usize) -> String {
    if count == 1 {
        "1 test was".to_owned()
    } else {
        format!("{count} tests were")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_skipped_test_is_listed_once() {
        let file = "TEST b: redis-server not found\n\nTEST a: redis-server not found\nTEST b: redis-server not found\n";
        assert_eq!(
            skipped_tests(file),
            [
                "TEST a: redis-server not found",
                "TEST b: redis-server not found"
            ]
        );
        assert!(skipped_tests("").is_empty());
    }
}
