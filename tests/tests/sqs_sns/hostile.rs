//! Wrong settings, and servers that are none.

use crate::{sns, sqs};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::hostile_server::{HostileServer, Misbehaviour, assert_survived};

#[test]
fn a_setting_that_is_missing_or_wrong_is_named() {
    for (env, text) in [
        (
            "SQS_FIFO_CALLS = \"many\"",
            "SQS_FIFO_CALLS is \\\"many\\\"",
        ),
        ("SQS_MAX_BYTES = \"10\"", "SQS_MAX_BYTES is \\\"10\\\""),
        ("SQS_CONCURRENCY = \"33\"", "SQS_CONCURRENCY is \\\"33\\\""),
        ("SQS_TIMEOUT = \"5\"", "SQS_TIMEOUT is \\\"5\\\""),
        ("SQS_GROUP_ID = \"{tenant}\"", "it has \\\"{tenant}\\\""),
        ("SQS_DEDUPLICATION_ID = \"{typ}\"", "it has \\\"{typ}\\\""),
        (
            "AWS_ENDPOINT_URL = \"127.0.0.1\"",
            "AWS_ENDPOINT_URL cannot be used",
        ),
    ] {
        let workspace = sqs("http://127.0.0.1:9", "http://127.0.0.1:9/1/q", env, "");
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
        assert!(!host.log().contains("hush"), "{}", host.log());
    }
    for url in [
        "events",
        "http://127.0.0.1:9/",
        "http://127.0.0.1:9/1/after:q",
        "http://{type}/1/q",
    ] {
        let workspace = sqs("http://127.0.0.1:9", url, "", "");
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log("expected a queue's URL");
    }
    for (plugin, text) in [
        ("sqs", "the setting SQS_QUEUE_URL is missing"),
        ("sns", "the setting SNS_TOPIC_ARN is missing"),
    ] {
        let workspace = Workspace::new();
        workspace.add_plugin(plugin, &components::plugin(plugin), "");
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
    }
}

#[test]
fn keys_that_are_missing_or_none_are_named_and_not_shown() {
    for (keys, text) in [
        ("", "the setting AWS_ACCESS_KEY_ID is missing"),
        (
            "AWS_ACCESS_KEY_ID = \"id\"",
            "the setting AWS_SECRET_ACCESS_KEY is missing",
        ),
        (
            "AWS_ACCESS_KEY_ID = \"id\"\nAWS_SECRET_ACCESS_KEY = \"hush hush\"",
            "AWS_SECRET_ACCESS_KEY cannot be used",
        ),
    ] {
        let workspace = Workspace::new();
        let manifest = format!(
            "[grants.env]\nSQS_QUEUE_URL = \"https://sqs.eu-west-1.amazonaws.com/1/q\"\n{keys}\n"
        );
        workspace.add_plugin("sqs", &components::plugin("sqs"), &manifest);
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
        assert!(!host.log().contains("hush"), "{}", host.log());
    }
}

#[test]
fn an_endpoint_that_is_not_granted_is_said_so() {
    let workspace = sqs("http://127.0.0.1:8", "http://127.0.0.1:9/1/q", "", "");
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("is http = [\\\"http://127.0.0.1:9\\\"] granted?");
    assert!(!host.log().contains("hush"), "{}", host.log());
}

/// Both plugins, aimed at a server that does this, say `text` and harm nobody.
fn assert_both_survive(misbehaviour: Misbehaviour, timeout: bool, text: &str) {
    let server = HostileServer::start(misbehaviour);
    let origin = format!("http://{}", server.address());
    let env = |name| {
        if timeout {
            format!("{name}_TIMEOUT = \"300ms\"")
        } else {
            String::new()
        }
    };
    let workspace = sqs(&origin, &format!("{origin}/1/q"), &env("SQS"), "");
    assert_survived(&workspace, "sqs", text);
    let workspace = sns(&origin, "arn:aws:sns:eu-west-1:1:t", &env("SNS"));
    assert_survived(&workspace, "sns", text);
}

#[test]
fn a_server_that_speaks_another_protocol_is_said_so() {
    assert_both_survive(
        Misbehaviour::Says(b"SSH-2.0-OpenSSH_9.6\r\n"),
        false,
        "no answer from http://",
    );
    let page = b"HTTP/1.1 200 OK\r\ncontent-length: 15\r\n\r\n<html>hi</html>";
    assert_both_survive(
        Misbehaviour::FloodsWhenAsked(page, b" "),
        false,
        "answered 200, but not as S",
    );
    let page = b"HTTP/1.1 404 No\r\ncontent-length: 15\r\n\r\n<html>hi</html>";
    assert_both_survive(
        Misbehaviour::FloodsWhenAsked(page, b" "),
        false,
        "answered 404 Not Found, and not as S",
    );
}

#[test]
fn a_server_that_never_answers_or_byte_by_byte_runs_out_of_time() {
    let drip = b"HTTP/1.1 200 OK\r\nx-long: 0123456789012345678901234567890123456789";
    for misbehaviour in [Misbehaviour::Silence, Misbehaviour::Drips(drip)] {
        assert_both_survive(misbehaviour, true, "did not answer in time (S");
    }
}

#[test]
fn an_answer_without_end_is_not_read_to_it() {
    let flood = Misbehaviour::FloodsWhenAsked(b"HTTP/1.1 200 OK\r\n\r\n", b"and more and more ");
    assert_both_survive(flood, false, "is longer than 262144 bytes");
    let head = Misbehaviour::FloodsWhenAsked(b"HTTP/1.1 200 OK\r\n", b"x-more: and more\r\n");
    assert_both_survive(head, false, "no answer from http://");
}
