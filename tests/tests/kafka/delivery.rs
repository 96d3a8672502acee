//! What arrives.

use crate::{STRUCTURED, ids, topic, wait_for_messages, workspace};
use backhaul_tests::kafka_server::KafkaServer;
use serde_json::{Value, json};

fn event() -> Value {
    json!({
        "specversion": "1.0", "id": "1 ü", "source": "/tests", "type": "after:signup",
        "subject": "Zoë", "time": "2026-01-31T12:00:00.25Z", "partitionkey": "ada",
        "datacontenttype": "application/json; charset=utf-8", "data": { "user": 1 },
    })
}

#[test]
fn every_attribute_is_a_header_and_the_data_are_the_value() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let workspace = workspace(&server.address(), &format!("KAFKA_TOPIC = \"{topic}\""));
    let host = workspace.serve();
    assert_eq!(host.post(&STRUCTURED, event().to_string()).status, 202);
    wait_for_messages(&server, &topic, 1);
    let message = server.messages(&topic).remove(0);
    assert_eq!(message.key.as_deref(), Some(&b"ada"[..]));
    assert_eq!(message.value.as_deref(), Some(&br#"{"user":1}"#[..]));
    assert_eq!(message.timestamp, 1_769_860_800_250);
    let expected = [
        ("ce_specversion", "1.0"),
        ("ce_id", "1 ü"),
        ("ce_source", "/tests"),
        ("ce_type", "after:signup"),
        ("ce_subject", "Zoë"),
        ("ce_time", "2026-01-31T12:00:00.25Z"),
        ("ce_partitionkey", "ada"),
        ("content-type", "application/json; charset=utf-8"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(message.headers, expected.into());
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn ten_thousand_events_arrive_once_and_in_order() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let workspace = workspace(&server.address(), &format!("KAFKA_TOPIC = \"{topic}\""));
    let host = workspace.serve();
    for n in 0..20 {
        assert_eq!(host.post_batch(&n.to_string(), 500).status, 202);
    }
    wait_for_messages(&server, &topic, 10_000);
    let expected: Vec<String> = (0..20).flat_map(|n| ids(&n.to_string(), 500)).collect();
    assert!(server.ids(&topic) == expected);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}
