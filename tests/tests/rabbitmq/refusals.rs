//! What the server does not take, and settings it cannot be reached with.

use std::collections::HashSet;

use backhaul_tests::host::Workspace;
use backhaul_tests::rabbitmq_server::RabbitMqServer;
use backhaul_tests::{components, wait_for};
use lapin::ExchangeKind::{Direct, Topic};
use lapin::types::AMQPValue;

use crate::{
    add_named, assert_delivers_all_and_stops, exchange_with_queue, ids_of, manifest, workspace,
};

#[test]
fn an_event_no_queue_gets_is_a_dead_letter_and_the_rest_goes_on() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    let settings = [("RABBITMQ_EXCHANGE", "bound-in-part")];
    let workspace = workspace(&server, &settings);
    let host = workspace.serve();
    assert_eq!(host.post_event("lost-0", "unbound", "0").status, 202);
    host.wait_for_log("no queue is bound to the exchange \\\"bound-in-part\\\"");
    assert!(
        server.has_exchange("bound-in-part"),
        "the plugin creates it"
    );
    server.bind("bound", "bound-in-part", "bound");
    let event = |n: usize| {
        let event_type = if n % 5 == 3 { "unbound" } else { "bound" };
        serde_json::json!({
            "specversion": "1.0", "id": n.to_string(), "source": "/tests", "type": event_type,
            "data": "x".repeat(n * 100),
        })
    };
    let batch: Vec<_> = (0..100).map(event).collect();
    let body = serde_json::to_vec(&batch).unwrap();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(host.post(&headers, body).status, 202);
    let (dead, expected): (Vec<usize>, Vec<usize>) = (0..100).partition(|n| n % 5 == 3);
    let messages = server.take_count("bound", expected.len());
    let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
    assert_eq!(ids_of(&messages), expected);
    let dead: Vec<String> = dead.iter().map(ToString::to_string).collect();
    let mut letters = wait_for("the dead letters", || {
        let page = host.get("/api/dead?limit=1000").body;
        let letters = page["letters"].as_array().expect("a list").clone();
        (letters.len() > dead.len()).then_some(letters)
    });
    let first = letters.remove(0);
    assert_eq!(first["event"]["id"], "lost-0");
    let ids = letters.iter().map(|letter| letter["event"]["id"].as_str());
    assert!(
        ids.eq(dead.iter().map(|id| Some(id.as_str()))),
        "{letters:?}"
    );
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("tried again"), "{log}");
}

#[test]
fn an_event_that_can_be_no_message_is_a_dead_letter_and_the_rest_goes_on() {
    let Some(server) = RabbitMqServer::with("max_message_size = 100000") else {
        return;
    };
    exchange_with_queue(&server, "strict");
    let settings = [
        ("RABBITMQ_EXCHANGE", "strict"),
        ("RABBITMQ_ROUTING_KEY", "{subject}"),
    ];
    let workspace = workspace(&server, &settings);
    let host = workspace.serve();
    let event = |id: &str, subject: &str, size: usize| {
        let mut event = serde_json::json!({
            "specversion": "1.0", "id": id, "source": "/tests", "type": "t",
            "datacontenttype": "text/plain", "data": "x".repeat(size),
        });
        if !subject.is_empty() {
            event["subject"] = subject.into();
        }
        event
    };
    let batch = [
        event("first", "s", 1),
        event("no-subject", "", 1),
        event("long-key", &"s".repeat(256), 1),
        event("large", "s", 100_001),
        event("largest", "s", 100_000),
        event("last", "s", 1),
    ];
    let body = serde_json::to_vec(&batch).unwrap();
    let headers = [("content-type", "application/cloudevents-batch+json")];
    assert_eq!(host.post(&headers, body).status, 202);
    let all = ["first", "largest", "last"];
    let messages = server.take_until("strict", |messages| {
        let ids = ids_of(messages);
        all.iter().all(|id| ids.iter().any(|own| own == id))
    });
    assert!(
        messages
            .iter()
            .all(|message| message.id.as_deref() != Some("large"))
    );
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    for (id, reason) in [
        (
            "no-subject",
            "the event lacks what RABBITMQ_ROUTING_KEY makes a text of, {subject}",
        ),
        ("long-key", "its routing key has 256 bytes, AMQP takes 255"),
        ("large", "larger than RabbitMQ accepts, 100000 bytes"),
    ] {
        let line = log
            .lines()
            .find(|line| line.contains("dead letter") && line.contains(&format!("id=\"{id}\"")));
        assert!(
            line.is_some_and(|line| line.contains(reason)),
            "{id}: {log}"
        );
    }
}

#[test]
fn what_a_full_queue_refuses_is_tried_again_until_there_is_room() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    server.declare_exchange("narrow", Topic);
    let arguments = [
        ("x-max-length", AMQPValue::LongInt(2)),
        ("x-overflow", AMQPValue::LongString("reject-publish".into())),
    ];
    server.declare_queue("narrow", &arguments);
    server.bind_existing("narrow", "narrow", "#");
    let workspace = workspace(&server, &[("RABBITMQ_EXCHANGE", "narrow")]);
    let host = workspace.serve();
    assert_eq!(host.post_batch("n", 10).status, 202);
    host.wait_for_log("RabbitMQ did not take it (basic.nack)");
    let messages = server.take_until("narrow", |messages| {
        ids_of(messages).iter().collect::<HashSet<_>>().len() == 10
    });
    assert_eq!(messages.len(), 10, "none twice: {:?}", ids_of(&messages));
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_missing_exchange_is_waited_for_and_one_of_another_type_is_explained() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    let settings = [
        ("RABBITMQ_EXCHANGE", "later"),
        ("RABBITMQ_EXCHANGE_DECLARE", "passive"),
    ];
    let workspace = workspace(&server, &settings);
    let other = [("RABBITMQ_EXCHANGE", "other-type")];
    server.declare_exchange("other-type", Direct);
    let manifest = manifest(&server.address(), &server.url(), &other);
    add_named(&workspace, "other", &manifest);
    let host = workspace.serve_with(&["--drain", "200ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("RabbitMQ refused the exchange \\\"later\\\": 404");
    host.wait_for_log("RabbitMQ refused the exchange \\\"other-type\\\": 406");
    assert!(
        host.log().contains("RABBITMQ_EXCHANGE_DECLARE"),
        "{}",
        host.log()
    );
    server.declare_exchange("later", Topic);
    host.wait_for_log("no queue is bound to the exchange \\\"later\\\"");
    server.bind("later", "later", "#");
    assert_eq!(host.post_event("2", "t", "2").status, 202);
    assert_eq!(ids_of(&server.take_count("later", 1)), ["2"]);
    let (_, log) = host.stop();
    assert!(log.contains("kept=2"), "the other two are kept: {log}");
}

#[test]
fn a_wrong_password_or_virtual_host_is_explained_without_the_password_and_loses_nothing() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    let address = server.address();
    let cases = [
        (
            "user",
            format!("amqp://guest:wrong-secret@{address}"),
            "refused user or password",
        ),
        (
            "vhost",
            format!("amqp://guest:guest@{address}/nowhere"),
            "refused the virtual host",
        ),
    ];
    let workspace = Workspace::new();
    for (name, url, _) in &cases {
        let manifest = manifest(&address, url, &[]);
        add_named(&workspace, name, &manifest);
    }
    let host = workspace.serve_with(&["--drain", "200ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    for (_, _, text) in &cases {
        host.wait_for_log(text);
    }
    let (status, log) = host.stop();
    assert!(!log.contains("wrong-secret"), "{log}");
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("kept=2"), "{log}");
}

#[test]
fn the_password_can_come_from_a_file() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    exchange_with_queue(&server, "secret");
    let workspace = Workspace::new();
    let file = workspace.path().join("password");
    std::fs::write(&file, "guest").unwrap();
    let address = server.address();
    let manifest = format!(
        "[grants]\ntcp = [{address:?}]\n[grants.env]\nRABBITMQ_URL = \"amqp://guest:wrong@{address}\"\n\
         RABBITMQ_EXCHANGE = \"secret\"\nRABBITMQ_PASSWORD = {{ file = {file:?} }}\n"
    );
    workspace.add_plugin("rabbitmq", &components::plugin("rabbitmq"), &manifest);
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    assert_eq!(ids_of(&server.take_count("secret", 1)), ["1"]);
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_wrong_setting_is_named_with_what_is_expected() {
    let workspace = Workspace::new();
    let cases = [
        ("RABBITMQ_ROUTING_KEY", "orders.{typ}", "{ext.NAME}"),
        ("RABBITMQ_ROUTING_KEY", "orders.{type", "has no"),
        ("RABBITMQ_MANDATORY", "maybe", "expected true or false"),
        ("RABBITMQ_TIMEOUT", "0", "expected a number of seconds"),
        (
            "RABBITMQ_HEARTBEAT",
            "-1",
            "expected a whole number of seconds",
        ),
        (
            "RABBITMQ_EXCHANGE_DECLARE",
            "no",
            "expected active or passive",
        ),
        ("RABBITMQ_URL", "amqps://localhost", "grant tls://HOST:PORT"),
    ];
    for (n, (setting, value, _)) in cases.iter().enumerate() {
        let manifest = format!("[grants]\nenv = {{ {setting} = {value:?} }}\n");
        add_named(&workspace, &format!("case-{n}"), &manifest);
    }
    let host = workspace.serve_with(&["--drain", "200ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    for (n, (setting, _, expected)) in cases.iter().enumerate() {
        let text = format!("backend=\"case-{n}\"");
        let line = wait_for(&text, || {
            let log = host.log();
            let line = log.lines().find(|line| line.contains(&text));
            line.map(str::to_owned)
        });
        assert!(line.contains(setting) && line.contains(expected), "{line}");
    }
}
