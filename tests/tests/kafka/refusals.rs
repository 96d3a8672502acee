//! What the broker does not take.

use crate::{ids, the_book, topic, wait_for_delivery, wait_for_messages, workspace_for};
use backhaul_tests::host::{Answer, Host};
use backhaul_tests::kafka_server::KafkaServer;
use backhaul_tests::wait_for;
use serde_json::{Value, json};

const BATCHED: [(&str, &str); 1] = [("content-type", "application/cloudevents-batch+json")];

/// The dead letters, as text, once there are so many.
fn dead_letters(host: &Host, count: u64) -> String {
    wait_for(&format!("{count} dead letters"), || {
        (the_book(host).dead == count).then(|| host.get("/api/dead").body.to_string())
    })
}

/// An event with so many bytes of data, about.
fn event(id: &str, size: usize) -> Value {
    json!({
        "specversion": "1.0", "id": id, "source": "/tests", "type": "t", "data": "x".repeat(size),
    })
}

fn post(host: &Host, events: &[Value]) -> Answer {
    host.post(&BATCHED, Value::from(events.to_vec()).to_string())
}

#[test]
fn an_event_larger_than_the_topic_takes_is_a_dead_letter_and_the_others_arrive() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let workspace = workspace_for(&server, &topic, "");
    let host = workspace.serve();
    let mut events: Vec<Value> = ids("e", 20).iter().map(|id| event(id, 100)).collect();
    events.insert(10, event("large", 2_500_000));
    assert_eq!(post(&host, &events).status, 202);
    let dead = dead_letters(&host, 1);
    assert!(dead.contains("larger than the topic"), "{dead}");
    assert!(dead.contains("max.message.bytes"), "{dead}");
    wait_for_messages(&server, &topic, 20);
    assert_eq!(server.ids(&topic), ids("e", 20));
}

#[test]
fn a_record_batch_larger_than_the_topic_takes_is_parted() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let env = "KAFKA_BATCH_BYTES = \"16000000\"";
    let workspace = workspace_for(&server, &topic, env);
    let host = workspace.serve();
    let events: Vec<Value> = ids("e", 35).iter().map(|id| event(id, 100_000)).collect();
    assert_eq!(post(&host, &events).status, 202);
    wait_for_delivery(&host, 35);
    assert_eq!(the_book(&host).dead, 0);
    assert_eq!(server.ids(&topic), ids("e", 35));
}

#[test]
fn an_event_from_the_future_is_a_dead_letter_and_the_others_arrive() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let workspace = workspace_for(&server, &topic, "");
    let host = workspace.serve();
    let mut events: Vec<Value> = ids("e", 9).iter().map(|id| event(id, 10)).collect();
    events[4]["time"] = "2999-01-01T00:00:00Z".into();
    events[7]["time"] = "1969-01-01T00:00:00Z".into();
    assert_eq!(post(&host, &events).status, 202);
    let dead = dead_letters(&host, 1);
    assert!(dead.contains("INVALID_TIMESTAMP"), "{dead}");
    wait_for_messages(&server, &topic, 8);
    let mut expected = ids("e", 9);
    expected.remove(4);
    assert_eq!(server.ids(&topic), expected);
}

#[test]
fn a_topic_that_is_missing_is_waited_for() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let workspace = workspace_for(&server, "late", "KAFKA_TIMEOUT = \"500ms\"");
    let host = workspace.serve();
    assert_eq!(host.post_batch("e", 10).status, 202);
    host.wait_for_log("the topic late: it does not exist; create it");
    server.create_topic("late", 1);
    wait_for_delivery(&host, 10);
    assert_eq!(server.ids("late"), ids("e", 10));
    assert_eq!(the_book(&host).dead, 0);
}

#[test]
fn an_event_that_asks_for_a_topic_that_is_missing_is_a_dead_letter_and_the_others_arrive() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let workspace = workspace_for(&server, "{type}", "KAFKA_TIMEOUT = \"500ms\"");
    let host = workspace.serve();
    for (id, event_type) in [
        ("1", topic.as_str()),
        ("2", "nowhere"),
        ("3", ".."),
        ("4", &topic),
    ] {
        assert_eq!(host.post_event(id, event_type, "1").status, 202);
    }
    let dead = dead_letters(&host, 2);
    assert!(
        dead.contains("the topic nowhere: it does not exist"),
        "{dead}"
    );
    assert!(dead.contains("which is no topic"), "{dead}");
    wait_for_messages(&server, &topic, 2);
    assert_eq!(server.ids(&topic), ["1", "4"]);
}

#[test]
fn an_event_without_what_the_key_is_made_of_is_a_dead_letter() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let workspace = workspace_for(&server, &topic, "KAFKA_KEY = \"{ext.tenant}\"");
    let host = workspace.serve();
    let mut good = event("good", 10);
    good["tenant"] = "t7".into();
    assert_eq!(post(&host, &[event("bad", 10), good]).status, 202);
    let dead = dead_letters(&host, 1);
    assert!(
        dead.contains("the event lacks what KAFKA_KEY makes a text of"),
        "{dead}"
    );
    wait_for_messages(&server, &topic, 1);
    assert_eq!(server.messages(&topic)[0].key.as_deref(), Some(&b"t7"[..]));
}
