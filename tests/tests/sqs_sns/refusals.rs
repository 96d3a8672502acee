//! What an answer of the service does, on a server that says what it is told to.

use crate::{SECRET, TOKEN, sqs};
use backhaul_tests::books::book;
use backhaul_tests::wait_for;
use backhaul_tests::webhook_server::{Reply, WebhookServer};
use serde_json::{Value, json};

/// A server that always answers so.
fn saying(status: u16, body: Value) -> WebhookServer {
    WebhookServer::start(move |_, _| Reply::status(status).saying(&body.to_string()))
}

#[test]
fn what_is_to_be_put_right_is_tried_again_and_the_log_says_how() {
    for (status, code, text) in [
        (
            400,
            "com.amazonaws.sqs#QueueDoesNotExist",
            "create the queue, or correct SQS_QUEUE_URL",
        ),
        (403, "InvalidClientTokenId", "correct AWS_ACCESS_KEY_ID"),
        (
            403,
            "SignatureDoesNotMatch",
            "correct AWS_SECRET_ACCESS_KEY, or AWS_REGION",
        ),
        (
            403,
            "ExpiredTokenException",
            "the session token has expired",
        ),
        (403, "RequestExpired", "set this machine's clock"),
        (
            403,
            "AccessDeniedException",
            "allow the owner of the keys sqs:SendMessage",
        ),
        (400, "KmsDisabled", "KMS key"),
        (400, "RequestThrottled", "RequestThrottled"),
        (400, "UnsupportedOperation", "UnsupportedOperation"),
        (503, "ServiceUnavailable", "ServiceUnavailable"),
        (500, "InvalidParameterValue", "500"),
    ] {
        let words = format!("not {SECRET}, not {TOKEN}");
        let server = saying(status, json!({ "__type": code, "message": words }));
        let url = format!("{}/1/q", server.origin());
        let workspace = sqs(&server.origin(), &url, "", "");
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
        let book = book(&host, "sqs");
        assert_eq!((book.pending, book.dead), (1, 0), "{code}");
        let log = host.stop().1;
        assert!(!log.contains("hush"), "{log}");
    }
}

#[test]
fn every_request_is_signed_and_shows_no_secret() {
    let server = saying(200, json!({ "Successful": [{ "Id": "0" }], "Failed": [] }));
    let url = format!("{}/1/q", server.origin());
    let workspace = sqs(&server.origin(), &url, "", "");
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    wait_for("a request", || {
        (!server.requests().is_empty()).then_some(())
    });
    let request = server.requests().remove(0);
    let authorization = &request.headers["authorization"];
    assert!(
        authorization.starts_with("AWS4-HMAC-SHA256 Credential=KEYOFTESTS/"),
        "{authorization}"
    );
    assert!(
        authorization.contains("/eu-west-1/sqs/aws4_request"),
        "{authorization}"
    );
    let signed = "SignedHeaders=content-type;host;x-amz-date;x-amz-security-token;x-amz-target,";
    assert!(authorization.contains(signed), "{authorization}");
    assert_eq!(request.headers["x-amz-security-token"], TOKEN);
    assert_eq!(
        format!("http://{}", request.headers["host"]),
        server.origin()
    );
    assert_eq!(request.line, "POST / HTTP/1.1");
    assert!(!format!("{request:?}").contains(SECRET));
}

#[test]
fn of_a_call_each_entry_has_its_own_fate() {
    // 1 is refused for ever, 3 once, and of 5 the answer says nothing at first.
    let server = WebhookServer::start(|request, before| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let (mut taken, mut failed) = (Vec::new(), Vec::new());
        for entry in body["Entries"].as_array().unwrap() {
            let event: Value =
                serde_json::from_str(entry["MessageBody"].as_str().unwrap()).unwrap();
            let id = &entry["Id"];
            match event["id"].as_str().unwrap() {
                "x-1" => failed.push(json!({ "Id": id, "SenderFault": true, "Code": "InvalidMessageContents", "Message": "no" })),
                "x-3" if before == 0 => failed.push(json!({ "Id": id, "SenderFault": false, "Code": "InternalError" })),
                "x-5" if before == 0 => {}
                _ => taken.push(json!({ "Id": id })),
            }
        }
        Reply::status(200).saying(&json!({ "Successful": taken, "Failed": failed }).to_string())
    });
    let url = format!("{}/1/q", server.origin());
    let workspace = sqs(&server.origin(), &url, "", "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("x", 7).status, 202);
    let book = wait_for("all to be settled", || {
        Some(book(&host, "sqs")).filter(|book| book.delivered == 6 && book.dead == 1)
    });
    assert_eq!(book.pending, 0);
    let dead = host.get("/api/dead").body.to_string();
    assert!(
        dead.contains("x-1") && dead.contains("InvalidMessageContents: no"),
        "{dead}"
    );
}

#[test]
fn a_call_has_no_more_bytes_than_was_set() {
    let server = WebhookServer::start(|request, _| {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let ids = body["Entries"].as_array().unwrap().iter();
        let taken: Vec<Value> = ids.map(|entry| json!({ "Id": entry["Id"] })).collect();
        Reply::status(200).saying(&json!({ "Successful": taken }).to_string())
    });
    let url = format!("{}/1/q", server.origin());
    let workspace = sqs(&server.origin(), &url, "SQS_MAX_BYTES = \"2048\"", "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("x", 40).status, 202);
    wait_for("40 deliveries", || {
        (book(&host, "sqs").delivered == 40).then_some(())
    });
    let mut count = 0;
    for request in server.requests() {
        let body: Value = serde_json::from_slice(&request.body).unwrap();
        let entries = body["Entries"].as_array().unwrap();
        let bytes: usize = entries
            .iter()
            .map(|e| e["MessageBody"].as_str().unwrap().len())
            .sum();
        assert!(bytes <= 2048 && entries.len() < 10, "{bytes}");
        count += entries.len();
    }
    assert_eq!(count, 40);
}
