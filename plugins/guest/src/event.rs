//! Helpers of an event: its time as text, its attributes by name, its JSON form.

use crate::{Event, cloudevent};
use std::fmt;

impl Event {
    /// Appends the event in the CloudEvents 1.0 JSON format to `out`, on one
    /// line and without a line feed at its end.
    ///
    /// The data becomes, depending on its content type,
    /// - the JSON value itself if the content type is JSON (`*/json`, `*/*+json`
    ///   or none) and the data is valid JSON. It is copied digit for digit;
    ///   only line breaks between its tokens are left out;
    /// - a JSON string if the content type is `text/*` and the data valid UTF-8;
    /// - `data_base64` otherwise;
    /// - nothing if it is empty.
    ///
    /// Values of extension attributes are written as strings. A time RFC 3339
    /// has no notation for is left out.
    pub fn append_cloudevent_json(&self, out: &mut Vec<u8>) {
        cloudevent::append(self, out);
    }

    /// The time in UTC as RFC 3339 writes it, for instance
    /// `2024-05-01T12:00:00.25Z`, with as many decimals as it needs.
    ///
    /// `None` outside the years 0 to 9999, for which RFC 3339 has no notation
    /// (and for the last 26 hours of 9999, which would be in the year 10000
    /// elsewhere on Earth).
    pub fn time_rfc3339(&self) -> Option<Rfc3339> {
        // 0000-01-01T00:00:00Z, the earliest RFC 3339 can write.
        const EARLIEST: i64 = -62_167_219_200;
        if self.time.seconds < EARLIEST {
            return None;
        }
        let nanoseconds = i32::try_from(self.time.nanoseconds).ok()?;
        jiff::Timestamp::new(self.time.seconds, nanoseconds)
            .ok()
            .map(Rfc3339)
    }

    /// The value of the context attribute `dataschema` or of an extension.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A time that displays as RFC 3339 writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rfc3339(jiff::Timestamp);

impl fmt::Display for Rfc3339 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::Timestamp;

    /// An event with the required attributes only.
    pub(crate) fn event() -> Event {
        Event {
            id: "1".into(),
            source: "/test".into(),
            event_type: "after:signup".into(),
            subject: None,
            time: Timestamp {
                seconds: 1_714_564_800,
                nanoseconds: 0,
            },
            content_type: None,
            attributes: Vec::new(),
            data: Vec::new(),
        }
    }

    fn time(seconds: i64, nanoseconds: u32) -> Option<String> {
        let time = Timestamp {
            seconds,
            nanoseconds,
        };
        let event = Event { time, ..event() };
        event.time_rfc3339().map(|time| time.to_string())
    }

    #[test]
    fn a_time_is_written_in_utc_with_the_decimals_it_needs() {
        for (seconds, nanoseconds, text) in [
            (1_714_564_800, 0, "2024-05-01T12:00:00Z"),
            (1_714_564_800, 250_000_000, "2024-05-01T12:00:00.25Z"),
            (1_714_564_800, 1, "2024-05-01T12:00:00.000000001Z"),
            (-1, 999_000_000, "1969-12-31T23:59:59.999Z"),
            (-62_167_219_200, 0, "0000-01-01T00:00:00Z"),
        ] {
            assert_eq!(time(seconds, nanoseconds).as_deref(), Some(text));
        }
    }

    #[test]
    fn a_time_rfc3339_cannot_write_is_none() {
        for (seconds, nanoseconds) in [
            (-62_167_219_201, 999_999_999),
            (i64::MIN, 0),
            (i64::MAX, 0),
            (0, 1_000_000_000),
            (0, u32::MAX),
        ] {
            assert_eq!(time(seconds, nanoseconds), None);
        }
    }

    #[test]
    fn an_attribute_is_found_by_its_name() {
        let mut event = event();
        event
            .attributes
            .push(("traceparent".into(), "00-1-2-01".into()));
        assert_eq!(event.attribute("traceparent"), Some("00-1-2-01"));
        assert_eq!(event.attribute("tracestate"), None);
    }
}
