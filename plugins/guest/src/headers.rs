//! An event's attributes as header fields, for CloudEvents' binary content mode
//! over HTTP and NATS: the data are the body, the attributes stand beside it.

use crate::Event;
use std::borrow::Cow;
use std::fmt::Write;

impl Event {
    /// Calls `field` with the name and value of each header that carries an
    /// attribute, `ce-specversion` first. Values are in the percent-encoding that
    /// CloudEvents asks for, so they are printable ASCII without spaces.
    ///
    /// The content type is not among them: it has a header of the transport's own
    /// and stands there as it is. A time RFC 3339 has no notation for is left out.
    pub fn cloudevent_headers(&self, mut field: impl FnMut(&str, &str)) {
        field("ce-specversion", "1.0");
        field("ce-id", &percent_encoded(&self.id));
        field("ce-source", &percent_encoded(&self.source));
        field("ce-type", &percent_encoded(&self.event_type));
        if let Some(subject) = &self.subject {
            field("ce-subject", &percent_encoded(subject));
        }
        if let Some(time) = self.time_rfc3339() {
            field("ce-time", &time.to_string());
        }
        for (name, value) in &self.attributes {
            field(&format!("ce-{name}"), &percent_encoded(value));
        }
    }
}

/// The text as the value of a header that carries an attribute: each byte of it
/// as `%` and two digits, but for printable ASCII that is no space, quote or `%`.
pub fn percent_encoded(text: &str) -> Cow<'_, str> {
    if text.bytes().all(is_plain) {
        return text.into();
    }
    let mut encoded = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        if is_plain(byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").expect("writing to a String does not fail");
        }
    }
    encoded.into()
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'%')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::event;

    #[test]
    fn every_attribute_has_a_header_and_the_content_type_has_none() {
        let event = Event {
            subject: Some("Zoë \"Z\"".into()),
            content_type: Some("text/plain".into()),
            attributes: vec![("traceparent".into(), "100%\r\n€".into())],
            ..event()
        };
        let mut headers = Vec::new();
        event.cloudevent_headers(|name, value| headers.push(format!("{name}: {value}")));
        assert_eq!(
            headers,
            [
                "ce-specversion: 1.0",
                "ce-id: 1",
                "ce-source: /test",
                "ce-type: after:signup",
                "ce-subject: Zo%C3%AB%20%22Z%22",
                "ce-time: 2024-05-01T12:00:00Z",
                "ce-traceparent: 100%25%0D%0A%E2%82%AC",
            ]
        );
    }
}
