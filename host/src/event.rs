//! The event: what the bus carries. Its attributes are those of CloudEvents 1.0.
//!
//! An [`Event`] is checked when it is built and never changes afterwards, so
//! whoever holds one may rely on it. How events are written on the wire is not
//! decided here (see `http` and the backends).

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

/// The `source` of an event whose builder names none.
pub const DEFAULT_SOURCE: &str = "backhaul";

/// The most extension attributes one event may have.
///
/// Bounds what a producer can make every backend carry for one event beside
/// its data; the CloudEvents extensions in use are a handful.
pub const MAX_ATTRIBUTES: usize = 64;

/// An event with the attributes of CloudEvents 1.0.
///
/// Cloning is cheap (a reference count); the clones share everything.
#[derive(Clone)]
pub struct Event(Arc<Inner>);

struct Inner {
    id: Id,
    source: Cow<'static, str>,
    event_type: Cow<'static, str>,
    subject: Option<String>,
    time: Timestamp,
    content_type: Option<Cow<'static, str>>,
    attributes: Vec<(String, String)>,
    data: Bytes,
}

/// An id that was made here stays in place; only a given one is on the heap.
enum Id {
    Made([u8; uuid::fmt::Hyphenated::LENGTH]),
    Given(Box<str>),
}

impl Event {
    /// An event of `event_type` with `data` as it is, an id of its own
    /// (UUIDv7), the time of now, and the source [`DEFAULT_SOURCE`].
    ///
    /// # Errors
    ///
    /// If the type is empty or holds a control character.
    pub fn new(
        event_type: impl Into<Cow<'static, str>>,
        data: impl Into<Bytes>,
    ) -> Result<Event, EventError> {
        Event::builder(event_type).data(data).build()
    }

    /// An event with `payload` written as JSON, content type
    /// `application/json`; otherwise like [`Event::new`].
    ///
    /// # Errors
    ///
    /// As [`Event::new`], and if serde cannot write the payload as JSON.
    pub fn json<T: Serialize + ?Sized>(
        event_type: impl Into<Cow<'static, str>>,
        payload: &T,
    ) -> Result<Event, EventError> {
        Event::builder(event_type).json(payload)?.build()
    }

    /// Starts an event of `event_type`; what is not set gets the defaults of
    /// [`Event::new`].
    pub fn builder(event_type: impl Into<Cow<'static, str>>) -> EventBuilder {
        EventBuilder {
            id: None,
            source: Cow::Borrowed(DEFAULT_SOURCE),
            event_type: event_type.into(),
            subject: None,
            time: None,
            content_type: None,
            attributes: Vec::new(),
            data: Bytes::new(),
        }
    }

    /// CloudEvents `id`. The same over every try of every delivery.
    pub fn id(&self) -> &str {
        match &self.0.id {
            Id::Made(text) => str::from_utf8(text).expect("a formatted UUID is ASCII"),
            Id::Given(text) => text,
        }
    }

    /// CloudEvents `source`.
    pub fn source(&self) -> &str {
        &self.0.source
    }

    /// CloudEvents `type`, for instance `after:signup`.
    pub fn event_type(&self) -> &str {
        &self.0.event_type
    }

    /// CloudEvents `subject`.
    pub fn subject(&self) -> Option<&str> {
        self.0.subject.as_deref()
    }

    /// CloudEvents `time`; when the event was built if nobody set it.
    pub fn time(&self) -> Timestamp {
        self.0.time
    }

    /// CloudEvents `datacontenttype`.
    pub fn content_type(&self) -> Option<&str> {
        self.0.content_type.as_deref()
    }

    /// The other context attributes (`dataschema` and extensions), each name
    /// once, in the order given.
    pub fn attributes(&self) -> &[(String, String)] {
        &self.0.attributes
    }

    /// The payload, byte for byte.
    pub fn data(&self) -> &Bytes {
        &self.0.data
    }

    /// The payload as a value read from JSON.
    ///
    /// # Errors
    ///
    /// If the data is not JSON or does not fit `T`.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0.data)
    }

    /// About how many bytes the event keeps in memory: what queues count.
    pub(crate) fn weight(&self) -> usize {
        let inner = &*self.0;
        let attributes: usize = inner
            .attributes
            .iter()
            .map(|(k, v)| k.len() + v.len() + 48)
            .sum();
        size_of::<Inner>()
            + self.id().len()
            + inner.content_type.as_ref().map_or(0, |text| text.len())
            + inner.event_type.len()
            + inner.source.len()
            + inner.subject.as_ref().map_or(0, String::len)
            + attributes
            + inner.data.len()
    }
}

/// Shows the attributes, and of the data only its length: payloads are often
/// personal and do not belong in a log.
impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("id", &self.id())
            .field("source", &self.source())
            .field("type", &self.event_type())
            .field("subject", &self.subject())
            .field("time", &self.time())
            .field("content_type", &self.content_type())
            .field("attributes", &self.attributes())
            .field("data", &format_args!("{} bytes", self.data().len()))
            .finish()
    }
}

/// Builds an [`Event`]; made by [`Event::builder`].
#[derive(Clone, Debug)]
#[must_use]
pub struct EventBuilder {
    id: Option<String>,
    source: Cow<'static, str>,
    event_type: Cow<'static, str>,
    subject: Option<String>,
    time: Option<Timestamp>,
    content_type: Option<Cow<'static, str>>,
    attributes: Vec<(String, String)>,
    data: Bytes,
}

impl EventBuilder {
    /// Sets the id. Source and id together name one event.
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Sets the source, a URI reference that says where the event happened.
    pub fn source(mut self, source: impl Into<Cow<'static, str>>) -> Self {
        self.source = source.into();
        self
    }

    /// Sets the subject.
    pub fn subject(mut self, subject: impl Into<String>) -> Self {
        self.subject = Some(subject.into());
        self
    }

    /// Sets when the event happened.
    pub fn time(mut self, time: Timestamp) -> Self {
        self.time = Some(time);
        self
    }

    /// Sets the media type of the data.
    pub fn content_type(mut self, content_type: impl Into<Cow<'static, str>>) -> Self {
        self.content_type = Some(content_type.into());
        self
    }

    /// Adds an extension attribute: a name of `a`-`z` and `0`-`9` that is not
    /// one of CloudEvents' own, and a value in canonical string form.
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Sets the payload, as it is.
    pub fn data(mut self, data: impl Into<Bytes>) -> Self {
        self.data = data.into();
        self
    }

    /// Sets the payload to `payload` written as JSON, and the content type to
    /// `application/json`.
    ///
    /// # Errors
    ///
    /// If serde cannot write the payload as JSON.
    pub fn json<T: Serialize + ?Sized>(self, payload: &T) -> Result<Self, EventError> {
        let data = serde_json::to_vec(payload).map_err(EventError::Json)?;
        Ok(self.data(data).content_type("application/json"))
    }

    /// Checks what was set and makes the event.
    ///
    /// # Errors
    ///
    /// Names the first attribute that CloudEvents 1.0 does not allow.
    pub fn build(self) -> Result<Event, EventError> {
        let id = match self.id {
            None => {
                let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
                Uuid::now_v7().hyphenated().encode_lower(&mut text);
                Id::Made(text)
            }
            Some(id) => {
                check_required("id", &id)?;
                Id::Given(id.into_boxed_str())
            }
        };
        check_required("source", &self.source)?;
        check_required("type", &self.event_type)?;
        if let Some(subject) = &self.subject {
            check_required("subject", subject)?;
        }
        if let Some(content_type) = &self.content_type {
            check_required("datacontenttype", content_type)?;
        }
        check_attributes(&self.attributes)?;
        Ok(Event(Arc::new(Inner {
            id,
            source: self.source,
            event_type: self.event_type,
            subject: self.subject,
            time: self.time.unwrap_or_else(Timestamp::now),
            content_type: self.content_type,
            attributes: self.attributes,
            data: self.data,
        })))
    }
}

/// Why something is not an event.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EventError {
    /// An attribute that must be there, or must not be empty when it is.
    #[error("attribute `{0}` is missing or empty")]
    Missing(&'static str),

    /// An attribute whose value CloudEvents does not allow.
    #[error("attribute `{attribute}` {reason}")]
    Invalid {
        /// The attribute's name as given.
        attribute: String,
        /// What is wrong with it, to be read after its name.
        reason: String,
    },

    /// A payload that serde cannot write as JSON.
    #[error("the payload cannot be written as JSON: {0}")]
    Json(#[source] serde_json::Error),
}

/// The names CloudEvents gives a meaning, none of which may be an extension.
const RESERVED: [&str; 9] = [
    "specversion",
    "id",
    "source",
    "type",
    "subject",
    "time",
    "datacontenttype",
    "data",
    "data_base64",
];

fn check_required(attribute: &'static str, value: &str) -> Result<(), EventError> {
    if value.is_empty() {
        return Err(EventError::Missing(attribute));
    }
    check_text(attribute, value)
}

/// CloudEvents strings hold no control characters (C0, DEL, C1) and no
/// Unicode non-characters.
fn check_text(attribute: &str, value: &str) -> Result<(), EventError> {
    let forbidden = |c: char| {
        c.is_control() || matches!(c, '\u{fdd0}'..='\u{fdef}') || (c as u32 & 0xfffe) == 0xfffe
    };
    match value.char_indices().find(|(_, c)| forbidden(*c)) {
        None => Ok(()),
        Some((at, c)) => Err(EventError::Invalid {
            attribute: attribute.to_owned(),
            reason: format!(
                "holds U+{:04X} at byte {at}, which CloudEvents does not allow",
                c as u32
            ),
        }),
    }
}

fn check_attributes(attributes: &[(String, String)]) -> Result<(), EventError> {
    let invalid = |name: &str, reason: String| EventError::Invalid {
        attribute: name.chars().take(64).collect(),
        reason,
    };
    if attributes.len() > MAX_ATTRIBUTES {
        return Err(invalid(
            &attributes[MAX_ATTRIBUTES].0,
            format!("is one too many: an event may have {MAX_ATTRIBUTES} extension attributes"),
        ));
    }
    for (position, (name, value)) in attributes.iter().enumerate() {
        if name.is_empty()
            || !name
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        {
            return Err(invalid(
                name,
                "is not a name of lower-case letters and digits".into(),
            ));
        }
        if RESERVED.contains(&name.as_str()) {
            return Err(invalid(
                name,
                "is not an extension: CloudEvents defines it".into(),
            ));
        }
        if attributes[..position]
            .iter()
            .any(|(earlier, _)| earlier == name)
        {
            return Err(invalid(name, "is there twice".into()));
        }
        check_text(name, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_gets_an_id_a_source_and_a_time() {
        let before = Timestamp::now();
        let event = Event::json("after:signup", &serde_json::json!({"user": 1})).unwrap();
        assert_eq!(Uuid::parse_str(event.id()).unwrap().get_version_num(), 7);
        assert_eq!(event.source(), DEFAULT_SOURCE);
        assert_eq!(event.content_type(), Some("application/json"));
        assert_eq!(&event.data()[..], br#"{"user":1}"#);
        assert!(event.time() >= before);
    }

    #[test]
    fn ids_are_unique_and_in_order() {
        let ids: Vec<_> = (0..10_000)
            .map(|_| Event::new("t", "").unwrap().id().to_owned())
            .collect();
        assert!(ids.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn what_cloudevents_does_not_allow_is_refused_by_name() {
        let refusal = |builder: EventBuilder| builder.build().unwrap_err().to_string();
        let event = || Event::builder("t");
        assert_eq!(
            refusal(Event::builder("")),
            "attribute `type` is missing or empty"
        );
        assert_eq!(
            refusal(event().id("")),
            "attribute `id` is missing or empty"
        );
        assert_eq!(
            refusal(event().source("")),
            "attribute `source` is missing or empty"
        );
        assert!(refusal(event().subject("a\nb")).contains("`subject` holds U+000A at byte 1"));
        assert!(refusal(event().id("\u{ffff}")).contains("U+FFFF"));
        assert!(refusal(event().attribute("Upper", "")).contains("`Upper` is not a name"));
        assert!(refusal(event().attribute("", "")).contains("is not a name"));
        assert!(refusal(event().attribute("data", "")).contains("CloudEvents defines it"));
        assert!(refusal(event().attribute("a", "1").attribute("a", "2")).contains("twice"));
        let many = (0..=MAX_ATTRIBUTES).fold(event(), |e, i| e.attribute(format!("a{i}"), "v"));
        assert!(refusal(many).contains("one too many"));
    }

    #[test]
    fn a_payload_is_not_in_the_debug_output() {
        let event = Event::new("t", "secret").unwrap();
        let text = format!("{event:?}");
        assert!(
            text.contains("6 bytes") && !text.contains("secret"),
            "{text}"
        );
    }
}
