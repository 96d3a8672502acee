//! An event as a message of NATS, per CloudEvents' binding: in binary mode each
//! attribute, the content type included, is a header of its own.

use crate::settings::Settings;
use backhaul_guest::{ContentMode, Event, percent_encoded};
use std::borrow::Cow;
use std::io::Write;

/// Appends the event as it is sent, to be answered on `reply`.
///
/// # Errors
///
/// If the event cannot be sent whatever happens, with nothing appended: a text for the log.
pub(crate) fn append(
    settings: &Settings,
    event: &Event,
    reply: &str,
    max_payload: usize,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    let subject = subject(settings, event)?;
    let id = settings.msg_id.fill(event).map_err(|e| e.to_string())?;
    let mut headers = format!("NATS/1.0\r\nNats-Msg-Id: {}\r\n", percent_encoded(&id));
    let mut header = |name: &str, value: &str| {
        headers.push_str(name);
        headers.push_str(": ");
        headers.push_str(value);
        headers.push_str("\r\n");
    };
    let data = match settings.mode {
        ContentMode::Binary => {
            event.cloudevent_headers(&mut header);
            if let Some(content_type) = &event.content_type {
                header("ce-datacontenttype", &percent_encoded(content_type));
            }
            Cow::Borrowed(&event.data)
        }
        ContentMode::Structured => {
            header("content-type", "application/cloudevents+json");
            let mut json = Vec::with_capacity(event.data.len() + 512);
            event.append_cloudevent_json(&mut json);
            Cow::Owned(json)
        }
    };
    headers.push_str("\r\n");
    let (head, total) = (headers.len(), headers.len() + data.len());
    if total > max_payload {
        return Err(format!(
            "with its headers it has {total} bytes, more than the server takes (its max_payload is {max_payload})"
        ));
    }
    write!(out, "HPUB {subject} {reply} {head} {total}\r\n")
        .expect("writing to a Vec does not fail");
    out.extend_from_slice(headers.as_bytes());
    out.extend_from_slice(&data);
    out.extend_from_slice(b"\r\n");
    Ok(())
}

/// The subject of an event.
///
/// # Errors
///
/// If it lacks an attribute for it, or the result is no subject.
pub(crate) fn subject<'a>(
    settings: &'a Settings,
    event: &'a Event,
) -> Result<Cow<'a, str>, String> {
    let subject = settings.subject.fill(event).map_err(|e| e.to_string())?;
    let is_token = |token: &str| {
        let allowed = |c: char| !c.is_whitespace() && !c.is_control();
        !token.is_empty() && !matches!(token, "*" | ">") && token.chars().all(allowed)
    };
    if subject.len() > MAX_SUBJECT || !subject.split('.').all(is_token) {
        return Err(format!(
            "NATS_SUBJECT makes {subject:?} of it, which is no subject: parts between dots, without spaces, none empty, * or >, \
             {MAX_SUBJECT} bytes at most"
        ));
    }
    Ok(subject)
}

/// The server takes 4 KiB for a line of control, reply and lengths included.
const MAX_SUBJECT: usize = 3000;

#[cfg(test)]
mod tests {
    use super::*;
    use backhaul_guest::{Template, Timestamp};

    fn event() -> Event {
        Event {
            id: "1 2".into(),
            source: "/test".into(),
            event_type: "after:signup".into(),
            subject: None,
            time: Timestamp {
                seconds: 0,
                nanoseconds: 0,
            },
            content_type: Some("text/plain\r\nx: y".into()),
            attributes: vec![],
            data: b"data".to_vec(),
        }
    }

    fn sent(settings: &Settings, event: &Event) -> Result<String, String> {
        let mut out = Vec::new();
        append(settings, event, "in.1", 1000, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn in_binary_mode_every_attribute_is_a_header_and_none_makes_another() {
        let settings = Settings::default();
        let sent = sent(&settings, &event()).unwrap();
        let headers = "NATS/1.0\r\nNats-Msg-Id: /test%0A1%202\r\nce-specversion: 1.0\r\nce-id: 1%202\r\n\
             ce-source: /test\r\nce-type: after:signup\r\nce-time: 1970-01-01T00:00:00Z\r\n\
             ce-datacontenttype: text/plain%0D%0Ax:%20y\r\n\r\n";
        let (head, total) = (headers.len(), headers.len() + 4);
        let expected = format!("HPUB events.after:signup in.1 {head} {total}\r\n{headers}data\r\n");
        assert_eq!(sent, expected);
    }

    #[test]
    fn what_is_no_subject_or_too_large_is_the_events_fault_and_nothing_is_sent() {
        for bad in ["a b", "a..b", "", ".a", "a.*", ">", "a\r\nPUB x", "a\u{85}"] {
            let event = Event {
                event_type: bad.into(),
                ..event()
            };
            let error = sent(&Settings::default(), &event).unwrap_err();
            assert!(error.contains("no subject"), "{error}");
        }
        let settings = Settings {
            subject: Template::parse("NATS_SUBJECT", "{ext.tenant}").unwrap(),
            ..Settings::default()
        };
        assert!(
            sent(&settings, &event())
                .unwrap_err()
                .contains("ext.tenant")
        );
        let large = Event {
            data: vec![0; 1000],
            ..event()
        };
        let error = sent(&Settings::default(), &large).unwrap_err();
        assert!(error.contains("max_payload is 1000"), "{error}");
    }
}
