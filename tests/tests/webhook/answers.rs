//! What an answer does to the event that was posted, and to those after it.

use crate::{ids, wait_for_requests, workspace};
use backhaul_tests::wait_for;
use backhaul_tests::webhook_server::{Reply, WebhookServer};
use std::time::Duration;

#[test]
fn a_server_in_trouble_is_tried_again_and_the_order_stays() {
    let server = WebhookServer::start(|_, before| match before {
        3 => Reply::status(503).saying("not\nnow"),
        4 => Reply::status(429),
        5 => Reply::status(408),
        _ => Reply::status(200),
    });
    let workspace = workspace(&server.origin(), "", "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("e", 10).status, 202);
    wait_for_requests(&server, 13);
    let mut arrived = server.ids();
    arrived.dedup();
    assert_eq!(
        arrived,
        ids("e", 10),
        "one event is tried until it is taken"
    );
    let log = host.log();
    assert!(log.contains("answered 503"), "{log}");
    assert!(log.contains("not now"), "{log}");
}

#[test]
fn retry_after_keeps_every_request_away_until_it_is_over() {
    let server = WebhookServer::start(|_, before| match before {
        0 => Reply::status(429).with("Retry-After", "2"),
        _ => Reply::status(200),
    });
    let more = "[retry]\nfirst_delay = \"10ms\"\nmax_delay = \"50ms\"";
    let workspace = workspace(&server.origin(), "", more);
    let host = workspace.serve();
    assert_eq!(host.post_batch("e", 5).status, 202);
    wait_for_requests(&server, 6);
    let requests = server.requests();
    let waited = requests[1].at - requests[0].at;
    assert!(waited >= Duration::from_secs(2), "{waited:?}");
    assert_eq!(server.ids()[1..], ids("e", 5));
    host.wait_for_log("(Retry-After: 2 s)");
}

#[test]
fn an_event_that_is_refused_is_a_dead_letter_and_the_next_ones_go_on() {
    let server = WebhookServer::start(|request, _| match request.headers["ce-id"].as_str() {
        "e-3" => Reply::status(422).saying("no such user"),
        _ => Reply::status(200),
    });
    let workspace = workspace(&server.origin(), "", "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("e", 6).status, 202);
    wait_for_requests(&server, 6);
    assert_eq!(server.ids(), ids("e", 6), "each once");
    let dead = wait_for("the dead letter", || {
        let body = host.get("/api/dead").body.to_string();
        body.contains("e-3").then_some(body)
    });
    assert!(
        dead.contains("answered 422") && dead.contains("no such user"),
        "{dead}"
    );
}

#[test]
fn a_status_the_settings_name_is_tried_again() {
    let server = WebhookServer::start(|_, before| match before {
        0 => Reply::status(401),
        _ => Reply::status(200),
    });
    let workspace = workspace(&server.origin(), "WEBHOOK_RETRY_STATUS = \"401,403\"", "");
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    wait_for_requests(&server, 2);
    assert_eq!(server.ids(), ["1", "1"]);
}

#[test]
fn a_redirect_is_not_followed_and_nothing_is_lost() {
    let elsewhere = WebhookServer::start(|_, _| Reply::status(200));
    let there = format!("{}/other?key=hush-hush", elsewhere.origin());
    let server = WebhookServer::start(move |_, before| match before {
        0 | 1 => Reply::status(307).with("Location", &there),
        _ => Reply::status(200),
    });
    let workspace = workspace(&server.origin(), "", "");
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    wait_for_requests(&server, 3);
    assert!(elsewhere.requests().is_empty());
    let log = host.log();
    let expected = format!(
        "redirects are not followed; set WEBHOOK_URL to where it is, at {}",
        elsewhere.origin()
    );
    assert!(log.contains(&expected), "{log}");
    assert!(!log.contains("hush-hush"), "{log}");
}

#[test]
fn a_body_too_large_for_the_server_is_permanent_although_it_was_not_read() {
    let server = WebhookServer::hasty(|request, _| {
        match request.headers["content-length"].parse::<usize>() {
            Ok(length) if length < 1000 => Reply::status(200),
            _ => Reply::status(413).with("Connection", "close"),
        }
    });
    let workspace = workspace(&server.origin(), "", "");
    let host = workspace.serve();
    let large = format!("\"{}\"", "x".repeat(1 << 20));
    // Several, as each is a race of the answer with the rest of the body.
    for n in 0..10 {
        let id = format!("large-{n}");
        assert_eq!(host.post_event(&id, "t", &large).status, 202);
    }
    assert_eq!(host.post_event("small", "t", "1").status, 202);
    let refused = || {
        let log = host.log();
        let dead = log.lines().filter(|line| line.contains("is a dead letter"));
        dead.filter(|line| line.contains("answered 413")).count()
    };
    wait_for("the events", || {
        (refused() == 10 && server.ids().contains(&"small".to_owned())).then_some(())
    });
    assert_eq!(server.requests().len(), 11, "each once: {}", host.log());
}
