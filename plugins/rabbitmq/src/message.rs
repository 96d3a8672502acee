//! An event as a message: CloudEvents' binary mode in AMQP 0-9-1.
//!
//! The data is the body, `datacontenttype` the property `content-type`, and each
//! other attribute a header with a prefix, as in CloudEvents' binding for AMQP 1.0.
//! The properties `message-id`, `type` and `timestamp` repeat what consumers of
//! RabbitMQ look for there, where it fits.

use crate::session::{CHANNEL, Session};
use crate::settings::{SHORT_STRING, Settings};
use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::basic::{AMQPMethod, AMQPProperties, Publish};
use amq_protocol::protocol::{AMQPClass, BasicProperties};
use amq_protocol::types::{AMQPValue, FieldTable, ShortString};
use backhaul_guest::Event;

/// The number AMQP gives the class of methods that carry messages.
const BASIC: u16 = 60;

/// What RabbitMQ calls a message it writes to disk, and one it does not.
const PERSISTENT: u8 = 2;
const TRANSIENT: u8 = 1;

impl Settings {
    /// Puts the event's frames to be sent, or sends them if they are large.
    ///
    /// # Errors
    ///
    /// Why this event can never be a message; nothing was put then.
    pub(crate) fn put_message(&self, event: &Event, session: &mut Session) -> Result<(), String> {
        let publish = AMQPMethod::Publish(self.publish(event)?);
        let header = AMQPContentHeader {
            class_id: BASIC,
            body_size: event.data.len() as u64,
            properties: self.properties(event)?,
        };
        let before = session.frames.outgoing();
        session.put_method(CHANNEL, AMQPClass::Basic(publish));
        let header = AMQPFrame::Header(CHANNEL, BASIC, Box::new(header));
        let size = session.frames.put(&header);
        let largest = session.frames.largest();
        if size > largest {
            session.frames.take_back(before);
            return Err(format!(
                "its attributes take {size} bytes, RabbitMQ's frames {largest} (its setting frame_max, at most 131072)"
            ));
        }
        for part in event.data.chunks(session.largest_payload()) {
            session.frames.put(&AMQPFrame::Body(CHANNEL, part.to_vec()));
            session.frames.send_if_much();
        }
        Ok(())
    }

    fn publish(&self, event: &Event) -> Result<Publish, String> {
        let key = self
            .routing_key
            .fill(event)
            .map_err(|error| error.to_string())?;
        Ok(Publish {
            exchange: self.exchange.name.as_str().into(),
            routing_key: short("routing key", &key)?,
            mandatory: self.mandatory,
            immediate: false,
        })
    }

    fn properties(&self, event: &Event) -> Result<AMQPProperties, String> {
        let mut properties = BasicProperties::default()
            .with_headers(self.headers(event)?)
            .with_delivery_mode(if self.persistent {
                PERSISTENT
            } else {
                TRANSIENT
            });
        if let Some(content_type) = &event.content_type {
            properties = properties.with_content_type(short("content type", content_type)?);
        }
        // What does not fit these is in the headers all the same.
        if let Ok(id) = short("id", &event.id) {
            properties = properties.with_message_id(id);
        }
        if let Ok(event_type) = short("type", &event.event_type) {
            properties = properties.with_type(event_type);
        }
        if let Ok(seconds) = u64::try_from(event.time.seconds) {
            properties = properties.with_timestamp(seconds);
        }
        Ok(properties)
    }

    fn headers(&self, event: &Event) -> Result<FieldTable, String> {
        let mut headers = FieldTable::default();
        let mut add = |name: &str, value: &str| {
            let name = short(
                "name of an attribute",
                &format!("{}{name}", self.header_prefix),
            )?;
            headers.insert(name, AMQPValue::LongString(value.into()));
            Ok::<(), String>(())
        };
        add("specversion", "1.0")?;
        add("id", &event.id)?;
        add("source", &event.source)?;
        add("type", &event.event_type)?;
        if let Some(subject) = &event.subject {
            add("subject", subject)?;
        }
        if let Some(time) = event.time_rfc3339() {
            add("time", &time.to_string())?;
        }
        for (name, value) in &event.attributes {
            add(name, value)?;
        }
        Ok(headers)
    }

    /// Whether a message that came back is this event: the same id and source,
    /// sent with the same routing key.
    pub(crate) fn is_message_of(
        &self,
        event: &Event,
        key: &str,
        properties: &AMQPProperties,
    ) -> bool {
        let header = |name: &str| {
            let headers = properties.headers().as_ref()?.inner();
            headers.get(format!("{}{name}", self.header_prefix).as_str())
        };
        let is = |name: &str, value: &str| matches!(header(name), Some(AMQPValue::LongString(text)) if text.as_bytes() == value.as_bytes());
        is("id", &event.id)
            && is("source", &event.source)
            && self.routing_key.fill(event).is_ok_and(|own| own == key)
    }
}

/// AMQP's codec does not check the length of its short strings.
fn short(what: &str, text: &str) -> Result<ShortString, String> {
    if text.len() > SHORT_STRING {
        let length = text.len();
        return Err(format!(
            "its {what} has {length} bytes, AMQP takes {SHORT_STRING}"
        ));
    }
    Ok(text.into())
}
