//! Topics, read back through queues that are subscribed to them.

use crate::{STRUCTURED, sns};
use backhaul_tests::books::book;
use backhaul_tests::moto_server::MotoServer;
use backhaul_tests::wait_for;
use backhaul_tests::webhook_server::{Reply, WebhookServer};
use serde_json::{Value, json};

#[test]
fn events_reach_a_subscribed_queue_with_subject_and_attributes() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let arn = moto.create_topic("topic", &[]);
    let wrapped = moto.create_queue("wrapped", &json!({}));
    let raw = moto.create_queue("raw", &json!({}));
    moto.subscribe(&arn, "wrapped", false);
    moto.subscribe(&arn, "raw", true);
    let workspace = sns(
        &moto.origin(),
        &arn,
        "SNS_SUBJECT = \"about {subject:nothing}\"",
    );
    let host = workspace.serve();
    let event = json!({
        "specversion": "1.0", "id": "1 & ü+%", "source": "/tests", "type": "after:signup",
        "subject": "Zoë", "time": "2026-01-31T12:00:00Z", "traceparent": "00-1",
        "datacontenttype": "application/json", "data": { "user": "\u{ffff}\u{0}é🦀" },
    });
    assert_eq!(host.post(&STRUCTURED, event.to_string()).status, 202);
    moto.wait_for(&wrapped, 1);
    moto.wait_for(&raw, 1);
    let notification = moto.take(&wrapped).remove(0).json;
    assert_eq!(notification["Subject"], "about Zoë");
    let message: Value = serde_json::from_str(notification["Message"].as_str().unwrap()).unwrap();
    assert_eq!(message, event);
    assert_eq!(
        notification["MessageAttributes"]["ce-type"]["Value"],
        "after:signup"
    );
    let message = moto.take(&raw).remove(0);
    assert_eq!(message.json, event);
    assert_eq!(message.attributes["ce-id"]["StringValue"], "1 & ü+%");
}

#[test]
fn a_fifo_topic_keeps_the_order_of_a_group() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let attributes = [
        ("Attributes.entry.1.key", "FifoTopic"),
        ("Attributes.entry.1.value", "true"),
    ];
    let arn = moto.create_topic("topic.fifo", &attributes);
    let url = moto.create_queue("of-topic.fifo", &json!({ "FifoQueue": "true" }));
    moto.subscribe(&arn, "of-topic.fifo", true);
    let workspace = sns(&moto.origin(), &arn, "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("x", 60).status, 202);
    moto.wait_for(&url, 60);
    let messages = moto.take(&url);
    let ids: Vec<&str> = messages
        .iter()
        .map(|m| m.json["id"].as_str().unwrap())
        .collect();
    let expected: Vec<String> = (0..60).map(|n| format!("x-{n}")).collect();
    assert_eq!(ids, expected);
    assert_eq!(messages[0].system["MessageGroupId"], "/tests");
}

#[test]
fn a_topic_that_is_not_there_is_said_so() {
    let Some(moto) = MotoServer::shared() else {
        return;
    };
    let workspace = sns(
        &moto.origin(),
        "arn:aws:sns:eu-west-1:123456789012:none",
        "",
    );
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("create the topic, or correct SNS_TOPIC_ARN");
    assert_eq!(book(&host, "sns").dead, 0);
}

#[test]
fn of_a_call_each_entry_has_its_own_fate() {
    let server = WebhookServer::start(|request, before| {
        let form = String::from_utf8(request.body.clone()).unwrap();
        let member = |id: &str, more: &str| format!("<member><Id>{id}</Id>{more}</member>");
        let (mut taken, mut failed) = (String::new(), String::new());
        for pair in form.split('&').filter_map(|pair| pair.split_once('=')) {
            if !pair.0.ends_with(".Id") {
                continue;
            }
            match pair.1 {
                "1" if before == 0 => {
                    failed += &member(
                        "1",
                        "<Code>InvalidParameter</Code><Message>odd</Message><SenderFault>true</SenderFault>",
                    )
                }
                "3" if before == 0 => {
                    failed += &member(
                        "3",
                        "<Code>InternalError</Code><SenderFault>false</SenderFault>",
                    )
                }
                id => taken += &member(id, "<MessageId>m</MessageId>"),
            }
        }
        let body = format!(
            "<PublishBatchResponse xmlns=\"http://sns.amazonaws.com/doc/2010-03-31/\"><PublishBatchResult><Failed>{failed}</Failed><Successful>{taken}</Successful></PublishBatchResult></PublishBatchResponse>"
        );
        Reply::status(200).saying(&body)
    });
    let workspace = sns(&server.origin(), "arn:aws:sns:eu-west-1:1:t", "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("x", 7).status, 202);
    wait_for("all to be settled", || {
        let book = book(&host, "sns");
        (book.delivered == 6 && book.dead == 1).then_some(())
    });
    let dead = host.get("/api/dead").body.to_string();
    assert!(
        dead.contains("x-1") && dead.contains("InvalidParameter: odd"),
        "{dead}"
    );
}
