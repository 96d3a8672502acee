//! An event as the request that carries it.

use crate::settings::Settings;
use crate::signature;
use backhaul_guest::{ContentMode, Event, percent_encoded};
use http::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap};
use http::{HeaderName, HeaderValue, Request};
use std::time::{SystemTime, UNIX_EPOCH};

/// The most bytes of headers, names and values. The host takes 32 KiB with its
/// own for each header, most servers 8 to 16 KiB.
const MAX_HEADERS: usize = 24 << 10;

/// The request for an event, signed with the time of now.
///
/// # Errors
///
/// If the event cannot be sent this way whatever the settings: a text for the log.
pub(crate) fn of(settings: &Settings, event: &Event) -> Result<Request<Vec<u8>>, String> {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = seconds.map_or(0, |time| time.as_secs());
    let (mut headers, body) = match settings.mode {
        ContentMode::Binary => (binary_headers(event)?, event.data.clone()),
        ContentMode::Structured => structured(event),
    };
    headers.insert(CONTENT_LENGTH, body.len().into());
    sign(settings, event, seconds, &body, &mut headers)?;
    if let Some(authorization) = &settings.authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    let size = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let size: usize = headers.iter().map(size).sum();
    if size > MAX_HEADERS {
        return Err(format!(
            "its attributes take {size} bytes of headers, more than {MAX_HEADERS}; \
             WEBHOOK_MODE = \"structured\" has them in the body"
        ));
    }
    let mut request = Request::post(settings.url.clone())
        .body(body)
        .map_err(|error| error.to_string())?;
    *request.headers_mut() = headers;
    Ok(request)
}

fn binary_headers(event: &Event) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    let mut fault = None;
    event.cloudevent_headers(|name, value| {
        match (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            (Ok(name), Ok(value)) => drop(headers.append(name, value)),
            _ => fault = Some(format!("its attribute in {name} cannot be a header")),
        }
    });
    if let Some(content_type) = &event.content_type {
        let value = HeaderValue::try_from(content_type);
        let value = value.map_err(|_| "its datacontenttype cannot be a header".to_owned())?;
        headers.insert(CONTENT_TYPE, value);
    }
    fault.map_or(Ok(headers), Err)
}

fn structured(event: &Event) -> (HeaderMap, Vec<u8>) {
    let json = HeaderValue::from_static("application/cloudevents+json; charset=UTF-8");
    let mut body = Vec::with_capacity(event.data.len() + 512);
    event.append_cloudevent_json(&mut body);
    (HeaderMap::from_iter([(CONTENT_TYPE, json)]), body)
}

/// Also without a secret the id is there, for receivers to tell repeats by.
fn sign(
    settings: &Settings,
    event: &Event,
    seconds: u64,
    body: &[u8],
    headers: &mut HeaderMap,
) -> Result<(), String> {
    let id = percent_encoded(&event.id);
    let unfit = |_| "its id cannot be a header".to_owned();
    headers.insert("webhook-id", HeaderValue::try_from(&*id).map_err(unfit)?);
    headers.insert("webhook-timestamp", seconds.into());
    if !settings.keys.is_empty() {
        let signatures = signature::sign(&settings.keys, &id, seconds, body);
        let value = HeaderValue::try_from(signatures).expect("Base64 and spaces fit a header");
        headers.insert("webhook-signature", value);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use backhaul_guest::Timestamp;

    fn event() -> Event {
        Event {
            id: "ü.1".into(),
            source: "/test".into(),
            event_type: "after:signup".into(),
            subject: None,
            time: Timestamp {
                seconds: 0,
                nanoseconds: 0,
            },
            content_type: Some("application/json".into()),
            attributes: vec![],
            data: b"{}".to_vec(),
        }
    }

    fn settings(mode: ContentMode) -> Settings {
        Settings {
            mode,
            ..Settings::to("http://localhost/hook?key=1").expect("a URL")
        }
    }

    #[test]
    fn binary_mode_has_attributes_in_headers_and_the_data_as_they_are() {
        let request = of(&settings(ContentMode::Binary), &event()).unwrap();
        assert_eq!(request.uri().path_and_query().unwrap(), "/hook?key=1");
        assert_eq!(request.headers()["ce-id"], "%C3%BC.1");
        assert_eq!(request.headers()["webhook-id"], "%C3%BC.1");
        assert_eq!(request.headers()["content-type"], "application/json");
        assert_eq!(request.headers()["content-length"], "2");
        assert!(!request.headers().contains_key("webhook-signature"));
        assert_eq!(request.body(), b"{}");
    }

    #[test]
    fn structured_mode_has_the_event_in_the_body() {
        let request = of(&settings(ContentMode::Structured), &event()).unwrap();
        let content_type = request.headers()["content-type"].to_str().unwrap();
        assert!(content_type.starts_with("application/cloudevents+json"));
        assert!(request.body().starts_with(b"{\"specversion\":\"1.0\""));
        assert!(!request.headers().contains_key("ce-id"));
    }

    #[test]
    fn what_no_header_can_hold_is_the_events_fault() {
        let mut large = event();
        large.attributes = vec![("large".into(), "x".repeat(30 << 10))];
        let error = of(&settings(ContentMode::Binary), &large).unwrap_err();
        assert!(error.contains("structured"), "{error}");
        assert!(of(&settings(ContentMode::Structured), &large).is_ok());

        let mut split = event();
        split.content_type = Some("text/plain\r\nx-injected: 1".into());
        assert!(of(&settings(ContentMode::Binary), &split).is_err());
    }
}
