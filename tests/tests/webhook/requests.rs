//! What is sent.

use crate::{ids, wait_for_requests, workspace};
use backhaul_tests::webhook_server::{Reply, Request, WebhookServer};
use serde_json::{Value, json};
use standardwebhooks::Webhook;

const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const STRUCTURED: [(&str, &str); 1] = [("content-type", "application/cloudevents+json")];

fn event() -> Value {
    json!({
        "specversion": "1.0", "id": "1 ü", "source": "/tests", "type": "after:signup",
        "subject": "Zoë \"Z\"", "time": "2026-01-31T12:00:00Z", "traceparent": "00-1%",
        "dataschema": "urn:schema", "data": { "user": 1 },
    })
}

fn check_signature(secret: &str, request: &Request) -> bool {
    let mut headers = axum::http::HeaderMap::new();
    for (name, value) in &request.headers {
        let name: axum::http::HeaderName = name.parse().unwrap();
        headers.insert(name, value.parse().unwrap());
    }
    let webhook = Webhook::new(secret).unwrap();
    webhook.verify(&request.body, &headers).is_ok()
}

#[test]
fn an_event_is_posted_in_binary_mode_and_signed() {
    let server = WebhookServer::start(|_, _| Reply::status(204));
    let env = format!("WEBHOOK_SECRET = \"{SECRET}\"\nWEBHOOK_AUTHORIZATION = \"Bearer token\"");
    let workspace = workspace(&server.origin(), &env, "");
    let host = workspace.serve();
    assert_eq!(host.post(&STRUCTURED, event().to_string()).status, 202);
    wait_for_requests(&server, 1);
    let request = &server.requests()[0];
    assert_eq!(request.line, "POST /hook?a=b HTTP/1.1");
    for (name, value) in [
        ("host", &server.origin()["http://".len()..]),
        ("ce-specversion", "1.0"),
        ("ce-id", "1%20%C3%BC"),
        ("ce-source", "/tests"),
        ("ce-type", "after:signup"),
        ("ce-subject", "Zo%C3%AB%20%22Z%22"),
        ("ce-time", "2026-01-31T12:00:00Z"),
        ("ce-traceparent", "00-1%25"),
        ("ce-dataschema", "urn:schema"),
        ("content-type", "application/json"),
        ("authorization", "Bearer token"),
        ("webhook-id", "1%20%C3%BC"),
    ] {
        assert_eq!(request.headers[name], value, "{name}");
    }
    assert_eq!(request.body, br#"{"user":1}"#);
    assert!(check_signature(SECRET, request), "{request:?}");
    let other = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert!(!check_signature(other, request), "only by its own key");
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn events_without_data_are_posted_once() {
    let server = WebhookServer::start(|_, _| Reply::status(204));
    let workspace = workspace(&server.origin(), "", "");
    let host = workspace.serve();
    let ids = ids("empty", 200);
    for id in &ids {
        let headers = [
            ("ce-specversion", "1.0"),
            ("ce-id", id.as_str()),
            ("ce-source", "/tests"),
            ("ce-type", "after:signup"),
        ];
        assert_eq!(host.post(&headers, "").status, 202);
    }
    wait_for_requests(&server, ids.len());
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    let requests = server.requests();
    let posted: Vec<&str> = requests
        .iter()
        .map(|request| &*request.headers["ce-id"])
        .collect();
    assert_eq!(posted, ids);
}

#[test]
fn in_structured_mode_the_event_is_the_body() {
    let server = WebhookServer::start(|_, _| Reply::status(200).saying("thanks"));
    let env = format!("WEBHOOK_MODE = \"structured\"\nWEBHOOK_SECRET = \"{SECRET}\"");
    let workspace = workspace(&server.origin(), &env, "");
    let host = workspace.serve();
    assert_eq!(host.post(&STRUCTURED, event().to_string()).status, 202);
    wait_for_requests(&server, 1);
    let request = &server.requests()[0];
    let content_type = &request.headers["content-type"];
    assert!(content_type.starts_with("application/cloudevents+json"));
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    for (name, value) in event().as_object().unwrap() {
        assert_eq!(&body[name], value, "{name}");
    }
    assert!(check_signature(SECRET, request), "{request:?}");
}

#[test]
fn many_events_arrive_in_order_over_few_requests_at_a_time() {
    let server = WebhookServer::start(|_, _| Reply::status(202));
    let workspace = workspace(&server.origin(), "", "[limits]\nbatch = 64");
    let host = workspace.serve();
    for n in 0..4 {
        assert_eq!(host.post_batch(&n.to_string(), 250).status, 202);
    }
    wait_for_requests(&server, 1000);
    let expected: Vec<String> = (0..4).flat_map(|n| ids(&n.to_string(), 250)).collect();
    assert_eq!(server.ids(), expected);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn odd_data_arrive_as_they_are() {
    let server = WebhookServer::start(|_, _| Reply::status(200));
    let workspace = workspace(&server.origin(), "", "");
    let host = workspace.serve();
    let large = vec![0xff; 1 << 20];
    let binary: Vec<u8> = (0..=255).collect();
    for data in [&b""[..], &binary, &large] {
        let headers = [
            ("content-type", "application/octet-stream"),
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/tests"),
            ("ce-type", "t"),
        ];
        assert_eq!(host.post(&headers, data).status, 202);
    }
    wait_for_requests(&server, 3);
    let bodies: Vec<_> = server.requests().into_iter().map(|r| r.body).collect();
    assert!(bodies[0].is_empty());
    assert!(bodies[1] == binary);
    assert!(bodies[2] == large);
}

#[test]
fn several_requests_run_side_by_side_if_that_is_asked() {
    use std::sync::{Arc, Barrier};
    // Each of four waits for the other three.
    let barrier = Arc::new(Barrier::new(4));
    let server = WebhookServer::start(move |_, _| {
        barrier.wait();
        Reply::status(200)
    });
    let workspace = workspace(&server.origin(), "WEBHOOK_CONCURRENCY = \"4\"", "");
    let host = workspace.serve();
    // A first call has a single event, if the host is quick, and would wait in vain.
    assert_eq!(host.post_batch("e", 64).status, 202);
    wait_for_requests(&server, 64);
    let mut arrived = server.ids();
    arrived.sort();
    arrived.dedup();
    assert_eq!(arrived.len(), 64);
}
