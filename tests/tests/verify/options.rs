//! What the program takes, shows and answers.

use std::process::Stdio;

use backhaul_tests::process::free_port;

use super::Subject;

fn file() -> Subject {
    let subject = Subject::shipped("file", "");
    let manifest = format!(
        "[grants]\nfiles = [{{ host = \"{}\", guest = \"/out\", write = true }}]\n",
        subject.workspace.path().join("data/out").display()
    );
    std::fs::write(subject.file.with_extension("toml"), manifest).expect("a manifest");
    subject
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

#[test]
fn the_report_is_read_by_people_and_written_for_programs() {
    let subject = file();
    let output = subject
        .command(&[
            "--quick",
            "--json",
            "report.json",
            "--only",
            "single,order",
            "unreachable",
        ])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let shown = text(&output.stdout);
    assert!(shown.contains("ok      single "), "{shown}");
    assert!(
        shown.contains("1,000 events arrived once and in order"),
        "{shown}"
    );
    let why = "not applicable: the manifest grants no server";
    assert!(shown.contains(why), "{shown}");
    assert!(
        shown.contains("\n2 cases passed, 0 failed, 1 not applicable, in "),
        "{shown}"
    );
    let report = std::fs::read(subject.workspace.path().join("report.json")).unwrap();
    let report: serde_json::Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["name"], "file");
    assert_eq!(
        (&report["passed"], &report["not_applicable"]),
        (&2.into(), &1.into())
    );
    let names: Vec<&str> = report["cases"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|case| case["name"].as_str())
        .collect();
    assert_eq!(names, ["single", "order", "unreachable"]);
}

#[test]
fn the_cases_are_listed() {
    let output = file().workspace.run(&["verify", "--list"]);
    let shown = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0));
    assert!(shown.starts_with("name "), "{shown}");
    assert_eq!(shown.lines().count(), 21, "{shown}");
}

#[test]
fn a_run_that_cannot_be_made_says_why_and_is_no_verdict() {
    let closed = format!("127.0.0.1:{}", free_port());
    let away =
        format!("[grants]\ntcp = [\"{closed}\"]\nenv = {{ REDIS_URL = \"redis://{closed}\" }}\n");
    let away = Subject::shipped("redis-streams", &away);
    let unknown = Subject::new(
        "unknown",
        &backhaul_tests::components::test_guest("record_blocking"),
        "",
    );
    let wrong_manifest = Subject::shipped("file", "evens = []");
    let wrong_profile = file();
    wrong_profile.profile("order = \"all\"\nordre = \"all\"\n");
    let no_component = file();
    std::fs::write(&no_component.file, "hello").unwrap();
    for (subject, arguments, problem) in [
        (
            &away,
            &[][..],
            "cannot read the stream backhaul:events of Redis at 127.0.0.1",
        ),
        (
            &unknown,
            &[],
            "unknown.verify.toml; see docs/verifying-a-backend.md",
        ),
        (
            &wrong_manifest,
            &[],
            "file.toml, line 1: unknown field `evens`",
        ),
        (
            &wrong_profile,
            &[],
            "file.verify.toml, line 2: unknown field `ordre`",
        ),
        (&no_component, &[], "file.wasm: refused: "),
        (
            &file(),
            &["--only", "everything"],
            "there is no case `everything`",
        ),
        (&file(), &["--events", "0"], "0 is not in 1..=1000000"),
        (
            &file(),
            &["--profile", "none.toml"],
            "none.toml: cannot be read",
        ),
    ] {
        let output = subject.command(arguments).output().unwrap();
        let shown = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{shown}");
        assert!(shown.contains(problem), "{problem}: {shown}");
    }
}

#[test]
fn a_run_goes_on_when_nobody_reads_its_report() {
    let subject = file();
    let mut command = subject.command(&["--only", "single", "batch"]);
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let mut run = command.spawn().expect("the program runs");
    drop(run.stdout.take());
    assert_eq!(run.wait().expect("its status").code(), Some(0));
}
