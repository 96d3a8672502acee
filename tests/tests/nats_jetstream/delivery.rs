//! What arrives.

use crate::{STREAM, STRUCTURED, ids, server, the_book, wait_for_messages, workspace};
use backhaul_tests::wait_for;
use serde_json::{Value, json};

fn event() -> Value {
    json!({
        "specversion": "1.0", "id": "1 ü", "source": "/tests", "type": "after:signup",
        "subject": "Zoë", "time": "2026-01-31T12:00:00Z", "traceparent": "00-1%",
        "datacontenttype": "application/json; charset=utf-8", "data": { "user": 1 },
    })
}

#[test]
fn every_attribute_is_a_header_and_the_data_are_as_they_were() {
    let Some(server) = server() else { return };
    let workspace = workspace(&server.address(), "");
    let host = workspace.serve();
    assert_eq!(host.post(&STRUCTURED, event().to_string()).status, 202);
    wait_for_messages(&server, 1);
    let message = server.messages(STREAM).remove(0);
    assert_eq!(message.subject, "events.after:signup");
    assert_eq!(message.data, br#"{"user":1}"#);
    let expected = [
        ("Nats-Msg-Id", "/tests%0A1%20%C3%BC"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1%20%C3%BC"),
        ("ce-source", "/tests"),
        ("ce-type", "after:signup"),
        ("ce-subject", "Zo%C3%AB"),
        ("ce-time", "2026-01-31T12:00:00Z"),
        ("ce-traceparent", "00-1%25"),
        ("ce-datacontenttype", "application/json;%20charset=utf-8"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(message.headers, expected.into());
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn the_same_id_of_another_source_is_another_event() {
    let Some(server) = server() else { return };
    let workspace = workspace(&server.address(), "");
    let host = workspace.serve();
    // The last two have the same text but for where the source ends.
    for (source, id) in [
        ("/a", "1"),
        ("/b", "1"),
        ("/a", "1"),
        ("/a 1", "2"),
        ("/a", "1 2"),
    ] {
        let mut event = event();
        event["source"] = source.into();
        event["id"] = id.into();
        assert_eq!(host.post(&STRUCTURED, event.to_string()).status, 202);
    }
    wait_for("all deliveries", || {
        (the_book(&host).delivered == 5).then_some(())
    });
    let messages = server.messages(STREAM);
    let sources: Vec<&str> = messages
        .iter()
        .map(|message| message.headers["ce-source"].as_str())
        .collect();
    assert_eq!(sources, ["/a", "/b", "/a%201", "/a"]);
}

#[test]
fn in_structured_mode_the_event_is_the_data_and_templates_are_filled() {
    let Some(server) = server() else { return };
    let env = "NATS_MODE = \"structured\"\nNATS_SUBJECT = \"events.{ext.traceparent}.x\"\nNATS_MSG_ID = \"{source}:{id}\"";
    let workspace = workspace(&server.address(), env);
    let host = workspace.serve();
    assert_eq!(host.post(&STRUCTURED, event().to_string()).status, 202);
    wait_for_messages(&server, 1);
    let message = server.messages(STREAM).remove(0);
    assert_eq!(message.subject, "events.00-1%.x");
    assert_eq!(
        message.headers["content-type"],
        "application/cloudevents+json"
    );
    assert_eq!(message.headers["Nats-Msg-Id"], "/tests:1%20%C3%BC");
    let body: Value = serde_json::from_slice(&message.data).unwrap();
    for (name, value) in event().as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
}

#[test]
fn ten_thousand_events_arrive_once_and_in_order() {
    let Some(server) = server() else { return };
    let workspace = workspace(&server.address(), "");
    let host = workspace.serve();
    for n in 0..20 {
        assert_eq!(host.post_batch(&n.to_string(), 500).status, 202);
    }
    wait_for_messages(&server, 10_000);
    let expected: Vec<String> = (0..20).flat_map(|n| ids(&n.to_string(), 500)).collect();
    assert_eq!(server.ids(STREAM), expected);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn odd_data_arrive_as_they_are() {
    let Some(server) = server() else { return };
    let workspace = workspace(&server.address(), "");
    let host = workspace.serve();
    let binary: Vec<u8> = (0..=255).collect();
    let large = vec![b'\r'; 1_000_000];
    for (id, data) in [("1", &b""[..]), ("2", &binary), ("3", &large)] {
        let headers = [
            ("content-type", "application/octet-stream"),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/tests"),
            ("ce-type", "t"),
        ];
        assert_eq!(host.post(&headers, data).status, 202);
    }
    wait_for_messages(&server, 3);
    let messages = server.messages(STREAM);
    assert!(messages[0].data.is_empty());
    assert!(messages[1].data == binary);
    assert!(messages[2].data == large);
}

#[test]
fn an_event_that_comes_again_is_stored_once() {
    let Some(server) = server() else { return };
    let workspace = workspace(&server.address(), "");
    let host = workspace.serve();
    for id in ["1", "1", "2"] {
        assert_eq!(host.post_event(id, "t", "1").status, 202);
    }
    wait_for_messages(&server, 2);
    assert_eq!(server.ids(STREAM), ["1", "2"]);
    wait_for("all to be settled", || {
        (the_book(&host).delivered == 3).then_some(())
    });
}

#[test]
fn nothing_is_lost_while_the_server_goes_away_and_comes_back() {
    let Some(mut server) = server() else { return };
    let workspace = workspace(&server.address(), "");
    server.stop();
    let host = workspace.serve();
    assert_eq!(host.post_batch("early", 100).status, 202);
    host.wait_for_log("cannot connect to NATS");
    server.start_again();
    wait_for_messages(&server, 100);
    for round in 0..3 {
        assert_eq!(host.post_batch(&format!("up-{round}"), 100).status, 202);
        server.stop();
        assert_eq!(host.post_batch(&format!("down-{round}"), 100).status, 202);
        server.start_again();
    }
    wait_for_messages(&server, 700);
    let mut expected = ids("early", 100);
    for round in 0..3 {
        expected.extend(ids(&format!("up-{round}"), 100));
        expected.extend(ids(&format!("down-{round}"), 100));
    }
    // Not even twice: the stream knows the ids of what it has.
    assert_eq!(server.ids(STREAM), expected);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_server_that_stands_still_is_waited_for_and_nothing_is_lost() {
    let Some(server) = server() else { return };
    let workspace = workspace(&server.address(), "NATS_TIMEOUT = \"300ms\"");
    workspace.add_file_plugin();
    let host = workspace.serve();
    assert_eq!(host.post_batch("before", 10).status, 202);
    wait_for_messages(&server, 10);
    server.freeze();
    assert_eq!(host.post_batch("during", 10).status, 202);
    host.wait_for_log("it does not answer in time");
    workspace.wait_for_file_lines(20);
    server.thaw();
    wait_for_messages(&server, 20);
    let expected: Vec<String> = [ids("before", 10), ids("during", 10)].concat();
    assert_eq!(server.ids(STREAM), expected);
}
