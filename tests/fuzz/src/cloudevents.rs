//! Requests with events: what is taken is made of valid events, what is refused
//! has a reason of its size; and an event that a backend writes as JSON is the
//! same event when it is read again.
//!
//! Input: a request as it goes over the line, without its first line: headers,
//! an empty line, the body. Lines end with a line feed.

use backhaul::Event;
use backhaul::http::decode;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::texts::check_event;

pub(crate) fn run(input: &[u8]) {
    let (headers, body) = request(input);
    match decode(&headers, body) {
        Ok(events) => {
            for event in &events {
                check_event(event);
                check_round_trip(event);
            }
        }
        Err(problem) => {
            assert!(problem.status().is_client_error(), "{problem:?}");
            let detail = problem.to_string();
            assert!(
                detail.len() < 4 * input.len() + 512,
                "{} bytes",
                detail.len()
            );
        }
    }
}

/// What is no header is left out, as is what a server's parser would refuse.
fn request(input: &[u8]) -> (HeaderMap, Bytes) {
    let mut headers = HeaderMap::new();
    let mut rest = input;
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.is_empty() {
            break;
        }
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let value = line[colon + 1..].trim_ascii();
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(&line[..colon]),
            HeaderValue::from_bytes(value),
        ) {
            headers.append(name, value);
        }
    }
    (headers, Bytes::copy_from_slice(rest))
}

fn check_round_trip(event: &Event) {
    let mut json = Vec::new();
    guest_event(event).append_cloudevent_json(&mut json);
    assert!(
        !json.contains(&b'\n') && !json.contains(&b'\r'),
        "{event:?}"
    );
    for batch in [false, true] {
        let (content_type, body) = match batch {
            false => ("application/cloudevents+json", json.clone()),
            true => (
                "application/cloudevents-batch+json",
                [b"[", &json[..], b"]"].concat(),
            ),
        };
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static(content_type));
        let read = decode(&headers, body.into());
        let read = read.unwrap_or_else(|problem| panic!("{problem}: {event:?}"));
        assert_eq!(read.len(), 1);
        check_same(event, &read[0]);
    }
}

/// The event as a component gets it.
fn guest_event(event: &Event) -> backhaul_guest::Event {
    let nanoseconds = event.time().as_nanosecond();
    backhaul_guest::Event {
        id: event.id().to_owned(),
        source: event.source().to_owned(),
        event_type: event.event_type().to_owned(),
        subject: event.subject().map(str::to_owned),
        time: backhaul_guest::Timestamp {
            seconds: nanoseconds.div_euclid(1_000_000_000) as i64,
            nanoseconds: nanoseconds.rem_euclid(1_000_000_000) as u32,
        },
        content_type: event.content_type().map(str::to_owned),
        attributes: event.attributes().to_vec(),
        data: event.data().to_vec(),
    }
}

fn check_same(event: &Event, read: &Event) {
    assert_eq!(event.id(), read.id());
    assert_eq!(event.source(), read.source());
    assert_eq!(event.event_type(), read.event_type());
    assert_eq!(event.subject(), read.subject());
    assert_eq!(event.attributes(), read.attributes());
    // A time that RFC 3339 cannot write is left out.
    if guest_event(event).time_rfc3339().is_some() {
        assert_eq!(event.time(), read.time());
    }
    // No content type means JSON, and reading says so.
    match event.content_type() {
        Some(content_type) => assert_eq!(Some(content_type), read.content_type()),
        None => assert!(matches!(
            read.content_type(),
            None | Some("application/json")
        )),
    }
    // In JSON, a member that is null is one that is not there.
    if event.data().trim_ascii() == b"null" && read.data().is_empty() {
        return;
    }
    // JSON loses the white space around it and the line breaks in it.
    let tokens = |event: &Event| -> Vec<u8> {
        let data = event.data().trim_ascii().iter().copied();
        data.filter(|byte| !matches!(byte, b'\n' | b'\r')).collect()
    };
    assert_eq!(tokens(event), tokens(read), "{event:?}");
}
