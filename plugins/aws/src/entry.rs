//! An event as an entry of a call: the event in CloudEvents' JSON format as the
//! body, and a few attributes beside it, for filters that look at nothing else.

use crate::Service;
use crate::settings::Settings;
use backhaul_guest::Event;
use sha2::{Digest, Sha256};
use std::fmt::Write;

/// The most characters of a group or a deduplication id.
const MAX_ID: usize = 128;

/// The most characters of a subject: the service asks for less than 100.
const MAX_SUBJECT: usize = 99;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its event's place in the batch.
    pub(crate) index: usize,
    /// The queue or topic.
    pub(crate) target: String,
    /// Its name in the call and in the answer.
    pub id: String,
    /// The event as JSON. Every character of it is one XML has.
    pub body: String,
    /// Names and values of attributes, all of them text.
    pub attributes: Vec<(&'static str, String)>,
    /// What a FIFO target asks for.
    pub fifo: Option<Fifo>,
    /// For those who get it as a mail.
    pub subject: Option<String>,
    /// What the service counts of it.
    pub(crate) bytes: usize,
}

/// A message's place in an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fifo {
    /// Messages of one group are in order.
    pub group: String,
    /// A second message with it, within five minutes, is taken for the first.
    pub deduplication_id: String,
}

impl Entry {
    /// The entry for an event.
    ///
    /// # Errors
    ///
    /// If it can never be sent as it is: a text for the log.
    pub(crate) fn of<S: Service>(
        settings: &Settings,
        index: usize,
        event: &Event,
    ) -> Result<Self, String> {
        let target = settings
            .target
            .fill(event)
            .map_err(|error| error.to_string())?;
        if !S::is_target(&target) {
            let shown: String = target.chars().take(200).collect();
            return Err(format!(
                "{} makes {shown:?} of it, expected {}",
                S::TARGET,
                S::TARGET_FORM
            ));
        }
        let fifo = target.ends_with(".fifo").then(|| Fifo::of(settings, event));
        let fifo = fifo.transpose()?;
        let subject = match &settings.subject {
            Some(template) => Some(template.fill(event).map_err(|error| error.to_string())?),
            None => None,
        };
        let subject = subject.and_then(|text| subject_of(&text));
        let mut body = Vec::with_capacity(event.data.len() + 512);
        event.append_cloudevent_json(&mut body);
        let body = String::from_utf8(body).expect("JSON is UTF-8");
        let mut entry = Self {
            index,
            target: target.into_owned(),
            id: index.to_string(),
            body: escape_what_xml_lacks(body),
            attributes: attributes(event),
            fifo,
            subject,
            bytes: 0,
        };
        entry.bytes = entry.size();
        if entry.bytes > settings.max_bytes {
            return Err(format!(
                "with its attributes it is {} bytes, more than the {} of a message; if the {} takes more, set {}_MAX_BYTES",
                entry.bytes,
                settings.max_bytes,
                S::KIND,
                S::NAME
            ));
        }
        Ok(entry)
    }

    /// The service counts the body, and of each attribute its name, type and value.
    fn size(&self) -> usize {
        let attribute =
            |(name, value): &(&str, String)| name.len() + ATTRIBUTE_TYPE.len() + value.len();
        let subject = self.subject.as_ref().map_or(0, String::len);
        self.body.len() + subject + self.attributes.iter().map(attribute).sum::<usize>()
    }
}

/// The type of every attribute.
pub const ATTRIBUTE_TYPE: &str = "String";

impl Fifo {
    fn of(settings: &Settings, event: &Event) -> Result<Self, String> {
        let said = event.attribute("partitionkey").or(event.subject.as_deref());
        let group = match said {
            Some(group) => id(group),
            None => id(&settings
                .group
                .fill(event)
                .map_err(|error| error.to_string())?),
        };
        let deduplication_id = match &settings.deduplication {
            Some(template) => id(&template.fill(event).map_err(|error| error.to_string())?),
            // An event is known by both. Neither can hold what stands between them here.
            None => hash(&format!("{}\0{}", event.source, event.id)),
        };
        Ok(Self {
            group,
            deduplication_id,
        })
    }
}

/// The text if it can be an id, or else what stands for it and no other.
fn id(text: &str) -> String {
    let fits = (1..=MAX_ID).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if fits { text.to_owned() } else { hash(text) }
}

fn hash(text: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(text) {
        write!(hex, "{byte:02x}").expect("writing to a String does not fail");
    }
    hex
}

/// On one line and cut off; `None` if nothing is left.
fn subject_of(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_control() || c.is_whitespace());
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let line: String = words
        .join(" ")
        .chars()
        .filter(|c| is_xml(*c))
        .take(MAX_SUBJECT)
        .collect();
    Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
}

/// What filters and consumers can read without parsing the body. An attribute is
/// left out where its value cannot stand in one; the body has it.
fn attributes(event: &Event) -> Vec<(&'static str, String)> {
    let attributes = [
        ("content-type", Some("application/cloudevents+json")),
        ("ce-id", Some(event.id.as_str())),
        ("ce-source", Some(&event.source)),
        ("ce-type", Some(&event.event_type)),
        ("ce-subject", event.subject.as_deref()),
    ];
    let fits = |value: &&str| !value.is_empty() && value.chars().all(is_xml);
    let attribute = |(name, value): (_, Option<&str>)| Some((name, value.filter(fits)?.to_owned()));
    attributes.into_iter().filter_map(attribute).collect()
}

/// The characters of a message are those of XML 1.0.
fn is_xml(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

/// JSON has control characters escaped already. The two others XML lacks can stand
/// in its strings only.
fn escape_what_xml_lacks(json: String) -> String {
    if !json.contains(['\u{fffe}', '\u{ffff}']) {
        return json;
    }
    json.replace('\u{fffe}', "\\ufffe")
        .replace('\u{ffff}', "\\uffff")
}

#[cfg(test)]
mod tests {
    use super::*;
    use backhaul_guest::Timestamp;

    fn event() -> Event {
        Event {
            id: "1".into(),
            source: "/test".into(),
            event_type: "after:signup".into(),
            subject: None,
            time: Timestamp {
                seconds: 0,
                nanoseconds: 0,
            },
            content_type: None,
            attributes: Vec::new(),
            data: Vec::new(),
        }
    }

    #[test]
    fn an_id_that_fits_is_itself_and_another_is_hashed() {
        for plain in ["a", "tenant:7!~", &"x".repeat(128)] {
            assert_eq!(id(plain), plain);
        }
        for odd in ["", "a b", "Zoë", "a\n", &"x".repeat(129)] {
            assert_eq!(id(odd).len(), 64, "{odd}");
            assert_ne!(id(odd), id("a"), "{odd}");
        }
        assert_eq!(
            hash("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_subject_is_one_line_of_less_than_100_characters() {
        assert_eq!(subject_of(" a\r\n\tb\u{0}c "), Some("a b c".into()));
        assert_eq!(subject_of("\u{1}\n"), None);
        assert_eq!(subject_of("é".repeat(300).as_str()), Some("é".repeat(99)));
    }

    #[test]
    fn attributes_that_cannot_be_are_left_out() {
        let event = Event {
            id: "a\u{1}".into(),
            subject: Some("Zoë".into()),
            ..event()
        };
        let attributes = attributes(&event);
        let names: Vec<&str> = attributes.iter().map(|(name, _)| *name).collect();
        assert_eq!(
            names,
            ["content-type", "ce-source", "ce-type", "ce-subject"]
        );
    }

    #[test]
    fn the_json_of_any_event_has_only_characters_of_xml_and_says_the_same() {
        let odd: String = ('\0'..='\u{1ffff}').collect();
        let event = Event {
            subject: Some(odd.clone()),
            content_type: Some("text/plain".into()),
            data: odd.clone().into_bytes(),
            ..event()
        };
        let mut json = Vec::new();
        event.append_cloudevent_json(&mut json);
        let json = escape_what_xml_lacks(String::from_utf8(json).unwrap());
        assert!(json.chars().all(is_xml));
        let back: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(back["subject"], odd);
        assert_eq!(back["data"], odd);
    }
}
