//! Order and deduplication: FIFO queues.

use crate::sqs;
use backhaul_tests::host::Host;
use backhaul_tests::moto_server::{Message, MotoServer};
use backhaul_tests::wait_for;
use backhaul_tests::webhook_server::{Reply, Request, WebhookServer};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Posts one request with an event for each group, ids from 0.
fn post(host: &Host, groups: impl IntoIterator<Item = String>) {
    let event = |(n, group): (usize, String)| {
        json!({ "specversion": "1.0", "id": n.to_string(), "source": "/tests", "type": "t",
            "partitionkey": group })
    };
    let batch: Vec<Value> = groups.into_iter().enumerate().map(event).collect();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(host.post(&headers, json!(batch).to_string()).status, 202);
}

fn group(message: &Message) -> String {
    message.system["MessageGroupId"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[test]
fn messages_of_a_group_are_in_order_strictly_or_not() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    for calls in ["strict", "full"] {
        let name = format!("order-{calls}.fifo");
        let url = moto.create_queue(&name, &json!({ "FifoQueue": "true" }));
        let env = format!("SQS_FIFO_CALLS = \"{calls}\"");
        let workspace = sqs(&moto.origin(), &url, &env, "");
        let host = workspace.serve();
        post(&host, (0..200).map(|n| format!("g{}", (n * n) % 23)));
        moto.wait_for(&url, 200);
        let mut groups: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for message in moto.take(&url) {
            let id = message.json["id"].as_str().unwrap().parse().unwrap();
            groups.entry(group(&message)).or_default().push(id);
        }
        assert_eq!(groups.values().map(Vec::len).sum::<usize>(), 200);
        assert!(groups.values().all(|ids| ids.is_sorted()), "{groups:?}");
    }
}

#[test]
fn the_group_is_the_partition_key_or_the_subject_or_made_by_template() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let url = moto.create_queue("groups.fifo", &json!({ "FifoQueue": "true" }));
    let env = "SQS_GROUP_ID = \"of {type}\"\nSQS_DEDUPLICATION_ID = \"{id}\"";
    let workspace = sqs(&moto.origin(), &url, env, "");
    let host = workspace.serve();
    for (n, more) in [
        json!({ "partitionkey": "key", "subject": "s" }),
        json!({ "subject": "s" }),
        json!({}),
    ]
    .into_iter()
    .enumerate()
    {
        let mut event =
            json!({ "specversion": "1.0", "id": n.to_string(), "source": "/tests", "type": "t" });
        event
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        assert_eq!(host.post(&crate::STRUCTURED, event.to_string()).status, 202);
    }
    moto.wait_for(&url, 3);
    let mut messages = moto.take(&url);
    messages.sort_by_key(|message| message.json["id"].to_string());
    let groups: Vec<String> = messages.iter().map(group).collect();
    // No id has spaces, so what has is hashed.
    assert_eq!(groups[..2], ["key", "s"]);
    assert_eq!(groups[2].len(), 64);
    assert_eq!(messages[1].system["MessageDeduplicationId"], "1");
}

#[test]
fn a_second_event_of_the_same_source_and_id_is_not_in_the_queue() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let url = moto.create_queue("twice.fifo", &json!({ "FifoQueue": "true" }));
    let workspace = sqs(&moto.origin(), &url, "", "");
    let host = workspace.serve();
    for id in ["a", "a", "b", "a", "c"] {
        assert_eq!(host.post_event(id, "t", "1").status, 202);
    }
    wait_for("five deliveries", || {
        (backhaul_tests::books::book(&host, "sqs").delivered == 5).then_some(())
    });
    let ids: Vec<Value> = moto
        .take(&url)
        .iter()
        .map(|m| m.json["id"].clone())
        .collect();
    assert_eq!(json!(ids), json!(["a", "b", "c"]));
}

/// The ids of the events and of the entries of a call.
fn entries(request: &Request) -> Vec<(String, String)> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let entries = body["Entries"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    entries
        .map(|entry| {
            let event: Value =
                serde_json::from_str(entry["MessageBody"].as_str().unwrap()).unwrap();
            (text(&event["id"]), text(&entry["Id"]))
        })
        .collect()
}

#[test]
fn none_of_its_group_overtakes_a_message_that_is_to_be_tried_again() {
    // Event 2 is refused at first; 4 and 5 are of its group, the others are not.
    let server = WebhookServer::start(|request, before| {
        let (mut taken, mut failed) = (Vec::new(), Vec::new());
        for (event, id) in entries(request) {
            if event == "2" && before < 3 {
                failed.push(json!({ "Id": id, "SenderFault": false, "Code": "InternalError" }));
            } else {
                taken.push(json!({ "Id": id, "MessageId": "m" }));
            }
        }
        let body = json!({ "Successful": taken, "Failed": failed }).to_string();
        Reply::status(200).saying(&body)
    });
    let url = format!("{}/1/q.fifo", server.origin());
    let workspace = sqs(&server.origin(), &url, "", "");
    let host = workspace.serve();
    post(
        &host,
        ["a", "b", "c", "a", "c", "c", "b"].map(str::to_owned),
    );
    wait_for("seven deliveries", || {
        (backhaul_tests::books::book(&host, "sqs").delivered == 7).then_some(())
    });
    let requests = server.requests();
    let last = |event: &str| {
        let has = |request: &Request| entries(request).iter().any(|(id, _)| id == event);
        requests.iter().rposition(has).unwrap()
    };
    let first = |event: &str| {
        let has = |request: &Request| entries(request).iter().any(|(id, _)| id == event);
        requests.iter().position(has).unwrap()
    };
    assert!(
        last("2") < first("4") && last("4") < first("5"),
        "{requests:?}"
    );
    assert!(host.log().contains("InternalError"), "{}", host.log());
}
