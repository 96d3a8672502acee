//! What a guest prints: lines of the host's log, with the plugin's name, which
//! can neither forge nor flood.

use std::time::{Duration, Instant};

use backhaul::AsyncBackend;
use backhaul::wasm::{Grants, Limits};
use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};

use crate::guest::{GENEROUS, broken, order, start, within};

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

#[test]
fn a_flood_is_cut_to_the_rate_and_the_log_says_how_many_lines_are_missing() {
    let workspace = Workspace::new();
    let manifest = "[limits]\ntimeout = \"3s\"\ncpu = \"1m\"\nlog = 5";
    workspace.add_plugin("flood", &components::test_guest("flood_output"), manifest);
    workspace.add_file_plugin();
    let host = workspace.serve();
    let started = Instant::now();
    assert_eq!(host.post_event("1", "order:print", "lines").status, 202);
    host.wait_for_log("it was not done after 3s");
    workspace.wait_for_file_lines(1);
    let log = host.log();
    let seconds = started.elapsed().as_secs() as usize + 1;

    // Ten seconds' worth at once, and five a second after that.
    let shown = lines(&log, "flood flood flood").len();
    assert!((50..=50 + 5 * seconds).contains(&shown), "{shown} lines");
    let said = lines(
        &log,
        "lines of its output were not logged: it wrote more than 5 a second; see `log` under [limits]",
    );
    assert!((1..=seconds + 1).contains(&said.len()), "{said:?}");
    assert!(
        said[0].contains(" WARN ") && said[0].contains("plugin=\"flood\""),
        "{}",
        said[0]
    );
}

/// A guest in a host call all the time does not compute, but must be stopped and
/// give way as one that does.
#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_prints_without_end_gives_way_and_is_stopped() {
    for what in ["lines", "blanks", "bytes"] {
        let limits = Limits {
            cpu: Duration::from_millis(300),
            ..within(GENEROUS)
        };
        let backend = start("flood_output", Grants::default(), limits).await;
        let mut turns = 0;
        let others = async {
            loop {
                tokio::task::yield_now().await;
                turns += 1;
            }
        };
        let reason = tokio::select! {
            () = others => unreachable!("it has no end"),
            reason = async { broken(&backend, &[order(what)]).await } => reason,
        };
        assert!(
            reason.contains("it used more than 300ms of processor time in one call"),
            "{what}: {reason}"
        );
        assert!(turns >= 15, "{what}: {turns} turns in 300 ms");
    }
}

#[tokio::test]
async fn a_line_of_ten_megabytes_is_taken_piece_by_piece_and_the_instance_lives_on() {
    let backend = start("flood_output", Grants::default(), within(GENEROUS)).await;
    let started = Instant::now();
    backend.publish(&[order("buffer")]).await.unwrap();
    backend.publish(&[order("buffer")]).await.unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(2),
        "{:?}",
        started.elapsed()
    );
}
