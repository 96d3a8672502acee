//! CloudEvents from HTTP requests: binary, structured and batched mode.
//!
//! Follows the CloudEvents 1.0 HTTP binding and JSON format. The whole request
//! is decoded before any of it is used, so one bad event refuses its batch. An
//! event that is shown is written in the same JSON format (`encode`).

#[cfg(feature = "plugins")]
mod encode;
mod json;

use std::borrow::Cow;

use axum::http::{HeaderMap, StatusCode};
use bytes::Bytes;
use percent_encoding::percent_decode_str;
use serde_json::value::RawValue;

use super::problem::Problem;
use crate::event::{Event, EventBuilder, EventError};
#[cfg(feature = "plugins")]
pub(super) use encode::InJson;
#[cfg(feature = "cli")]
pub(crate) use json::is_json;

const STRUCTURED: &str = "application/cloudevents+json";
const BATCHED: &str = "application/cloudevents-batch+json";

/// Reads the events of a request in any of the three content modes.
///
/// An embedding program with an HTTP server of its own can hand them to its
/// bus. A body of any size is read; whoever calls bounds it.
///
/// # Errors
///
/// Says what is wrong with the request, and with which event of a batch; then
/// none of it is to be used.
pub fn decode(headers: &HeaderMap, body: Bytes) -> Result<Vec<Event>, Problem> {
    let content_type = match headers.get("content-type") {
        None => None,
        Some(value) => Some(
            value
                .to_str()
                .map_err(|_| bad("the content-type is not ASCII".into()))?,
        ),
    };
    let (media_type, parameters) = match content_type {
        None => (String::new(), ""),
        Some(text) => {
            let (media_type, parameters) = text.split_once(';').unwrap_or((text, ""));
            (media_type.trim().to_ascii_lowercase(), parameters)
        }
    };
    if !media_type.starts_with("application/cloudevents") {
        return Ok(vec![binary(headers, content_type, body).map_err(bad)?]);
    }
    check_charset(parameters)?;
    match media_type.as_str() {
        STRUCTURED => {
            let raw = serde_json::from_slice(&body);
            let raw = raw.map_err(|error| bad(format!("the body is not JSON: {error}")))?;
            Ok(vec![json::structured(raw).map_err(bad)?])
        }
        BATCHED => {
            let raws: Result<Vec<&RawValue>, _> = serde_json::from_slice(&body);
            let raws =
                raws.map_err(|error| bad(format!("the body is not a JSON array: {error}")))?;
            let event =
                |(index, raw)| json::structured(raw).map_err(|problem| bad(problem).at(index));
            raws.into_iter().enumerate().map(event).collect()
        }
        _ => Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            format!(
                "the event format {media_type} is not supported; use {STRUCTURED}, {BATCHED}, \
             or binary mode (attributes in ce- headers, data in the body)"
            ),
        )),
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(StatusCode::BAD_REQUEST, detail)
}

fn check_charset(parameters: &str) -> Result<(), Problem> {
    for parameter in parameters.split(';') {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        let value = value.trim().trim_matches('"');
        if name.trim().eq_ignore_ascii_case("charset") && !value.eq_ignore_ascii_case("utf-8") {
            let detail = format!("the charset {value} is not supported; events in JSON are UTF-8");
            return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
        }
    }
    Ok(())
}

/// Binary mode: attributes in headers, the body is the data.
fn binary(headers: &HeaderMap, content_type: Option<&str>, body: Bytes) -> Result<Event, String> {
    if !headers.contains_key("ce-specversion") {
        return Err(format!(
            "it is not a CloudEvent: there is no ce-specversion header, and the content-type is \
             neither {STRUCTURED} nor {BATCHED}"
        ));
    }
    let mut attributes = Attributes::default();
    for name in headers.keys() {
        let Some(attribute) = name.as_str().strip_prefix("ce-") else {
            continue;
        };
        let mut values = headers.get_all(name).iter();
        let (Some(value), None) = (values.next(), values.next()) else {
            return Err(format!("the header {name} is there twice"));
        };
        let value =
            header_text(value.as_bytes()).map_err(|why| format!("the header {name} {why}"))?;
        attributes.set(attribute, value)?;
    }
    if let Some(content_type) = content_type {
        attributes.content_type = Some(content_type.to_owned());
    }
    attributes.build(body)
}

/// A header's value as the binding encodes it: perhaps quoted, and with
/// percent-encoded UTF-8.
fn header_text(value: &[u8]) -> Result<String, String> {
    let text = str::from_utf8(value).map_err(|_| "is not UTF-8")?.trim();
    let text = match text.strip_prefix('"') {
        None => Cow::Borrowed(text),
        Some(quoted) => {
            let quoted = quoted
                .strip_suffix('"')
                .ok_or("opens a quote and does not close it")?;
            let mut unquoted = String::with_capacity(quoted.len());
            let mut chars = quoted.chars();
            while let Some(c) = chars.next() {
                unquoted.push(if c == '\\' {
                    chars.next().unwrap_or(c)
                } else {
                    c
                });
            }
            Cow::Owned(unquoted)
        }
    };
    match percent_decode_str(&text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err("has percent-encoded bytes that are not UTF-8".to_owned()),
    }
}

/// The attributes of one event, as they come in.
#[derive(Default)]
struct Attributes {
    specversion: Option<String>,
    id: Option<String>,
    source: Option<String>,
    event_type: Option<String>,
    subject: Option<String>,
    time: Option<String>,
    content_type: Option<String>,
    others: Vec<(String, String)>,
}

impl Attributes {
    fn set(&mut self, name: &str, value: String) -> Result<(), String> {
        let slot = match name {
            "specversion" => &mut self.specversion,
            "id" => &mut self.id,
            "source" => &mut self.source,
            "type" => &mut self.event_type,
            "subject" => &mut self.subject,
            "time" => &mut self.time,
            "datacontenttype" => &mut self.content_type,
            _ => {
                self.others.push((name.to_owned(), value));
                return Ok(());
            }
        };
        match slot.replace(value) {
            None => Ok(()),
            Some(_) => Err(format!("attribute `{name}` is there twice")),
        }
    }

    fn build(self, data: Bytes) -> Result<Event, String> {
        match self.specversion.as_deref() {
            Some("1.0") => {}
            None => return Err(EventError::Missing("specversion").to_string()),
            Some(other) => {
                let other: String = other.chars().take(16).collect();
                return Err(format!(
                    "CloudEvents {other:?} is not supported; specversion must be 1.0"
                ));
            }
        }
        let required = |value: Option<String>, name| value.ok_or(EventError::Missing(name));
        let build = || -> Result<EventBuilder, EventError> {
            let mut builder = Event::builder(required(self.event_type, "type")?)
                .id(required(self.id, "id")?)
                .source(required(self.source, "source")?)
                .data(data);
            if let Some(subject) = self.subject {
                builder = builder.subject(subject);
            }
            if let Some(content_type) = self.content_type {
                builder = builder.content_type(content_type);
            }
            if let Some(time) = self.time {
                let parsed = time.parse().map_err(|_| EventError::Invalid {
                    attribute: "time".to_owned(),
                    reason: "is not a time like 2026-01-31T12:00:00Z (RFC 3339)".to_owned(),
                })?;
                builder = builder.time(parsed);
            }
            Ok(self
                .others
                .into_iter()
                .fold(builder, |builder, (name, value)| {
                    builder.attribute(name, value)
                }))
        };
        build()
            .and_then(EventBuilder::build)
            .map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&str, &str)], body: &str) -> Result<Vec<Event>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: axum::http::HeaderName = name.parse().unwrap();
            map.append(
                name,
                axum::http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        decode(&map, Bytes::copy_from_slice(body.as_bytes()))
            .map_err(|problem| format!("{problem:?}"))
    }

    fn from_json(json: &str) -> Result<Event, String> {
        let events = request(
            &[(
                "content-type",
                "application/cloudevents+json; charset=UTF-8",
            )],
            json,
        );
        events.map(|mut events| events.remove(0))
    }

    const HEAD: &str = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;

    #[test]
    fn binary_mode_takes_attributes_from_headers_and_data_from_the_body() {
        let events = request(
            &[
                ("ce-specversion", "1.0"),
                ("CE-ID", "a%20b%E2%82%AC"),
                ("ce-source", "\"/quoted\\\"source\""),
                ("ce-type", "after:signup"),
                ("ce-time", "2026-01-31T12:00:00.5+01:00"),
                ("ce-subject", "ada"),
                ("ce-traceparent", "00-1"),
                ("content-type", "text/plain"),
            ],
            "hello",
        )
        .unwrap();
        let event = &events[0];
        assert_eq!(event.id(), "a b€");
        assert_eq!(event.source(), "/quoted\"source");
        assert_eq!(event.event_type(), "after:signup");
        assert_eq!(event.time().to_string(), "2026-01-31T11:00:00.5Z");
        assert_eq!(event.subject(), Some("ada"));
        assert_eq!(
            event.attributes(),
            [("traceparent".to_owned(), "00-1".to_owned())]
        );
        assert_eq!(
            (event.content_type(), &event.data()[..]),
            (Some("text/plain"), &b"hello"[..])
        );
    }

    #[test]
    fn structured_mode_keeps_json_data_as_it_was_written() {
        let event = from_json(&format!(
            r#"{{{HEAD},"data": {{ "a" : 1.0 }},"ext1":true,"ext2":-7,"ext3":null,"dataschema":"u"}}"#
        ))
        .unwrap();
        assert_eq!(&event.data()[..], br#"{ "a" : 1.0 }"#);
        assert_eq!(event.content_type(), Some("application/json"));
        let attributes: Vec<_> = event
            .attributes()
            .iter()
            .map(|(k, v)| format!("{k}={v}"))
            .collect();
        assert_eq!(attributes, ["ext1=true", "ext2=-7", "dataschema=u"]);
    }

    #[test]
    fn data_is_text_or_bytes_as_the_json_format_says() {
        let data = |members: &str| {
            from_json(&format!("{{{HEAD},{members}}}")).map(|event| event.data().to_vec())
        };
        assert_eq!(
            data(r#""datacontenttype":"text/plain","data":"h\u00e9""#).unwrap(),
            "hé".as_bytes()
        );
        assert_eq!(data(r#""data":"hé""#).unwrap(), "\"hé\"".as_bytes());
        assert_eq!(
            data(r#""datacontenttype":"application/x+json","data":"x""#).unwrap(),
            b"\"x\""
        );
        assert_eq!(data(r#""data_base64":"AAH/""#).unwrap(), [0, 1, 255]);
        assert_eq!(data(r#""subject":"no data""#).unwrap(), b"");
        assert_eq!(data(r#""data":null"#).unwrap(), b"");
        assert!(
            data(r#""data":1,"data_base64":"AAH/""#)
                .unwrap_err()
                .contains("both")
        );
        assert!(
            data(r#""data_base64":"***""#)
                .unwrap_err()
                .contains("not Base64")
        );
        assert!(
            data(r#""data_base64":5"#)
                .unwrap_err()
                .contains("not a string")
        );
    }

    #[test]
    fn a_batch_names_its_bad_event() {
        let batch = |json: &str| request(&[("content-type", BATCHED)], json);
        let good = format!("{{{HEAD}}}");
        assert_eq!(batch("[]").unwrap().len(), 0);
        assert_eq!(batch(&format!("[{good},{good}]")).unwrap().len(), 2);
        let error = batch(&format!("[{good},{{}}]")).unwrap_err();
        assert!(
            error.contains("event 1 of the batch") && error.contains("specversion"),
            "{error}"
        );
        assert!(batch(&good).unwrap_err().contains("not a JSON array"));
        assert!(
            batch(&format!("[{good},1]"))
                .unwrap_err()
                .contains("event 1 of the batch")
        );
    }

    #[test]
    fn what_is_not_a_cloudevent_is_refused_with_the_reason() {
        let head = [
            ("ce-specversion", "1.0"),
            ("ce-id", "1"),
            ("ce-source", "/s"),
            ("ce-type", "t"),
        ];
        let without = |name: &str| {
            let headers: Vec<_> = head.iter().copied().filter(|(n, _)| *n != name).collect();
            request(&headers, "").unwrap_err()
        };
        assert!(without("ce-specversion").contains("no ce-specversion header"));
        assert!(without("ce-id").contains("`id` is missing"));
        assert!(without("ce-source").contains("`source` is missing"));
        assert!(without("ce-type").contains("`type` is missing"));
        let with = |name, value| {
            let mut headers = head.to_vec();
            headers.push((name, value));
            request(&headers, "").unwrap_err()
        };
        assert!(with("ce-id", "2").contains("ce-id is there twice"));
        assert!(with("ce-time", "yesterday").contains("`time` is not a time like"));
        assert!(with("ce-ext", "%FF").contains("not UTF-8"));
        assert!(with("ce-ext", "\"open").contains("opens a quote"));
        assert!(with("ce-bad_name", "x").contains("`bad_name` is not a name"));
        assert!(with("ce-ext", "a%0Ab").contains("U+000A"));
        assert!(with("content-type", "application/cloudevents+avro").contains("not supported"));
        assert!(
            with(
                "content-type",
                "application/cloudevents+json; charset=latin1"
            )
            .contains("latin1")
        );

        for (json, problem) in [
            ("", "not JSON"),
            ("{", "not JSON"),
            ("[]", "not a CloudEvent"),
            ("\"\\ud800\"", "not a CloudEvent"),
            (r#"{"specversion":"0.3"}"#, "specversion must be 1.0"),
            (
                r#"{"specversion":1.0}"#,
                "`specversion` is not a valid string",
            ),
            (&format!(r#"{{{HEAD},"id":"2"}}"#), "`id` is there twice"),
            (
                &format!(r#"{{{HEAD},"subject":5}}"#),
                "`subject` is not a valid string",
            ),
            (&format!(r#"{{{HEAD},"ext":1.5}}"#), "`ext` is not a string"),
            (
                &format!(r#"{{{HEAD},"ext":99999999999}}"#),
                "`ext` is not a string",
            ),
            (
                &format!(r#"{{{HEAD},"ext":{{}}}}"#),
                "`ext` is not a string",
            ),
            (&format!(r#"{{{HEAD},"Ext":"x"}}"#), "`Ext` is not a name"),
            (
                &format!(r#"{{{HEAD},"subject":"\ud800"}}"#),
                "`subject` is not a valid string",
            ),
            (
                &format!(r#"{{{HEAD},"data":{}}}"#, "[".repeat(100_000)),
                "not JSON",
            ),
        ] {
            let error = from_json(json).unwrap_err();
            assert!(error.contains(problem), "{json}: {error}");
        }
    }
}
