//! Requests that are no CloudEvents: each gets a clear answer, and the host
//! stays up.

use std::io::{Read, Write};
use std::net::TcpStream;

use backhaul_tests::host::{Answer, Host, Workspace};

const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
const BATCHED: (&str, &str) = ("content-type", "application/cloudevents-batch+json");

/// Headers and body, and the status and a part of the detail they get.
type Case = (
    &'static [(&'static str, &'static str)],
    &'static [u8],
    u16,
    &'static str,
);

#[track_caller]
fn assert_refused(answer: &Answer, status: u16, detail: &str) {
    let got = answer.body["detail"].as_str().unwrap_or_default();
    assert!(
        answer.status == status && got.contains(detail),
        "{status} {detail}: {answer:?}"
    );
    assert_eq!(answer.body["status"], status);
    assert!(answer.body["title"].is_string());
}

/// A host with the `file` plugin; at the end it has taken one event and nothing else.
fn with_host(test: impl FnOnce(&Host)) {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve_with(&["--max-body", "64KiB"]);
    test(&host);
    assert_eq!(host.post_event("good", "after:signup", "1").status, 202);
    let lines = workspace.wait_for_file_lines(1);
    assert_eq!((lines.len(), lines[0]["id"].as_str()), (1, Some("good")));
    assert_eq!(host.stop().0.code(), Some(0));
}

#[test]
fn what_is_malformed_wrong_typed_or_wrong_encoded_is_refused_with_the_reason() {
    with_host(|host| {
        let cases: [Case; 12] = [
            (&[], b"", 400, "no ce-specversion header"),
            (
                &[("content-type", "application/json")],
                b"{}",
                400,
                "no ce-specversion header",
            ),
            (&[STRUCTURED], b"", 400, "the body is not JSON"),
            (&[STRUCTURED], b"{\"id\":", 400, "the body is not JSON"),
            (&[STRUCTURED], b"{\"id\":\"\xff\"}", 400, "not"),
            (&[STRUCTURED], b"[1]", 400, "expected an object"),
            (
                &[STRUCTURED],
                br#"{"specversion":"1.0","id":1,"source":"/","type":"t"}"#,
                400,
                "`id` is not a valid string",
            ),
            (&[BATCHED], b"{}", 400, "the body is not a JSON array"),
            (
                &[("content-type", "application/cloudevents+xml")],
                b"<a/>",
                415,
                "application/cloudevents+xml is not supported",
            ),
            (
                &[(
                    "content-type",
                    "application/cloudevents+json; charset=utf-16",
                )],
                b"{}",
                415,
                "charset utf-16",
            ),
            (
                &[
                    ("ce-specversion", "0.3"),
                    ("ce-id", "1"),
                    ("ce-source", "/"),
                    ("ce-type", "t"),
                ],
                b"",
                400,
                "specversion must be 1.0",
            ),
            (
                &[
                    ("ce-specversion", "1.0"),
                    ("ce-id", "a%00"),
                    ("ce-source", "/"),
                    ("ce-type", "t"),
                ],
                b"",
                400,
                "`id` holds U+0000",
            ),
        ];
        for (headers, body, status, detail) in cases {
            assert_refused(&host.post(headers, body), status, detail);
        }
    });
}

#[test]
fn a_missing_id_type_or_source_is_named() {
    with_host(|host| {
        for missing in ["id", "source", "type", "specversion"] {
            let mut event = serde_json::json!({
                "specversion": "1.0", "id": "1", "source": "/", "type": "t",
            });
            event.as_object_mut().unwrap().remove(missing);
            let detail = format!("attribute `{missing}` is missing or empty");
            assert_refused(&host.post(&[STRUCTURED], event.to_string()), 400, &detail);
            event[missing] = "".into();
            let answer = host.post(&[STRUCTURED], event.to_string());
            assert_eq!(answer.status, 400, "{answer:?}");
        }
    });
}

#[test]
fn a_batch_with_one_bad_event_says_which_and_none_is_taken() {
    with_host(|host| {
        let good = r#"{"specversion":"1.0","id":"g","source":"/","type":"t"}"#;
        let bad = r#"{"specversion":"1.0","id":"b","source":"/"}"#;
        let answer = host.post(&[BATCHED], format!("[{good},{good},{bad},{good}]"));
        assert_refused(
            &answer,
            400,
            "event 2 of the batch (counted from 0): attribute `type`",
        );
        assert_eq!(answer.body["index"], 2);
        let empty = host.post(&[BATCHED], "[]");
        assert_eq!(
            (empty.status, empty.body),
            (202, serde_json::json!({ "ids": [] }))
        );
    });
}

#[test]
fn an_oversized_body_is_refused_whether_or_not_it_says_its_length() {
    with_host(|host| {
        let large = vec![b'x'; 65 * 1024];
        assert_refused(
            &host.post(&[STRUCTURED], &large),
            413,
            "larger than 65536 bytes",
        );

        let mut stream = TcpStream::connect(host.address()).unwrap();
        let head = "POST /events HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
            content-type: application/cloudevents+json\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(head.as_bytes()).unwrap();
        write!(stream, "{:x}\r\n", large.len()).unwrap();
        stream.write_all(&large).unwrap();
        stream.write_all(b"\r\n0\r\n\r\n").unwrap();
        let mut response = String::new();
        // The host may close before it has read all; its answer comes first.
        let _ = stream.read_to_string(&mut response);
        assert!(response.starts_with("HTTP/1.1 413 "), "{response}");
    });
}

#[test]
fn a_request_that_ends_early_or_is_no_http_harms_nothing() {
    with_host(|host| {
        for request in [
            "POST /events HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{\"half\":",
            "POST /events HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "\0\x01\x02 no http\r\n\r\n",
            "",
        ] {
            let mut stream = TcpStream::connect(host.address()).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream.shutdown(std::net::Shutdown::Write).unwrap();
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
}

#[test]
fn headers_that_are_too_many_or_too_large_are_refused() {
    with_host(|host| {
        let long = "x".repeat(1 << 20);
        let mut stream = TcpStream::connect(host.address()).unwrap();
        let _ = write!(
            stream,
            "POST /events HTTP/1.1\r\nhost: x\r\nce-id: {long}\r\n\r\n"
        );
        let mut response = String::new();
        let _ = stream.read_to_string(&mut response);
        assert!(
            response.is_empty() || response.starts_with("HTTP/1.1 431 "),
            "{response}"
        );
    });
}

#[test]
fn other_paths_and_methods_say_what_there_is() {
    with_host(|host| {
        assert_refused(&host.get("/"), 404, "events are posted to /events");
        assert_refused(&host.get("/events"), 405, "/events takes POST, not GET");
        assert_eq!(
            host.get("/health/live").body,
            serde_json::json!({ "status": "live" })
        );
        assert_eq!(
            host.get("/health/ready").body,
            serde_json::json!({ "status": "ready", "backends": { "file": "ok" } })
        );
    });
}

#[test]
fn a_host_without_plugins_lives_but_is_not_ready() {
    let workspace = Workspace::new();
    let host = workspace.serve();
    assert!(host.log().contains("no plugin is loaded"), "{}", host.log());
    assert_eq!(host.get("/health/live").status, 200);
    let ready = host.get("/health/ready");
    assert_eq!(
        (ready.status, ready.body["reason"].as_str()),
        (503, Some("no plugin is loaded"))
    );
    assert_eq!(ready.retry_after.as_deref(), Some("1"));
    let answer = host.post_event("1", "t", "1");
    assert_refused(&answer, 503, "no plugin is loaded");
    assert_eq!(answer.retry_after.as_deref(), Some("1"));
}
