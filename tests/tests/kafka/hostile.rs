//! Wrong settings, and servers that are none.

use crate::workspace;
use backhaul_tests::hostile_server::{HostileServer, Misbehaviour, assert_survived};

/// The answer to the first question, which requests a broker knows: those this plugin
/// needs, in all versions.
const HELLO: &[u8] =
    b"\0\0\0\x1c\0\0\0\x01\0\0\0\0\0\x03\0\0\0\0\0\x09\0\x03\0\0\0\x09\0\x16\0\0\0\x01";

fn assert_says(misbehaviour: Misbehaviour, text: &str) {
    let server = HostileServer::start(misbehaviour);
    let workspace = workspace(server.address(), "KAFKA_TIMEOUT = \"300ms\"");
    assert_survived(&workspace, "kafka", text);
}

#[test]
fn a_setting_that_is_wrong_is_named() {
    for (env, text) in [
        ("KAFKA_TOPIC = \"events.{typ}\"", "it has \\\"{typ}\\\""),
        ("KAFKA_TOPIC = \"a topic\"", "the setting KAFKA_TOPIC is"),
        ("KAFKA_KEY = \"{id\"", "the setting KAFKA_KEY is"),
        ("KAFKA_MODE = \"batched\"", "expected binary or structured"),
        (
            "KAFKA_COMPRESSION = \"brotli\"",
            "expected none, gzip, snappy, lz4 or zstd",
        ),
        (
            "KAFKA_BATCH_BYTES = \"1\"",
            "the setting KAFKA_BATCH_BYTES is",
        ),
        ("KAFKA_TIMEOUT = \"5\"", "the setting KAFKA_TIMEOUT is"),
        ("KAFKA_TIMEOUT = \"1ms\"", "the setting KAFKA_TIMEOUT is"),
        (
            "KAFKA_SASL = \"GSSAPI\"",
            "expected PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
        ),
        (
            "KAFKA_SASL = \"PLAIN\"",
            "the setting KAFKA_USER is missing",
        ),
        (
            "KAFKA_SASL = \"PLAIN\"\nKAFKA_USER = \"ada\"",
            "the setting KAFKA_PASSWORD is missing",
        ),
        ("KAFKA_USER = \"ada\"", "together with KAFKA_SASL"),
    ] {
        let workspace = workspace("127.0.0.1:1", env);
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
    }
}

#[test]
fn an_address_that_cannot_be_used_is_said_so_without_its_password() {
    let workspace = backhaul_tests::host::Workspace::new();
    let component = backhaul_tests::components::plugin("kafka");
    let manifest = "[grants.env]\nKAFKA_BROKERS = \"kafka://ada:hush-hush@127.0.0.1\"\n";
    workspace.add_plugin("kafka", &component, manifest);
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("the setting KAFKA_BROKERS cannot be used");
    assert!(!host.log().contains("hush-hush"), "{}", host.log());
}

#[test]
fn a_broker_that_is_not_there_is_said_so() {
    // A port that the system gives to nobody.
    let gone = "127.0.0.1:1";
    let text =
        format!("cannot connect to Kafka at {gone}; is it running, and {gone} granted as tcp?");
    assert_survived(&workspace(gone, ""), "kafka", &text);
}

#[test]
fn a_server_of_another_protocol_is_said_so() {
    for text in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0\0\0\x04\0\0\0\x07",
    ] {
        assert_says(Misbehaviour::Says(text), "is it a Kafka broker?");
    }
    assert_says(
        Misbehaviour::Says(b"\x15\x03\x03\0\x02\x02\x46"),
        "it speaks TLS",
    );
    assert_says(Misbehaviour::Says(b""), "closed the connection");
}

#[test]
fn a_server_that_never_answers_or_byte_by_byte_runs_out_of_time() {
    assert_says(Misbehaviour::Silence, "it does not answer in time");
    assert_says(
        Misbehaviour::Drips(b"\0\0\x01\0"),
        "it does not answer in time",
    );
}

#[test]
fn answers_larger_than_sane_are_not_taken() {
    let two_gib = b"\x7f\xff\xff\xff\0\0\0\x01";
    assert_says(
        Misbehaviour::Floods(b"", two_gib),
        "an answer of 2147483647 bytes",
    );
    // It knows what a broker does, and announces more of it than memory holds.
    assert_says(
        Misbehaviour::Floods(HELLO, two_gib),
        "an answer of 2147483647 bytes",
    );
    // The answer is small, and claims that two thousand million brokers are in it.
    assert_says(
        Misbehaviour::Floods(HELLO, b"\0\0\0\x0c\0\0\0\x02\0\0\0\0\x7f\xff\xff\xff"),
        "its answer cannot be read",
    );
    // As large as may be, and full of what takes the most memory.
    assert_says(
        Misbehaviour::Floods(HELLO, b"\0\x1f\xff\xff\0\0\0\x02\0\0\0\0\0\0\0\0"),
        "Kafka at 127.0.0.1",
    );
}
