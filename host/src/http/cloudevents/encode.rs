//! An event as one object of CloudEvents' JSON format: what `json` reads, written.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::value::RawValue;

use super::json::is_json;
use crate::event::Event;

/// An event, to be written as JSON by `serde_json`.
pub(in crate::http) struct InJson<'a>(pub(in crate::http) &'a Event);

impl Serialize for InJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let event = self.0;
        let mut members = serializer.serialize_map(None)?;
        members.serialize_entry("specversion", "1.0")?;
        members.serialize_entry("id", event.id())?;
        members.serialize_entry("source", event.source())?;
        members.serialize_entry("type", event.event_type())?;
        members.serialize_entry("time", &event.time())?;
        if let Some(subject) = event.subject() {
            members.serialize_entry("subject", subject)?;
        }
        if let Some(content_type) = event.content_type() {
            members.serialize_entry("datacontenttype", content_type)?;
        }
        for (name, value) in event.attributes() {
            members.serialize_entry(name, value)?;
        }
        match Data::of(event) {
            Data::None => {}
            Data::Json(json) => members.serialize_entry("data", json)?,
            Data::Text(text) => members.serialize_entry("data", text)?,
            Data::Bytes(bytes) => {
                members.serialize_entry("data_base64", &STANDARD.encode(bytes))?;
            }
        }
        members.end()
    }
}

/// How the data stand in JSON.
enum Data<'a> {
    None,
    /// As they were written: spacing between tokens and the form of numbers stay.
    Json(&'a RawValue),
    Text(&'a str),
    Bytes(&'a [u8]),
}

impl Data<'_> {
    fn of(event: &Event) -> Data<'_> {
        let bytes = event.data();
        if bytes.is_empty() {
            return Data::None;
        }
        let Ok(text) = str::from_utf8(bytes) else {
            return Data::Bytes(bytes);
        };
        match event.content_type() {
            Some(content_type) if !is_json(content_type) => Data::Text(text),
            // Without a content type, `data` in JSON means JSON. A string would say
            // something else than the text in it.
            _ => serde_json::from_str(text).map_or(Data::Bytes(bytes), Data::Json),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::structured;
    use super::*;

    fn event(content_type: Option<&'static str>, data: &[u8]) -> Event {
        let builder = Event::builder("after:signup")
            .id("1")
            .source("/s")
            .time("2026-01-31T12:00:00.5Z".parse().unwrap())
            .data(data.to_vec());
        let builder = match content_type {
            Some(content_type) => builder.content_type(content_type),
            None => builder,
        };
        builder.build().unwrap()
    }

    fn json(event: &Event) -> String {
        serde_json::to_string(&InJson(event)).unwrap()
    }

    const HEAD: &str = r#"{"specversion":"1.0","id":"1","source":"/s","type":"after:signup","time":"2026-01-31T12:00:00.5Z""#;

    /// What stands behind the attributes every event has.
    fn rest(content_type: Option<&'static str>, data: &[u8]) -> String {
        let json = json(&event(content_type, data));
        json.strip_prefix(HEAD).expect(&json).to_owned()
    }

    #[test]
    fn every_attribute_is_a_member() {
        let event = Event::builder("t")
            .id("quote\" back\\slash")
            .source("/s")
            .time("2026-01-31T12:00:00Z".parse().unwrap())
            .subject("Zoë 🦀")
            .content_type("application/json")
            .attribute("dataschema", "https://example.com/schema")
            .attribute("traceparent", "00-1-2-01")
            .data("[1]")
            .build()
            .unwrap();
        assert_eq!(
            json(&event),
            r#"{"specversion":"1.0","id":"quote\" back\\slash","source":"/s","type":"t","time":"2026-01-31T12:00:00Z","subject":"Zoë 🦀","datacontenttype":"application/json","dataschema":"https://example.com/schema","traceparent":"00-1-2-01","data":[1]}"#
        );
    }

    #[test]
    fn json_is_data_as_it_was_written() {
        let written = r#"{"b":1.50, "a":12345678901234567890123,"a":"é\u00e9"}"#;
        assert_eq!(
            rest(
                Some("application/vnd.x+json; charset=utf-8"),
                written.as_bytes()
            ),
            format!(
                r#","datacontenttype":"application/vnd.x+json; charset=utf-8","data":{written}}}"#
            )
        );
        assert_eq!(rest(None, b"null"), r#","data":null}"#);
        assert_eq!(rest(None, b"\n\"text\"\n"), r#","data":"text"}"#);
    }

    #[test]
    fn what_only_claims_to_be_json_is_base64() {
        for wrong in [&b"{\"a\":"[..], b"no json", b" ", b"{} {}", b"\"\xff\""] {
            let base64 = STANDARD.encode(wrong);
            assert_eq!(rest(None, wrong), format!(r#","data_base64":"{base64}"}}"#));
        }
    }

    #[test]
    fn text_is_a_string_and_bytes_are_base64() {
        assert_eq!(
            rest(Some("text/plain"), "Zoë said \"hi\"\r\n\0".as_bytes()),
            r#","datacontenttype":"text/plain","data":"Zoë said \"hi\"\r\n\u0000"}"#
        );
        assert_eq!(
            rest(Some("image/png"), b"\x89PNG"),
            r#","datacontenttype":"image/png","data_base64":"iVBORw=="}"#
        );
    }

    #[test]
    fn no_data_are_no_member() {
        assert_eq!(rest(None, b""), "}");
        assert_eq!(
            rest(Some("application/json"), b""),
            r#","datacontenttype":"application/json"}"#
        );
    }

    #[test]
    fn what_is_written_reads_back_with_the_same_data() {
        let types = [
            None,
            Some("application/json"),
            Some("text/plain"),
            Some("application/octet-stream"),
            Some("nonsense"),
        ];
        let data: [&[u8]; 9] = [
            b"",
            b"{\"a\":[1, 2]}",
            b"\"text\"",
            b"null",
            b"not json",
            b" ",
            "Zoë 🦀\n\x1b[31m".as_bytes(),
            b"\xff\x00",
            &[b'['; 100_000],
        ];
        for content_type in types {
            for data in data {
                let event = event(content_type, data);
                let raw = serde_json::value::to_raw_value(&InJson(&event)).unwrap();
                let read = structured(&raw).unwrap();
                // `null` and no data are the same in that format.
                if data != b"null" || content_type.is_some_and(|text| !is_json(text)) {
                    assert_eq!(read.data(), event.data(), "{raw}");
                }
                // JSON that names no content type is read as having its own.
                if content_type.is_some() {
                    assert_eq!(read.content_type(), content_type, "{raw}");
                }
            }
        }
    }

    #[test]
    fn deeply_nested_json_does_not_overflow_the_stack() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(json(&event(None, deep.as_bytes())).ends_with(&format!(",\"data\":{deep}}}")));
    }
}
