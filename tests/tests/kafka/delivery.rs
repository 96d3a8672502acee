//! What arrives.

use crate::{STRUCTURED, ids, topic, wait_for_messages, workspace_for};
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
    let workspace = workspace_for(&server, &topic, "");
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
    let workspace = workspace_for(&server, &topic, "");
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

#[test]
fn in_structured_mode_the_event_is_the_value_and_the_key_is_what_was_set() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let env = "KAFKA_MODE = \"structured\"\nKAFKA_KEY = \"{source}:{subject}\"";
    let workspace = workspace_for(&server, &topic, env);
    let host = workspace.serve();
    assert_eq!(host.post(&STRUCTURED, event().to_string()).status, 202);
    wait_for_messages(&server, &topic, 1);
    let message = server.messages(&topic).remove(0);
    assert_eq!(message.key.as_deref(), Some("/tests:Zoë".as_bytes()));
    let content_type = "application/cloudevents+json; charset=UTF-8";
    let headers = [("content-type".to_owned(), content_type.to_owned())];
    assert_eq!(message.headers, headers.into());
    let body: Value = serde_json::from_slice(&message.value.unwrap()).unwrap();
    for (name, value) in event().as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
}

#[test]
fn odd_data_arrive_as_they_are() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let workspace = workspace_for(&server, &topic, "");
    let host = workspace.serve();
    let binary: Vec<u8> = (0..=255).collect();
    let large = vec![b'\r'; 1 << 20];
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
    wait_for_messages(&server, &topic, 3);
    let values: Vec<_> = server
        .messages(&topic)
        .into_iter()
        .map(|m| m.value)
        .collect();
    // Empty, and not the null by which a compacted topic forgets a key.
    assert_eq!(values[0].as_deref(), Some(&b""[..]));
    assert!(values[1].as_deref() == Some(&binary[..]));
    assert!(values[2].as_deref() == Some(&large[..]));
}

#[test]
fn a_key_goes_where_the_java_client_sends_it_and_what_has_none_is_spread() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 7);
    let workspace = workspace_for(&server, &topic, "");
    let host = workspace.serve();
    // The remainders by 7 of `Utils.toPositive(Utils.murmur2(key))` of kafka-clients 4.4.0.
    let partitions = [
        ("a", 5),
        ("21", 3),
        ("abc", 4),
        ("foobar", 0),
        ("Zoë", 1),
        ("a-little-bit-longer-string", 0),
        ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", 3),
    ];
    for (key, _) in partitions {
        let event = json!({
            "specversion": "1.0", "id": key, "source": "/tests", "type": "t", "partitionkey": key,
        });
        assert_eq!(host.post(&STRUCTURED, event.to_string()).status, 202);
    }
    wait_for_messages(&server, &topic, partitions.len());
    let messages = server.messages(&topic);
    for (key, partition) in partitions {
        let message = messages.iter().find(|m| m.id() == key).unwrap();
        assert_eq!(message.partition, partition, "{key}");
        assert_eq!(message.key.as_deref(), Some(key.as_bytes()));
    }
    // One batch after the other goes on to the next partition.
    for n in 0..7 {
        assert_eq!(host.post_batch(&format!("b{n}"), 3).status, 202);
        wait_for_messages(&server, &topic, partitions.len() + 3 * (n + 1));
    }
    let messages = server.messages(&topic);
    for partition in 0..7 {
        let unkeyed = |m: &&backhaul_tests::kafka_server::Message| m.key.is_none();
        let of_partition = messages.iter().filter(unkeyed);
        assert_eq!(of_partition.filter(|m| m.partition == partition).count(), 3);
    }
}

#[test]
fn each_compression_is_one_that_the_broker_and_other_clients_read() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    for compression in ["gzip", "snappy", "lz4", "zstd"] {
        let topic = topic(&server, 1);
        let env = format!("KAFKA_COMPRESSION = \"{compression}\"");
        let workspace = workspace_for(&server, &topic, &env);
        let host = workspace.serve();
        assert_eq!(host.post_batch(compression, 500).status, 202);
        wait_for_messages(&server, &topic, 500);
        assert_eq!(server.ids(&topic), ids(compression, 500));
    }
}

#[test]
fn the_topic_is_chosen_by_the_event() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let (first, second) = (topic(&server, 1), topic(&server, 2));
    let workspace = workspace_for(&server, "{type}", "");
    let host = workspace.serve();
    for (id, topic) in [("1", &first), ("2", &second), ("3", &first)] {
        assert_eq!(host.post_event(id, topic, "1").status, 202);
    }
    wait_for_messages(&server, &first, 2);
    wait_for_messages(&server, &second, 1);
    assert_eq!(server.ids(&first), ["1", "3"]);
    assert_eq!(server.ids(&second), ["2"]);
}
