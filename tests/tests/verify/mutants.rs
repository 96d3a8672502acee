//! The suite is able to fail: each mutant of a backend is caught by the case that is
//! there for it, and the backend without a fault passes them all.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use backhaul_tests::components;
use backhaul_tests::line_server::LineServer;

use super::{Run, Subject};

/// Prints what the server has stored, as a reader of another's backend might.
const READER: &str = "echo ready; tail -s 0.1 -n +1 -f \"$LINES_FILE\" & cat > /dev/null; kill $!";

/// Verifies the backend with the fault `mutation`.
fn verify(mutation: &str, arguments: &[&str]) -> Run {
    let folder = tempfile::tempdir().expect("a folder");
    let stored = folder.path().join("stored.ndjson");
    let server = LineServer::start("open sesame", &stored);
    let address = server.address();
    let manifest = format!(
        "[grants]\ntcp = [\"{address}\"]\n[grants.env]\nLINES_ADDR = \"{address}\"\n\
         LINES_PASSWORD = \"open sesame\"\nMUTATION = \"{mutation}\"\n"
    );
    let subject = Subject::new("lines", &components::test_guest("mutant"), &manifest);
    subject.profile(&format!(
        "reader = {{ command = [\"sh\", \"-c\", '{READER}'] }}\n\
         max_event = \"2MiB\"\npatience = \"3s\"\n\
         [settings]\nLINES_FILE = \"{}\"\n\
         [credentials]\nLINES_PASSWORD = \"open barley\"\n\
         [refused]\ntype = \"lines:refused\"\n",
        stored.display()
    ));
    subject.verify(arguments)
}

#[test]
fn a_backend_without_a_fault_passes() {
    let run = verify("none", &["--memory-events", "20000"]);
    run.assert_passed(&["real-restart", "repeats"]);
}

macro_rules! mutants {
    ($($test:ident: $mutation:literal in $case:literal because $text:literal;)*) => {
        $(
            #[test]
            fn $test() {
                let run = verify($mutation, &["--quick", "--only", $case]);
                assert_eq!(run.code(), Some(1), "{}", run.text());
                let (outcome, detail) = run.outcome($case);
                assert_eq!(outcome, "failed", "{}", run.text());
                assert!(detail.contains($text), "{detail}");
            }
        )*

        const MUTATIONS: &[&str] = &[$($mutation),*];
    };
}

mutants! {
    a_name_that_changes_is_caught:
        "change-name" in "name" because "calls itself";
    events_kept_for_the_next_call_are_caught:
        "keep-for-the-next-call" in "single" because "1 event was taken and did not arrive";
    events_kept_for_close_are_caught:
        "keep-for-the-next-call" in "close" because "(numbers 99)";
    a_trap_over_a_batch_of_none_is_caught:
        "trap-on-none" in "empty-batch" because "it trapped";
    reaching_for_more_than_is_granted_is_caught:
        "look-around" in "grants" because "tcp 127.0.0.1:1";
    a_lost_event_among_a_hundred_is_caught:
        "drop-each-hundredth" in "order" because "(numbers 99, 199, 355, 455, 611, 711, 867, 967)";
    events_out_of_order_are_caught:
        "swap-two" in "order" because "event 99 arrived after event 100";
    an_event_sent_twice_is_caught:
        "send-one-twice" in "batch" because "1 event arrived again";
    a_lost_extension_is_caught:
        "lose-an-attribute" in "attributes" because "`tracestate` was \"a=1,b=2\"";
    a_lost_subject_is_caught:
        "lose-the-subject" in "single" because "`subject` was \"key-0\" and arrived as nothing";
    a_rounded_time_is_caught:
        "round-the-time" in "attributes" because "`time` was";
    a_long_attribute_cut_off_is_caught:
        "cut-long-attributes" in "attributes" because "`long` was";
    binary_data_taken_for_text_is_caught:
        "take-data-for-text" in "data" because "of 256 bytes of data 512 arrived";
    large_data_cut_off_are_caught:
        "cut-large-data" in "data" because "of 1048576 bytes of data 524288 arrived";
    a_refusal_that_is_swallowed_is_caught:
        "swallow-refusals" in "refused-event" because "is not among the failures";
    the_wrong_index_is_caught:
        "name-the-wrong-index" in "refused-event" because "(listed: 3)";
    good_events_given_up_with_a_bad_one_are_caught:
        "blame-the-whole-batch" in "refused-event" because "event 0 is good";
    a_refused_event_to_be_tried_again_is_caught:
        "try-refused-again" in "refused-event" because "not permanent but retryable";
    one_too_large_to_be_tried_again_is_caught:
        "try-refused-again" in "too-large" because "not permanent but retryable";
    giving_up_over_a_wrong_password_is_caught:
        "give-up-login" in "credentials" because "its failure is permanent";
    giving_up_over_a_server_that_is_away_is_caught:
        "give-up-unreachable" in "unreachable" because "its failure is permanent";
    an_error_that_does_not_say_why_is_caught:
        "say-nothing" in "unreachable" because "does not say that the server is away";
    a_refused_login_that_is_not_told_is_caught:
        "say-nothing" in "credentials" because "does not say that the login was refused";
    events_lost_with_their_connection_are_caught:
        "lose-what-is-in-flight" in "cut" because "did not arrive";
    events_nobody_waited_for_are_caught:
        "not-wait-for-answers" in "cut" because "did not arrive";
    giving_up_what_is_in_doubt_is_caught:
        "give-up-lost" in "restart" because "given up, though the server came back";
    events_lost_to_a_silent_server_are_caught:
        "lose-what-is-in-flight" in "hang" because "did not arrive";
    a_close_that_fails_is_caught:
        "fail-close" in "close" because "it will not";
    a_second_close_that_does_harm_is_caught:
        "trap-in-second-close" in "close" because "it trapped";
    instances_in_each_others_way_are_caught:
        "lose-beside-others" in "instances" because "did not arrive";
    a_batch_that_takes_too_much_memory_is_caught:
        "use-much" in "limits" because "ran over its limit";
    a_leak_is_caught:
        "leak" in "memory" because "bytes more for each event";
}

#[test]
fn a_connection_that_is_kept_after_it_broke_is_caught() {
    // It takes as long as a host would wait.
    let run = verify("keep-broken-connection", &["--quick", "--only", "cut"]);
    let (outcome, detail) = run.outcome("cut");
    assert_eq!(outcome, "failed", "{detail}");
    assert!(detail.contains("still not published"), "{detail}");
}

#[test]
fn every_mutant_has_a_test() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests/examples/mutant.rs");
    let source = fs::read_to_string(source).expect("the guest");
    let in_guest = source.split("is(\"").skip(1);
    let in_guest: BTreeSet<&str> = in_guest.filter_map(|rest| rest.split('"').next()).collect();
    let mut tested: BTreeSet<&str> = MUTATIONS.iter().copied().collect();
    tested.insert("keep-broken-connection");
    assert_eq!(in_guest, tested);
}
