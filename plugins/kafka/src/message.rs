//! An event as a message, per CloudEvents' binding for Kafka: in binary mode the data
//! are the value and each attribute is a header, in structured mode the value is the
//! event in its JSON format.

use crate::settings::Settings;
use backhaul_guest::{ContentMode, Event, MissingAttribute};
use std::borrow::Cow;

pub(crate) struct Message<'a> {
    event: &'a Event,
    mode: ContentMode,
    pub(crate) key: Option<Cow<'a, str>>,
    pub(crate) value: Cow<'a, [u8]>,
    /// As RFC 3339 writes it, for its header.
    time: Option<String>,
    /// Milliseconds since 1970.
    pub(crate) timestamp: i64,
}

impl<'a> Message<'a> {
    /// # Errors
    ///
    /// If the event lacks an attribute its key needs.
    pub(crate) fn new(settings: &'a Settings, event: &'a Event) -> Result<Self, MissingAttribute> {
        let key = settings.key.fill(event)?;
        let (value, time) = match settings.mode {
            ContentMode::Binary => {
                let time = event.time_rfc3339().map(|time| time.to_string());
                (Cow::Borrowed(event.data.as_slice()), time)
            }
            ContentMode::Structured => {
                let mut json = Vec::with_capacity(event.data.len() + 512);
                event.append_cloudevent_json(&mut json);
                (Cow::Owned(json), None)
            }
        };
        Ok(Self {
            event,
            mode: settings.mode,
            key: Some(key).filter(|key| !key.is_empty()),
            value,
            time,
            timestamp: timestamp(event),
        })
    }

    /// Calls `header` for each header, with its name in two parts, and its value.
    pub(crate) fn headers(&self, mut header: impl FnMut(&str, &str, &str)) {
        let event = self.event;
        if self.mode == ContentMode::Structured {
            header(
                "content-type",
                "",
                "application/cloudevents+json; charset=UTF-8",
            );
            return;
        }
        header("ce_", "specversion", "1.0");
        header("ce_", "id", &event.id);
        header("ce_", "source", &event.source);
        header("ce_", "type", &event.event_type);
        if let Some(subject) = &event.subject {
            header("ce_", "subject", subject);
        }
        if let Some(time) = &self.time {
            header("ce_", "time", time);
        }
        if let Some(content_type) = &event.content_type {
            header("content-type", "", content_type);
        }
        for (name, value) in &event.attributes {
            header("ce_", name, value);
        }
    }
}

/// Kafka has no times before 1970; such an event gets its beginning.
fn timestamp(event: &Event) -> i64 {
    let milliseconds = i64::from(event.time.nanoseconds / 1_000_000);
    let seconds = event.time.seconds.max(0);
    seconds.saturating_mul(1000).saturating_add(milliseconds)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use backhaul_guest::Timestamp;

    pub(crate) fn event() -> Event {
        Event {
            id: "1 ü".into(),
            source: "/test".into(),
            event_type: "after:signup".into(),
            subject: None,
            time: Timestamp {
                seconds: 1_700_000_000,
                nanoseconds: 250_000_000,
            },
            content_type: Some("text/plain".into()),
            attributes: vec![("partitionkey".into(), "ada".into())],
            data: b"data".to_vec(),
        }
    }

    fn headers(message: &Message<'_>) -> Vec<(String, String)> {
        let mut headers = Vec::new();
        message.headers(|a, b, value| headers.push((format!("{a}{b}"), value.to_owned())));
        headers
    }

    #[test]
    fn in_binary_mode_the_data_are_the_value_and_attributes_are_headers_as_they_are() {
        let (settings, event) = (Settings::default(), event());
        let message = Message::new(&settings, &event).unwrap();
        assert_eq!(message.key.as_deref(), Some("ada"));
        assert_eq!(&*message.value, b"data");
        assert_eq!(message.timestamp, 1_700_000_000_250);
        let expected = [
            ("ce_specversion", "1.0"),
            ("ce_id", "1 ü"),
            ("ce_source", "/test"),
            ("ce_type", "after:signup"),
            ("ce_time", "2023-11-14T22:13:20.25Z"),
            ("content-type", "text/plain"),
            ("ce_partitionkey", "ada"),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(headers(&message), expected);
    }

    #[test]
    fn in_structured_mode_the_event_is_the_value() {
        let settings = Settings {
            mode: ContentMode::Structured,
            ..Settings::default()
        };
        let event = event();
        let message = Message::new(&settings, &event).unwrap();
        assert!(message.value.starts_with(b"{\"specversion\":\"1.0\""));
        let expected = "application/cloudevents+json; charset=UTF-8";
        assert_eq!(
            headers(&message),
            [("content-type".into(), expected.into())]
        );
    }

    #[test]
    fn an_event_without_a_key_has_none_and_a_time_before_1970_is_its_beginning() {
        let (settings, mut event) = (Settings::default(), event());
        event.attributes.clear();
        event.time.seconds = -5;
        event.time.nanoseconds = 0;
        let message = Message::new(&settings, &event).unwrap();
        assert!(message.key.is_none());
        assert_eq!(message.timestamp, 0);
    }
}
