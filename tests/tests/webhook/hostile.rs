//! Wrong settings, and servers that are none.

use crate::workspace;
use backhaul_tests::hostile_server::{HostileServer, Misbehaviour, assert_survived};
use backhaul_tests::webhook_server::{Reply, WebhookServer};
use backhaul_tests::{components, host::Workspace};

#[test]
fn a_setting_that_is_missing_or_wrong_is_named() {
    let server = WebhookServer::start(|_, _| Reply::status(200));
    for (env, text) in [
        (
            "WEBHOOK_MODE = \"batched\"",
            "WEBHOOK_MODE is \\\"batched\\\"",
        ),
        (
            "WEBHOOK_SECRET = \"hush-hush\"",
            "WEBHOOK_SECRET cannot be used",
        ),
        (
            "WEBHOOK_CONCURRENCY = \"0\"",
            "WEBHOOK_CONCURRENCY is \\\"0\\\"",
        ),
        (
            "WEBHOOK_CONCURRENCY = \"33\"",
            "WEBHOOK_CONCURRENCY is \\\"33\\\"",
        ),
        ("WEBHOOK_TIMEOUT = \"5\"", "WEBHOOK_TIMEOUT is \\\"5\\\""),
        (
            "WEBHOOK_RETRY_STATUS = \"500\"",
            "WEBHOOK_RETRY_STATUS is \\\"500\\\"",
        ),
    ] {
        let workspace = workspace(&server.origin(), env, "");
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
        assert!(!host.log().contains("hush-hush"));
    }
    assert!(server.requests().is_empty());

    let workspace = Workspace::new();
    workspace.add_plugin("webhook", &components::plugin("webhook"), "");
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("the setting WEBHOOK_URL is missing");
}

#[test]
fn an_origin_that_is_not_granted_is_said_so() {
    let workspace = Workspace::new();
    let manifest = "[grants.env]\nWEBHOOK_URL = \"http://127.0.0.1:9/hook?key=hush-hush\"\n";
    workspace.add_plugin("webhook", &components::plugin("webhook"), manifest);
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("is http = [\\\"http://127.0.0.1:9\\\"] granted?");
    assert!(!host.log().contains("hush-hush"), "{}", host.log());
}

#[test]
fn a_server_that_is_away_or_speaks_another_protocol_is_said_so() {
    for text in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"-ERR unknown command 'POST'\r\n",
        b"",
    ] {
        let server = HostileServer::start(Misbehaviour::Says(text));
        let workspace = workspace(&format!("http://{}", server.address()), "", "");
        assert_survived(&workspace, "webhook", "no answer from http://127.0.0.1:");
    }
}

#[test]
fn a_server_that_never_answers_or_byte_by_byte_runs_out_of_time() {
    let drip = b"HTTP/1.1 200 OK\r\nx-long: 0123456789012345678901234567890123456789";
    for misbehaviour in [Misbehaviour::Silence, Misbehaviour::Drips(drip)] {
        let server = HostileServer::start(misbehaviour);
        let origin = format!("http://{}", server.address());
        let workspace = workspace(&origin, "WEBHOOK_TIMEOUT = \"300ms\"", "");
        assert_survived(
            &workspace,
            "webhook",
            "did not answer in time (WEBHOOK_TIMEOUT, 300ms",
        );
    }
}

#[test]
fn a_head_without_end_is_cut_off() {
    let flood = Misbehaviour::FloodsWhenAsked(b"HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n");
    let server = HostileServer::start(flood);
    let workspace = workspace(&format!("http://{}", server.address()), "", "");
    assert_survived(&workspace, "webhook", "no answer from http://127.0.0.1:");
}

#[test]
fn a_body_without_end_is_not_read_to_it() {
    let flood = Misbehaviour::FloodsWhenAsked(b"HTTP/1.1 500 Oh\r\n\r\n", b"and more and more ");
    let server = HostileServer::start(flood);
    let workspace = workspace(&format!("http://{}", server.address()), "", "");
    assert_survived(&workspace, "webhook", "answered 500");
}
