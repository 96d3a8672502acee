//! What arrives, and in which queue.

use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::rabbitmq_server::RabbitMqServer;
use lapin::ExchangeKind::Topic;

use crate::{assert_delivers_all_and_stops, exchange_with_queue, ids, ids_of, workspace};

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
