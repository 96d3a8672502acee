//! Wrong settings, and servers that are none.

use crate::{server, workspace};
use backhaul_tests::hostile_server::{HostileServer, Misbehaviour, assert_survived};
use backhaul_tests::nats_server::NatsServer;
use serde_json::json;

/// A greeting, and the answer to a login.
const HELLO: &[u8] =
    b"INFO {\"max_payload\":1048576,\"headers\":true,\"jetstream\":true}\r\nPONG\r\n";

fn assert_says(misbehaviour: Misbehaviour, text: &str) {
    let server = HostileServer::start(misbehaviour);
    let workspace = workspace(server.address(), "NATS_TIMEOUT = \"300ms\"");
    assert_survived(&workspace, "nats-jetstream", text);
}

#[test]
fn a_setting_that_is_wrong_is_named() {
    let Some(server) = server() else { return };
    for (env, text) in [
        ("NATS_SUBJECT = \"events.{typ}\"", "it has \\\"{typ}\\\""),
        ("NATS_MSG_ID = \"{id\"", "the setting NATS_MSG_ID is"),
        ("NATS_MODE = \"batched\"", "expected binary or structured"),
        ("NATS_TIMEOUT = \"5\"", "the setting NATS_TIMEOUT is"),
        (
            "NATS_NKEY = \"SUNOKEY\"",
            "the setting NATS_NKEY cannot be used",
        ),
        (
            "NATS_USER = \"ada\"\nNATS_TOKEN = \"t\"",
            "expected one way to log in",
        ),
    ] {
        let workspace = workspace(&server.address(), env);
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
        assert!(!host.log().contains("SUNOKEY"));
    }
}

#[test]
fn an_address_that_cannot_be_used_is_said_so_without_its_password() {
    let workspace = backhaul_tests::host::Workspace::new();
    let component = backhaul_tests::components::plugin("nats-jetstream");
    let manifest = "[grants.env]\nNATS_URL = \"nats://ada:hush-hush@127.0.0.1\"\n";
    workspace.add_plugin("nats-jetstream", &component, manifest);
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("the setting NATS_URL cannot be used");
    assert!(!host.log().contains("hush-hush"), "{}", host.log());
}

#[test]
fn a_server_without_jetstream_is_said_so() {
    let Some(server) = NatsServer::with("", json!({})) else {
        return;
    };
    let workspace = workspace(&server.address(), "");
    assert_survived(
        &workspace,
        "nats-jetstream",
        "has no JetStream; start it with -js",
    );
}

#[test]
fn a_server_of_another_protocol_is_said_so() {
    for text in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"INFO nothing\r\n",
    ] {
        assert_says(Misbehaviour::Says(text), "is it a NATS server?");
    }
    assert_says(Misbehaviour::Says(b""), "closed the connection");
}

#[test]
fn a_server_that_never_answers_or_byte_by_byte_runs_out_of_time() {
    assert_says(Misbehaviour::Silence, "it does not answer in time");
    assert_says(
        Misbehaviour::Drips(b"INFO {\"max_payload\":1048576,"),
        "it does not answer in time",
    );
}

#[test]
fn answers_without_end_or_larger_than_sane_are_cut_off() {
    assert_says(
        Misbehaviour::Floods(b"INFO ", b"{\"a\":"),
        "sent a line without end",
    );
    assert_says(Misbehaviour::Floods(HELLO, b"x"), "sent a line without end");
    assert_says(
        Misbehaviour::Floods(HELLO, b"MSG _INBOX.1 1 4000000000\r\n"),
        "larger than any should be",
    );
    // Each of them is sane, and none is an acknowledgement.
    assert_says(
        Misbehaviour::Floods(HELLO, b"MSG _INBOX.1 1 2\r\n{}\r\n"),
        "in time",
    );
}
