//! What the server does not take.

use crate::{STREAM, ids, server, the_book, wait_for_messages, workspace};
use backhaul_tests::host::Host;
use backhaul_tests::nats_server::NatsServer;
use backhaul_tests::wait_for;
use serde_json::json;

/// The dead letters, as text, once there are so many.
fn dead_letters(host: &Host, count: u64) -> String {
    wait_for(&format!("{count} dead letters"), || {
        (the_book(host).dead == count).then(|| host.get("/api/dead").body.to_string())
    })
}

#[test]
fn an_event_no_stream_takes_is_a_dead_letter_that_says_so() {
    let Some(server) = server() else { return };
    let workspace = workspace(&server.address(), "NATS_SUBJECT = \"{type}\"");
    let host = workspace.serve();
    for (id, event_type) in [("1", "events.a"), ("2", "elsewhere"), ("3", "events.b")] {
        assert_eq!(host.post_event(id, event_type, "1").status, 202);
    }
    let dead = dead_letters(&host, 1);
    assert!(dead.contains("no stream takes the subject"), "{dead}");
    assert!(dead.contains("elsewhere"), "{dead}");
    wait_for_messages(&server, 2);
    assert_eq!(server.ids(STREAM), ["1", "3"]);
}

#[test]
fn a_stream_that_is_missing_for_all_events_is_waited_for() {
    let Some(server) = server() else { return };
    let workspace = workspace(&server.address(), "NATS_SUBJECT = \"late\"");
    let host = workspace.serve();
    assert_eq!(host.post_batch("event", 10).status, 202);
    host.wait_for_log(
        "no stream takes the subject \\\"late\\\"; create one, or change NATS_SUBJECT",
    );
    let book = the_book(&host);
    assert_eq!((book.pending, book.dead), (10, 0));
    server.create_stream("late", &["late"], &json!({}));
    wait_for("the events", || (server.len("late") == 10).then_some(()));
    assert_eq!(server.ids("late"), ids("event", 10));
}

#[test]
fn an_event_that_cannot_be_sent_is_a_dead_letter_and_the_others_arrive() {
    let configuration = "jetstream {}\nmax_payload: 4096";
    let Some(server) = NatsServer::with(configuration, json!({})) else {
        return;
    };
    server.create_stream(STREAM, &["events.>"], &json!({ "max_msg_size": 2000 }));
    let workspace = workspace(&server.address(), "");
    let host = workspace.serve();
    let data = |length| format!("\"{}\"", "x".repeat(length));
    assert_eq!(host.post_event("0", "t", "1").status, 202);
    assert_eq!(host.post_event("server", "t", &data(5000)).status, 202);
    assert_eq!(host.post_event("stream", "t", &data(2500)).status, 202);
    assert_eq!(host.post_event("spaces", "a type", "1").status, 202);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    let dead = dead_letters(&host, 3);
    for text in ["max_payload is 4096", "(10054)", "which is no subject"] {
        assert!(dead.contains(text), "{text}: {dead}");
    }
    wait_for_messages(&server, 2);
    assert_eq!(server.ids(STREAM), ["0", "1"]);
}

#[test]
fn a_stream_that_is_full_is_waited_for() {
    let Some(server) = NatsServer::start() else {
        return;
    };
    let full = json!({ "max_msgs": 5, "discard": "new" });
    server.create_stream(STREAM, &["events.>"], &full);
    let workspace = workspace(&server.address(), "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("e", 8).status, 202);
    wait_for_messages(&server, 5);
    host.wait_for_log("JetStream refused: maximum messages exceeded");
    assert_eq!(server.ids(STREAM), ids("e", 5));
    server.purge(STREAM);
    wait_for_messages(&server, 3);
    assert_eq!(server.ids(STREAM), ids("e", 8)[5..]);
    assert_eq!(the_book(&host).dead, 0);
}
