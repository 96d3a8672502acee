//! What a guest prints: lines of the host's log, with the plugin's name, which
//! can neither forge nor flood.

use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};

fn printer() -> (Workspace, Host) {
    let workspace = Workspace::new();
    workspace.add_plugin("printer", &components::test_guest("print_output"), "");
    let host = workspace.serve();
    (workspace, host)
}

/// The lines that hold `text`.
fn lines(log: &str, text: &str) -> Vec<String> {
    let with_text = log.lines().filter(|line| line.contains(text));
    with_text.map(str::to_owned).collect()
}

#[test]
fn a_printed_line_is_a_line_of_the_log_with_the_plugin_and_the_stream() {
    let (_workspace, host) = printer();
    host.post_event("1", "order:print", "lines");
    let (_, log) = host.stop();
    for (text, stream) in [
        ("a line on standard output", "stdout"),
        ("a line on standard error", "stderr"),
    ] {
        let lines = lines(&log, text);
        assert_eq!(lines.len(), 1, "{log}");
        assert!(lines[0].contains(" INFO "), "{}", lines[0]);
        let fields = format!("plugin=\"printer\" stream=\"{stream}\"");
        assert!(lines[0].contains(&fields), "{}", lines[0]);
    }
}

#[test]
fn a_printed_line_cannot_forge_another_or_change_the_terminal() {
    let (_workspace, host) = printer();
    host.post_event("1", "order:print", "forged");
    // Of a batch, this guest does only the first order.
    host.wait_for_log("forged");
    host.post_event("2", "order:print", "binary");
    let (_, log) = host.stop();
    assert_eq!(
        lines(&log, r"\u{1b}[2J\u{d}ERROR forged \u{202e}line\u{7}").len(),
        1,
        "{log}"
    );
    assert_eq!(lines(&log, "not \u{fffd}\u{fffd} UTF-8").len(), 1, "{log}");
    let control = |c: char| c.is_control() && c != '\n' || c == '\u{202e}';
    assert!(!log.contains(control), "{log:?}");
}

#[test]
fn a_line_that_does_not_end_is_cut_and_what_was_begun_is_shown_when_the_instance_goes() {
    let (_workspace, host) = printer();
    host.post_event("1", "order:print", "endless");
    let (status, log) = host.stop();
    assert!(status.success());
    let printed = lines(&log, "xxxx");
    assert_eq!(printed.len(), 1, "one line, however long");
    assert!(printed[0].len() < 4096 + 200, "{} bytes", printed[0].len());
    assert!(printed[0].contains("xxx... "), "cut, and marked so");
    assert_eq!(lines(&log, "begun, not ended").len(), 1, "{log}");
}
