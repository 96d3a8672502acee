//! `backhaul verify`: the shipped backends pass it on their real servers, and what is
//! wrong with a backend is found by the case that is there for it.

mod command;
mod mutants;
mod options;
mod shipped;
mod tls;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use serde_json::Value;

/// A plugin in a folder of its own, to be verified.
struct Subject {
    workspace: Workspace,
    file: PathBuf,
}

/// What came of a run.
struct Run {
    output: Output,
    report: Value,
}

impl Subject {
    /// The component at `wasm`, with this manifest.
    fn new(name: &str, wasm: &Path, manifest: &str) -> Subject {
        let workspace = Workspace::new();
        workspace.add_plugin(name, wasm, manifest);
        let file = workspace
            .path()
            .join("plugins")
            .join(format!("{name}.wasm"));
        Subject { workspace, file }
    }

    /// The shipped backend of that name.
    fn shipped(name: &str, manifest: &str) -> Subject {
        Subject::new(name, &components::plugin(name), manifest)
    }

    /// Lays a profile beside the component.
    fn profile(&self, text: &str) {
        let file = self.file.with_extension("verify.toml");
        std::fs::write(file, text).expect("a profile");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.workspace.command(&["verify"]);
        command.arg(&self.file).args(arguments);
        // Every test needs the same compiled code.
        command.env("XDG_CACHE_HOME", components::target().join("test-cache"));
        command
    }

    /// Runs the suite with these arguments.
    fn verify(&self, arguments: &[&str]) -> Run {
        let output = self.command(&["--json", "-"]).args(arguments).output();
        let output = output.expect("the program runs");
        let report = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Run { output, report }
    }
}

impl Run {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.output.stderr).into_owned()
    }

    fn code(&self) -> Option<i32> {
        self.output.status.code()
    }

    /// The outcome of a case, and what was seen.
    fn outcome(&self, case: &str) -> (&str, &str) {
        let cases = self.report["cases"].as_array().into_iter().flatten();
        let found = cases.into_iter().find(|found| found["name"] == case);
        let found = found.unwrap_or_else(|| panic!("no case {case}: {}", self.text()));
        let text = |key: &str| found[key].as_str().expect("a text");
        (text("outcome"), text("detail"))
    }

    /// All passed, but for `not_applicable`, in the order of the cases.
    fn assert_passed(&self, not_applicable: &[&str]) {
        assert_eq!(
            self.code(),
            Some(0),
            "{:?} {}",
            self.output.status,
            self.text()
        );
        let cases = self.report["cases"].as_array().expect("cases");
        let skipped = cases
            .iter()
            .filter(|case| case["outcome"] == "not_applicable");
        let skipped: Vec<&str> = skipped.filter_map(|case| case["name"].as_str()).collect();
        assert_eq!(skipped, not_applicable, "{}", self.text());
        assert_eq!(self.report["failed"], 0);
        assert_eq!(
            self.report["passed"],
            cases.len() - not_applicable.len(),
            "{}",
            self.text()
        );
    }
}
