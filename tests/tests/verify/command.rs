//! A reader of one's own: a program that prints what it finds.

use super::Subject;

fn subject(reader: &str) -> Subject {
    let subject = Subject::shipped("file", "");
    let out = subject.workspace.path().join("data/out");
    let manifest = format!(
        "[grants]\nfiles = [{{ host = \"{}\", guest = \"/out\", write = true }}]\n",
        out.display()
    );
    std::fs::write(subject.file.with_extension("toml"), manifest).expect("a manifest");
    subject.profile(&format!(
        "reader = {{ command = [\"sh\", \"-c\", '{reader}'] }}\npatience = \"3s\"\n\
         [settings]\nOUT = \"{}\"\n",
        out.display()
    ));
    subject
}

#[test]
fn what_it_prints_is_what_has_arrived() {
    let subject = subject(
        "echo ready; tail -s 0.1 -n +1 -F \"$OUT/events.ndjson\" 2>/dev/null & cat >/dev/null; kill $!",
    );
    let run = subject.verify(&["--only", "single", "batch"]);
    run.assert_passed(&[]);
    assert_eq!(run.report["read"], "what sh prints");
}

#[test]
fn one_that_is_not_ready_ends_or_prints_what_is_no_event_is_told() {
    for (reader, problem) in [
        ("echo hello", "its first line is \"hello\" and not `ready`"),
        ("exit 3", "it has ended (exit status: 3)"),
    ] {
        let run = subject(reader).verify(&["--only", "single"]);
        assert_eq!(run.code(), Some(2), "{}", run.text());
        assert!(run.text().contains(problem), "{}", run.text());
    }
    for (reader, problem) in [
        ("echo ready; echo hello; cat", "it printed \"hello\""),
        ("echo ready", "it has ended"),
    ] {
        let run = subject(reader).verify(&["--only", "single"]);
        assert_eq!(run.code(), Some(2), "{}", run.text());
        let (outcome, detail) = run.outcome("single");
        assert_eq!(outcome, "undecided");
        assert!(detail.contains(problem), "{detail}");
    }
}
