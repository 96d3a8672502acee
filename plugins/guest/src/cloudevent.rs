//! The JSON format of CloudEvents 1.0, written straight into a byte buffer.

use crate::Event;
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::de::IgnoredAny;
use std::io::Write;

/// The events as lines of CloudEvents JSON (NDJSON), each ending in a line feed;
/// see [`Event::append_cloudevent_json`].
pub fn cloudevent_lines(events: &[Event]) -> Vec<u8> {
    let size: usize = events.iter().map(|event| event.data.len() + 512).sum();
    let mut lines = Vec::with_capacity(size);
    for event in events {
        append(event, &mut lines);
        lines.push(b'\n');
    }
    lines
}

/// Appends the event; see [`Event::append_cloudevent_json`].
pub(crate) fn append(event: &Event, out: &mut Vec<u8>) {
    out.extend_from_slice(b"{\"specversion\":\"1.0\"");
    append_member(out, "id", &event.id);
    append_member(out, "source", &event.source);
    append_member(out, "type", &event.event_type);
    if let Some(subject) = &event.subject {
        append_member(out, "subject", subject);
    }
    if let Some(time) = event.time_rfc3339() {
        // Digits and punctuation that JSON need not escape.
        write!(out, ",\"time\":\"{time}\"").expect("writing to a Vec does not fail");
    }
    if let Some(content_type) = &event.content_type {
        append_member(out, "datacontenttype", content_type);
    }
    for (name, value) in &event.attributes {
        append_member(out, name, value);
    }
    append_data(out, event);
    out.push(b'}');
}

fn append_member(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(b',');
    append_string(out, name);
    out.push(b':');
    append_string(out, value);
}

fn append_string(out: &mut Vec<u8>, text: &str) {
    serde_json::to_writer(out, text).expect("a string always has a JSON form");
}

fn append_data(out: &mut Vec<u8>, event: &Event) {
    if event.data.is_empty() {
        return;
    }
    let text = std::str::from_utf8(&event.data).ok();
    match (Media::of(event.content_type.as_deref()), text) {
        (Media::Json, Some(json)) if is_json(json) => {
            out.extend_from_slice(b",\"data\":");
            append_on_one_line(out, json.trim_ascii());
        }
        (Media::Text, Some(text)) => {
            out.extend_from_slice(b",\"data\":");
            append_string(out, text);
        }
        _ => {
            out.extend_from_slice(b",\"data_base64\":\"");
            let start = out.len();
            // Base64 makes 4 bytes of 3, rounded up.
            out.resize(start + event.data.len().div_ceil(3) * 4, 0);
            STANDARD
                .encode_slice(&event.data, &mut out[start..])
                .expect("the space was sized for it");
            out.push(b'"');
        }
    }
}

/// Checks the grammar only. Must be given text that is known to be UTF-8, which
/// serde_json does not check in the strings it skips.
fn is_json(text: &str) -> bool {
    serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Copies valid JSON without its line breaks. They stand between tokens (inside
/// a string JSON has them escaped), where nothing is needed in their place.
fn append_on_one_line(out: &mut Vec<u8>, json: &str) {
    for piece in json.split(['\n', '\r']) {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// What the content type says about how the data can stand in JSON.
enum Media {
    Json,
    Text,
    Other,
}

impl Media {
    /// Per CloudEvents' JSON format, no content type means `application/json`.
    fn of(content_type: Option<&str>) -> Self {
        let Some(content_type) = content_type else {
            return Self::Json;
        };
        let essence = content_type.split(';').next().unwrap_or_default();
        let Some((family, subtype)) = essence.trim().split_once('/') else {
            return Self::Other;
        };
        let subtype = subtype.to_ascii_lowercase();
        if subtype == "json" || subtype.ends_with("+json") {
            Self::Json
        } else if family.eq_ignore_ascii_case("text") {
            Self::Text
        } else {
            Self::Other
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::event;
    use serde_json::{Value, json};

    fn line(event: &Event) -> String {
        let mut out = Vec::new();
        append(event, &mut out);
        String::from_utf8(out).expect("JSON is UTF-8")
    }

    /// The member that carries the data, as it stands in the line.
    fn data(content_type: Option<&str>, data: impl AsRef<[u8]>) -> String {
        let event = Event {
            content_type: content_type.map(Into::into),
            data: data.as_ref().into(),
            ..event()
        };
        let line = line(&event);
        assert!(!line.contains(['\n', '\r']), "{line}");
        serde_json::from_str::<Value>(&line).expect("the line is JSON");
        let member = line
            .find(",\"data\":")
            .or_else(|| line.find(",\"data_base64\":"));
        member.map_or_else(String::new, |at| line[at + 1..line.len() - 1].to_owned())
    }

    #[test]
    fn an_event_with_the_required_attributes_only() {
        assert_eq!(
            line(&event()),
            r#"{"specversion":"1.0","id":"1","source":"/test","type":"after:signup","time":"2024-05-01T12:00:00Z"}"#
        );
    }

    #[test]
    fn every_attribute_is_a_member_and_odd_characters_are_escaped() {
        let event = Event {
            id: "quote\" back\\slash".into(),
            subject: Some("Zoë 🦀\n".into()),
            content_type: Some("application/json".into()),
            attributes: vec![
                ("dataschema".into(), "https://example.com/schema".into()),
                ("traceparent".into(), "00-1-2-01".into()),
            ],
            data: br#"{"user":1}"#.into(),
            ..event()
        };
        assert_eq!(
            serde_json::from_str::<Value>(&line(&event)).expect("the line is JSON"),
            json!({
                "specversion": "1.0",
                "id": "quote\" back\\slash",
                "source": "/test",
                "type": "after:signup",
                "subject": "Zoë 🦀\n",
                "time": "2024-05-01T12:00:00Z",
                "datacontenttype": "application/json",
                "dataschema": "https://example.com/schema",
                "traceparent": "00-1-2-01",
                "data": { "user": 1 },
            })
        );
    }

    #[test]
    fn a_time_without_notation_is_left_out() {
        let mut event = event();
        event.time.seconds = i64::MAX;
        assert!(!line(&event).contains("time"));
    }

    #[test]
    fn json_is_copied_digit_for_digit() {
        for content_type in [
            None,
            Some("application/json"),
            Some("Application/JSON; charset=utf-8"),
            Some("text/json"),
            Some("application/vnd.example+json"),
        ] {
            let number = r#"{"b":1.50,"a":12345678901234567890123,"a":"é\u00e9"}"#;
            assert_eq!(data(content_type, number), format!("\"data\":{number}"));
        }
        assert_eq!(data(None, "null"), "\"data\":null");
        assert_eq!(data(None, "\"text\""), "\"data\":\"text\"");
    }

    #[test]
    fn line_breaks_between_tokens_are_left_out() {
        assert_eq!(
            data(None, "\n{\r\n  \"a\": [1,\n2],\r \"b\": \"x\\ny\"\n}\r\n"),
            r#""data":{  "a": [1,2], "b": "x\ny"}"#
        );
    }

    #[test]
    fn what_only_claims_to_be_json_is_base64() {
        for wrong in [
            "not json",
            "{\"a\":1} {\"b\":2}",
            "{\"a\":",
            "\"line\nbreak\"",
            "\u{feff}{}",
            "NaN",
            " ",
        ] {
            assert_eq!(
                data(Some("application/json"), wrong),
                format!("\"data_base64\":\"{}\"", STANDARD.encode(wrong))
            );
        }
        assert_eq!(data(None, b"\"\xff\""), "\"data_base64\":\"Iv8i\"");
    }

    #[test]
    fn deeply_nested_json_does_not_overflow_the_stack() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let event = Event {
            data: deep.clone().into(),
            ..event()
        };
        assert!(line(&event).ends_with(&format!(",\"data\":{deep}}}")));
    }

    #[test]
    fn text_is_a_json_string_if_it_is_utf8() {
        let text = "Zoë said \"hi\"\r\n\u{0}";
        assert_eq!(
            data(Some("text/plain; charset=utf-8"), text),
            r#""data":"Zoë said \"hi\"\r\n\u0000""#
        );
        assert_eq!(data(Some("TEXT/CSV"), "1,2"), "\"data\":\"1,2\"");
        assert_eq!(
            data(Some("text/plain"), b"\xff\xfe"),
            "\"data_base64\":\"//4=\""
        );
    }

    #[test]
    fn other_data_is_base64_and_empty_data_is_no_member() {
        for (bytes, base64) in [
            (&[0u8][..], "AA=="),
            (&[0, 1], "AAE="),
            (&[0, 1, 2], "AAEC"),
            (b"{}", "e30="),
        ] {
            let expected = format!("\"data_base64\":\"{base64}\"");
            assert_eq!(data(Some("application/octet-stream"), bytes), expected);
            assert_eq!(data(Some("nonsense"), bytes), expected);
        }
        for content_type in [None, Some("text/plain"), Some("image/png")] {
            assert_eq!(data(content_type, ""), "");
        }
    }
}
