//! What arrives in a standard queue.

use crate::{STRUCTURED, sqs};
use backhaul_tests::books::wait_for_backend;
use backhaul_tests::moto_server::MotoServer;
use backhaul_tests::wait_for;
use serde_json::{Value, json};
use std::time::Duration;

fn event() -> Value {
    json!({
        "specversion": "1.0", "id": "1 ü", "source": "/tests", "type": "after:signup",
        "subject": "Zoë", "time": "2026-01-31T12:00:00Z", "traceparent": "00-1%",
        "datacontenttype": "application/json; charset=utf-8", "data": { "user": "\u{ffff}\u{0}é🦀" },
    })
}

#[test]
fn every_attribute_arrives_and_filters_have_some_beside_the_body() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let url = moto.create_queue("attributes", &json!({}));
    let workspace = sqs(&moto.origin(), &url, "", "");
    let host = workspace.serve();
    assert_eq!(host.post(&STRUCTURED, event().to_string()).status, 202);
    moto.wait_for(&url, 1);
    let message = moto.take(&url).remove(0);
    assert_eq!(message.json, event(), "{}", message.body);
    let mut expected = json!({});
    for (name, value) in [
        ("content-type", "application/cloudevents+json"),
        ("ce-id", "1 ü"),
        ("ce-source", "/tests"),
        ("ce-type", "after:signup"),
        ("ce-subject", "Zoë"),
    ] {
        expected[name] = json!({ "DataType": "String", "StringValue": value });
    }
    assert_eq!(message.attributes, expected);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn odd_data_arrive_as_they_are() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let url = moto.create_queue("odd", &json!({}));
    let workspace = sqs(&moto.origin(), &url, "", "");
    let host = workspace.serve();
    let binary: Vec<u8> = (0..=255).collect();
    // With Base64, not far from the most a message can be.
    let large = vec![0xfe; 780_000];
    let data: [(&str, &[u8]); 4] = [("0", b""), ("1", &binary), ("2", &large), ("3", b"\xff")];
    for (id, data) in data {
        let headers = [
            ("content-type", "application/octet-stream"),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/tests"),
            ("ce-type", "odd"),
        ];
        assert_eq!(host.post(&headers, data).status, 202);
    }
    moto.wait_for(&url, 4);
    let mut messages = moto.take(&url);
    messages.sort_by_key(|message| message.json["id"].as_str().map(str::to_owned));
    for ((_, data), message) in data.into_iter().zip(&messages) {
        let sent = message.json["data_base64"].as_str().unwrap_or_default();
        assert_eq!(base64(sent), data);
    }
}

/// The bytes of a text in Base64.
fn base64(text: &str) -> Vec<u8> {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let (mut bytes, mut bits, mut count) = (Vec::new(), 0u32, 0);
    for letter in text.bytes().filter(|byte| *byte != b'=') {
        let value = LETTERS.iter().position(|l| *l == letter).expect("a letter");
        bits = (bits << 6) | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap());
        }
    }
    bytes
}

#[test]
fn many_events_arrive_every_one_of_them() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let url = moto.create_queue("many", &json!({}));
    let workspace = sqs(&moto.origin(), &url, "", "");
    let host = workspace.serve();
    for n in 0..4 {
        assert_eq!(host.post_batch(&n.to_string(), 150).status, 202);
    }
    wait_for_backend(&host, "sqs", Duration::from_secs(120));
    let messages = moto.take(&url);
    let mut arrived: Vec<&str> = messages
        .iter()
        .map(|m| m.json["id"].as_str().unwrap())
        .collect();
    let posted = (0..4).flat_map(|n| (0..150).map(move |m| format!("{n}-{m}")));
    let mut posted: Vec<String> = posted.collect();
    arrived.sort_unstable();
    // A slow moto may have a call run out of time that it has taken.
    arrived.dedup();
    posted.sort_unstable();
    assert!(arrived == posted, "{} of {}", arrived.len(), posted.len());
}

#[test]
fn a_queue_is_chosen_by_template() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let [one, two] = ["chosen-one", "chosen-two"].map(|name| moto.create_queue(name, &json!({})));
    let url = format!("{}/123456789012/chosen-{{type}}", moto.origin());
    let workspace = sqs(&moto.origin(), &url, "", "");
    let host = workspace.serve();
    for (id, kind) in [
        ("1", "one"),
        ("2", "two"),
        ("3", "after:signup"),
        ("4", "one"),
    ] {
        assert_eq!(host.post_event(id, kind, "1").status, 202);
    }
    moto.wait_for(&one, 2);
    moto.wait_for(&two, 1);
    let dead = wait_for("a dead letter", || {
        Some(host.get("/api/dead").body.to_string()).filter(|dead| dead.contains("expected"))
    });
    assert!(dead.contains("chosen-after:signup"), "{dead}");
}

#[test]
fn an_event_larger_than_a_message_is_a_dead_letter_and_the_others_go_on() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let url = moto.create_queue("large", &json!({}));
    let workspace = sqs(&moto.origin(), &url, "SQS_MAX_BYTES = \"2000\"", "");
    let host = workspace.serve();
    let data = |size: usize| format!("\"{}\"", "x".repeat(size));
    for (id, size) in [("0", 1), ("1", 3000), ("2", 1500), ("3", 1500)] {
        assert_eq!(host.post_event(id, "t", &data(size)).status, 202);
    }
    moto.wait_for(&url, 3);
    let dead = wait_for("a dead letter", || {
        Some(host.get("/api/dead").body.to_string()).filter(|dead| dead.contains("MAX_BYTES"))
    });
    assert!(dead.contains("more than the 2000 of a message"), "{dead}");
    assert_eq!(moto.take(&url).len(), 3);
}

#[test]
fn a_message_the_queue_refuses_is_found_among_those_of_its_call() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let url = moto.create_queue("small", &json!({ "MaximumMessageSize": "2048" }));
    let workspace = sqs(&moto.origin(), &url, "", "");
    let host = workspace.serve();
    // In one request, so that they are in one call.
    let event = |n: usize| {
        let size = if n == 4 { 3000 } else { 1 };
        json!({ "specversion": "1.0", "id": n.to_string(), "source": "/tests", "type": "t",
            "data": "x".repeat(size) })
    };
    let batch: Vec<Value> = (0..9).map(event).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(host.post(&headers, json!(batch).to_string()).status, 202);
    moto.wait_for(&url, 8);
    let dead = wait_for("a dead letter", || {
        Some(host.get("/api/dead").body.to_string()).filter(|dead| dead.contains("2048"))
    });
    assert!(dead.contains("InvalidParameterValue"), "{dead}");
    let mut ids: Vec<Value> = moto
        .take(&url)
        .iter()
        .map(|m| m.json["id"].clone())
        .collect();
    ids.sort_by_key(Value::to_string);
    assert_eq!(json!(ids), json!(["0", "1", "2", "3", "5", "6", "7", "8"]));
}
