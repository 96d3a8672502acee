//! CloudEvents' JSON format: one object is one event.

use std::borrow::Cow;
use std::fmt;

use base64::Engine as _;
use bytes::Bytes;
use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::Attributes;
use crate::event::{Event, MAX_ATTRIBUTES};

/// Structured mode, and each event of batched mode: one JSON object.
pub(super) fn structured(raw: &RawValue) -> Result<Event, String> {
    let Members(members) = serde_json::from_str(raw.get())
        .map_err(|error| format!("it is not a CloudEvent in JSON: {error}"))?;
    let mut attributes = Attributes::default();
    let (mut data, mut data_base64) = (None, None);
    for (name, value) in members {
        match &*name {
            _ if value.get() == "null" => {}
            "data" => data = Some(value),
            "data_base64" => data_base64 = Some(value),
            _ => attributes.set(&name, attribute_text(&name, value)?)?,
        }
    }
    let body = match (data, data_base64) {
        (None, None) => Bytes::new(),
        (Some(_), Some(_)) => return Err("it has both `data` and `data_base64`".to_owned()),
        (None, Some(encoded)) => {
            let encoded: Cow<'_, str> = serde_json::from_str(encoded.get())
                .map_err(|_| "`data_base64` is not a string".to_owned())?;
            let decoded = base64::engine::general_purpose::STANDARD.decode(encoded.as_bytes());
            decoded
                .map_err(|error| format!("`data_base64` is not Base64: {error}"))?
                .into()
        }
        (Some(value), None) => {
            let content_type = attributes
                .content_type
                .get_or_insert_with(|| "application/json".into());
            data_bytes(content_type, value)?
        }
    };
    attributes.build(body)
}

/// JSON data is kept as it was written; a string of another content type is
/// the text in it.
fn data_bytes(content_type: &str, value: &RawValue) -> Result<Bytes, String> {
    if !is_json(content_type) && value.get().starts_with('"') {
        let text: String = serde_json::from_str(value.get())
            .map_err(|error| format!("`data` is not a valid string: {error}"))?;
        return Ok(text.into());
    }
    Ok(Bytes::copy_from_slice(value.get().as_bytes()))
}

/// Whether data of that content type are JSON.
pub(crate) fn is_json(content_type: &str) -> bool {
    let media_type = content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let subtype = media_type
        .split_once('/')
        .map_or("", |(_, subtype)| subtype);
    subtype == "json" || subtype.ends_with("+json")
}

/// An attribute's value in canonical string form.
fn attribute_text(name: &str, value: &RawValue) -> Result<String, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Value {
        Text(String),
        Boolean(bool),
        Integer(i32),
    }

    let defined = [
        "specversion",
        "id",
        "source",
        "type",
        "subject",
        "time",
        "datacontenttype",
        "dataschema",
    ]
    .contains(&name);
    match serde_json::from_str(value.get()) {
        Ok(Value::Text(text)) => Ok(text),
        Ok(Value::Boolean(value)) if !defined => Ok(value.to_string()),
        Ok(Value::Integer(value)) if !defined => Ok(value.to_string()),
        _ if defined => Err(format!("attribute `{name}` is not a valid string")),
        _ => Err(format!(
            "attribute `{}` is not a string, a boolean or an integer of 32 bits",
            name.chars().take(64).collect::<String>()
        )),
    }
}

/// The members of a JSON object as written, each name once.
struct Members<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Members<'a>, D::Error> {
        struct Collect;

        impl<'de> Visitor<'de> for Collect {
            type Value = Members<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::new();
                while let Some((Name(name), value)) =
                    map.next_entry::<Name<'de>, &'de RawValue>()?
                {
                    if members.iter().any(|(earlier, _)| *earlier == name) {
                        let name: String = name.chars().take(64).collect();
                        return Err(A::Error::custom(format!(
                            "the member `{name}` is there twice"
                        )));
                    }
                    if members.len() > MAX_ATTRIBUTES + 10 {
                        return Err(A::Error::custom("it has too many members"));
                    }
                    members.push((name, value));
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Collect)
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(Deserialize)]
struct Name<'a>(#[serde(borrow)] Cow<'a, str>);
