//! Events are in the queues of a real RabbitMQ, carried by the `rabbitmq` plugin:
//! whole, in order, by their routing keys, and none lost while the server goes
//! away and comes back. What it refuses is explained.

use std::collections::HashSet;

use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::rabbitmq_server::{Message, RabbitMqServer};
use backhaul_tests::{components, wait_for};
use lapin::ExchangeKind::{Direct, Topic};
use lapin::types::AMQPValue;

/// The lines of a manifest for a server, with further settings.
fn manifest(address: &str, url: &str, settings: &[(&str, &str)]) -> String {
    let settings: String = settings
        .iter()
        .map(|(name, value)| format!(", {name} = {value:?}"))
        .collect();
    format!("[grants]\ntcp = [{address:?}]\nenv = {{ RABBITMQ_URL = {url:?}{settings} }}\n")
}

fn workspace(server: &RabbitMqServer, settings: &[(&str, &str)]) -> Workspace {
    let workspace = Workspace::new();
    let manifest = manifest(&server.address(), &server.url(), settings);
    workspace.add_plugin("rabbitmq", &components::plugin("rabbitmq"), &manifest);
    workspace
}

/// The same plugin once more, under another name.
fn add_named(workspace: &Workspace, name: &str, manifest: &str) {
    let manifest = format!("name = {name:?}\n{manifest}");
    workspace.add_plugin(name, &components::plugin("rabbitmq"), &manifest);
}

/// An exchange and a queue of this name, which gets all that comes to it.
fn exchange_with_queue(server: &RabbitMqServer, name: &str) {
    server.declare_exchange(name, Topic);
    server.bind(name, name, "#");
}

fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn ids_of(messages: &[Message]) -> Vec<String> {
    messages
        .iter()
        .filter_map(|message| message.id.clone())
        .collect()
}

fn assert_delivers_all_and_stops(host: Host) {
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn an_event_arrives_with_everything_it_has() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    exchange_with_queue(&server, "whole");
    let workspace = workspace(&server, &[("RABBITMQ_EXCHANGE", "whole")]);
    let host = workspace.serve();
    let event = r#"{"specversion":"1.0","id":"1","source":"/tests","type":"after:signup",
        "time":"2026-01-31T12:00:00Z","subject":"Zoë 🦀","traceparent":"00-1","dataschema":"urn:s",
        "datacontenttype":"application/octet-stream","data_base64":"AP8K/w=="}"#;
    let answer = host.post(&[("content-type", "application/cloudevents+json")], event);
    assert_eq!(answer.status, 202, "{answer:?}");
    let message = server.take_count("whole", 1).remove(0);
    let expected = [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:id", "1"),
        ("cloudEvents:source", "/tests"),
        ("cloudEvents:type", "after:signup"),
        ("cloudEvents:time", "2026-01-31T12:00:00Z"),
        ("cloudEvents:subject", "Zoë 🦀"),
        ("cloudEvents:traceparent", "00-1"),
        ("cloudEvents:dataschema", "urn:s"),
    ];
    let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
    assert_eq!(message.headers, expected.into());
    assert_eq!(
        message.content_type.as_deref(),
        Some("application/octet-stream")
    );
    assert_eq!(message.id.as_deref(), Some("1"));
    assert_eq!(message.kind.as_deref(), Some("after:signup"));
    assert_eq!(message.timestamp, Some(1_769_860_800));
    assert_eq!(message.routing_key, "after:signup");
    assert!(message.persistent);
    assert_eq!(message.data, [0, 255, 10, 255]);
    assert_delivers_all_and_stops(host);
}

#[test]
fn data_of_any_size_arrives_as_it_was() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    exchange_with_queue(&server, "sizes");
    let workspace = workspace(&server, &[("RABBITMQ_EXCHANGE", "sizes")]);
    let host = workspace.serve();
    // Frames carry 131,064 bytes.
    let sizes = [0, 1, 131_064, 131_065, 262_128, 1 << 20];
    let data = |size: usize| (0..size).map(|n| (n * 7 % 251) as u8).collect::<Vec<u8>>();
    for size in sizes {
        let headers = [
            ("content-type", "application/octet-stream"),
            ("ce-specversion", "1.0"),
            ("ce-id", &size.to_string()),
            ("ce-source", "/tests"),
            ("ce-type", "t"),
        ];
        assert_eq!(host.post(&headers, data(size)).status, 202);
    }
    let messages = server.take_count("sizes", sizes.len());
    for (message, size) in messages.iter().zip(sizes) {
        assert!(message.data == data(size), "{size} bytes");
    }
    assert_delivers_all_and_stops(host);
}

#[test]
fn the_example_manifest_has_four_lines_and_loads() {
    let manifest = components::plugin("rabbitmq").with_extension("toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    assert!(manifest.lines().count() <= 4, "{manifest}");
    let workspace = Workspace::new();
    workspace.add_plugin("rabbitmq", &components::plugin("rabbitmq"), &manifest);
    let host = workspace.serve();
    let log = host.log();
    assert!(log.contains("rabbitmq (plugins/rabbitmq.wasm)"), "{log}");
}

#[test]
fn ten_thousand_events_arrive_once_and_in_order() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    exchange_with_queue(&server, "order");
    let workspace = workspace(&server, &[("RABBITMQ_EXCHANGE", "order")]);
    let host = workspace.serve();
    for n in 0..20 {
        assert_eq!(host.post_batch(&n.to_string(), 500).status, 202);
    }
    let expected: Vec<String> = (0..20).flat_map(|n| ids(&n.to_string(), 500)).collect();
    let messages = server.take_count("order", 10_000);
    assert!(ids_of(&messages) == expected);
    assert_delivers_all_and_stops(host);
    assert!(server.take("order").is_empty());
}

#[test]
fn the_template_says_which_queue_an_event_goes_to() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    server.declare_exchange("routed", Topic);
    server.bind("routed-north", "routed", "north.#");
    server.bind("routed-none", "routed", "none.*");
    let settings = [
        ("RABBITMQ_EXCHANGE", "routed"),
        ("RABBITMQ_ROUTING_KEY", "{ext.tenant:none}.{type}"),
    ];
    let workspace = workspace(&server, &settings);
    let host = workspace.serve();
    let headers = [
        ("content-type", "text/plain"),
        ("ce-specversion", "1.0"),
        ("ce-id", "1"),
        ("ce-source", "/tests"),
        ("ce-type", "order.paid"),
        ("ce-tenant", "north"),
    ];
    assert_eq!(host.post(&headers, "1").status, 202);
    assert_eq!(host.post_event("2", "refund", "2").status, 202);
    let north = server.take_count("routed-north", 1).remove(0);
    assert_eq!(north.routing_key, "north.order.paid");
    let none = server.take_count("routed-none", 1).remove(0);
    assert_eq!(none.routing_key, "none.refund");
    assert_delivers_all_and_stops(host);
}

#[test]
fn the_exchange_without_a_name_leads_to_the_queue_that_is_called_as_the_key() {
    let Some(server) = RabbitMqServer::shared() else {
        return;
    };
    server.declare_queue("jobs", &[]);
    let settings = [
        ("RABBITMQ_EXCHANGE", "amq.default"),
        ("RABBITMQ_ROUTING_KEY", "jobs"),
        ("RABBITMQ_HEADER_PREFIX", "ce-"),
        ("RABBITMQ_PERSISTENT", "false"),
    ];
    let workspace = workspace(&server, &settings);
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    let message = server.take_count("jobs", 1).remove(0);
    assert_eq!(message.headers["ce-id"], "1");
    assert!(!message.persistent);
    assert_delivers_all_and_stops(host);
}

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
fn nothing_is_lost_while_the_server_goes_away_and_comes_back() {
    let Some(mut server) = RabbitMqServer::with("") else {
        return;
    };
    exchange_with_queue(&server, "kept");
    let workspace = workspace(&server, &[("RABBITMQ_EXCHANGE", "kept")]);
    let host = workspace.serve();
    let mut expected = Vec::new();
    for round in 0..2 {
        let (up, down) = (format!("up-{round}"), format!("down-{round}"));
        assert_eq!(host.post_batch(&up, 500).status, 202);
        if round == 0 {
            server.stop();
        } else {
            server.kill();
        }
        assert_eq!(host.post_batch(&down, 500).status, 202);
        host.wait_for_log("cannot connect to RabbitMQ");
        server.start_again();
        expected.extend([ids(&up, 500), ids(&down, 500)].concat());
    }
    let messages = server.take_until("kept", |messages| {
        ids_of(messages).iter().collect::<HashSet<_>>().len() == expected.len()
    });
    // At least once: what had no confirm when the server ended was sent again.
    let mut seen = HashSet::new();
    let mut arrived = ids_of(&messages);
    let duplicates = arrived.len() - expected.len();
    assert!(duplicates <= 1000, "{duplicates} duplicates");
    arrived.retain(|id| seen.insert(id.clone()));
    assert!(arrived == expected, "in order, but for duplicates");
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_server_that_stands_still_is_waited_for_and_nothing_is_lost() {
    let Some(server) = RabbitMqServer::with("") else {
        return;
    };
    exchange_with_queue(&server, "still");
    let settings = [("RABBITMQ_EXCHANGE", "still"), ("RABBITMQ_TIMEOUT", "0.5")];
    let workspace = workspace(&server, &settings);
    workspace.add_file_plugin();
    let host = workspace.serve();
    assert_eq!(host.post_batch("before", 10).status, 202);
    server.take_count("still", 10);
    server.freeze();
    assert_eq!(host.post_batch("during", 10).status, 202);
    host.wait_for_log("it does not answer in time");
    workspace.wait_for_file_lines(20); // The other plugin does not feel it.
    server.thaw();
    server.take_until("still", |messages| {
        let arrived: HashSet<String> = ids_of(messages).into_iter().collect();
        ids("during", 10).iter().all(|id| arrived.contains(id))
    });
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_connection_the_server_closed_for_want_of_heartbeats_costs_no_try() {
    let Some(server) = RabbitMqServer::with("") else {
        return;
    };
    exchange_with_queue(&server, "beats");
    let settings = [("RABBITMQ_EXCHANGE", "beats"), ("RABBITMQ_HEARTBEAT", "1")];
    let workspace = workspace(&server, &settings);
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    server.take_count("beats", 1);
    // The plugin runs only while it publishes.
    wait_for("the server to miss the heartbeats", || {
        server
            .output()
            .contains("missed heartbeats from client")
            .then_some(())
    });
    assert_eq!(host.post_event("2", "t", "2").status, 202);
    assert_eq!(ids_of(&server.take_count("beats", 1)), ["2"]);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("tried again"), "{log}");
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
