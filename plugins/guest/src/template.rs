//! Texts made of an event's attributes: routing keys, subjects, names of streams.
//!
//! | in the text | stands for |
//! | --- | --- |
//! | `{type}` `{id}` `{source}` | the attribute; every event has it |
//! | `{subject}` `{datacontenttype}` `{dataschema}` | the attribute, if the event has it |
//! | `{ext.NAME}` | the extension attribute `NAME`, if the event has it |
//! | `{subject:none}` | the attribute or, without it, the text after the colon (which may be empty) |
//! | `{{` `}}` | a brace |
//!
//! Extensions have a prefix so that a misspelt `{typ}` is an error at the start
//! and not an attribute no event has.

use crate::{Event, SettingError, setting_or};
use std::borrow::Cow;
use std::fmt;

/// A text with fields, read once from a setting and filled in for each event.
///
/// ```
/// # use backhaul_guest::Template;
/// let key = Template::parse("ROUTING_KEY", "orders.{type}.{ext.tenant:any}")?;
/// # Ok::<(), backhaul_guest::SettingError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    /// For the texts of errors.
    setting: String,
    pieces: Vec<Piece>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Field {
        field: Field,
        default: Option<String>,
    },
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Type,
    Id,
    Source,
    Subject,
    DataContentType,
    DataSchema,
    Extension(String),
}

/// An event lacks an attribute a template needs. It is at fault itself: report it
/// as [`permanent`](crate::Failure::permanent) with this error's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingAttribute {
    setting: String,
    field: Field,
}

impl Template {
    /// The template in the setting `name`, or `default` if the variable is not
    /// set or empty.
    ///
    /// # Errors
    ///
    /// See [`parse`](Self::parse).
    pub fn from_setting(name: &str, default: &str) -> Result<Self, SettingError> {
        Self::parse(name, &setting_or(name, default))
    }

    /// Reads `text`, which came from the setting `name`.
    ///
    /// # Errors
    ///
    /// If a field is unknown or a brace has no partner. The error names the
    /// setting, the fault and the fields there are.
    pub fn parse(name: &str, text: &str) -> Result<Self, SettingError> {
        let pieces = pieces(text).map_err(|fault| {
            let expected = format!(
                "a text with fields out of {{type}}, {{id}}, {{source}}, {{subject}}, \
                 {{datacontenttype}}, {{dataschema}} and {{ext.NAME}} for an extension attribute, \
                 with a default as in {{subject:none}}, and {{{{ or }}}} for a brace; {fault}"
            );
            SettingError::invalid(name, text, &expected)
        })?;
        Ok(Self {
            setting: name.to_owned(),
            pieces,
        })
    }

    /// Whether events have a say in the text: without fields it is the same for all.
    pub fn has_fields(&self) -> bool {
        let is_field = |piece: &Piece| matches!(piece, Piece::Field { .. });
        self.pieces.iter().any(is_field)
    }

    /// The text for this event.
    ///
    /// # Errors
    ///
    /// If the event lacks an attribute that has no default in the template.
    pub fn fill<'a>(&'a self, event: &'a Event) -> Result<Cow<'a, str>, MissingAttribute> {
        match self.pieces.as_slice() {
            [] => Ok("".into()),
            [piece] => self.value(piece, event).map(Cow::Borrowed),
            pieces => {
                let mut text = String::new();
                for piece in pieces {
                    text.push_str(self.value(piece, event)?);
                }
                Ok(text.into())
            }
        }
    }

    fn value<'a>(&self, piece: &'a Piece, event: &'a Event) -> Result<&'a str, MissingAttribute> {
        match piece {
            Piece::Text(text) => Ok(text),
            Piece::Field { field, default } => {
                let value = field.of(event).or(default.as_deref());
                value.ok_or_else(|| MissingAttribute {
                    setting: self.setting.clone(),
                    field: field.clone(),
                })
            }
        }
    }
}

impl Field {
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "type" => Self::Type,
            "id" => Self::Id,
            "source" => Self::Source,
            "subject" => Self::Subject,
            "datacontenttype" => Self::DataContentType,
            "dataschema" => Self::DataSchema,
            _ => {
                let extension = name.strip_prefix("ext.")?;
                let valid = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
                if extension.is_empty() || !extension.bytes().all(valid) {
                    return None;
                }
                Self::Extension(extension.to_owned())
            }
        })
    }

    fn of<'a>(&self, event: &'a Event) -> Option<&'a str> {
        match self {
            Self::Type => Some(&event.event_type),
            Self::Id => Some(&event.id),
            Self::Source => Some(&event.source),
            Self::Subject => event.subject.as_deref(),
            Self::DataContentType => event.content_type.as_deref(),
            Self::DataSchema => event.attribute("dataschema"),
            Self::Extension(name) => event.attribute(name),
        }
    }
}

/// As it stands between the braces.
impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Type => f.write_str("type"),
            Self::Id => f.write_str("id"),
            Self::Source => f.write_str("source"),
            Self::Subject => f.write_str("subject"),
            Self::DataContentType => f.write_str("datacontenttype"),
            Self::DataSchema => f.write_str("dataschema"),
            Self::Extension(name) => write!(f, "ext.{name}"),
        }
    }
}

impl fmt::Display for MissingAttribute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { setting, field } = self;
        write!(
            f,
            "the event lacks what {setting} makes a text of, {{{field}}}; emit it with that attribute, \
             or set a default there, as in {{{field}:none}}"
        )
    }
}

impl std::error::Error for MissingAttribute {}

/// The parts of a template, or what is wrong with it.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find(['{', '}']) {
        plain.push_str(&rest[..at]);
        let (brace, after) = rest[at..].split_at(1);
        rest = if let Some(after) = after.strip_prefix(brace) {
            plain.push_str(brace);
            after
        } else if brace == "}" {
            return Err("a \"}\" in it has no \"{\" before it".to_owned());
        } else {
            let (inside, after) = after
                .split_once('}')
                .ok_or("a \"{\" in it has no \"}\" after it")?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(field(inside)?);
            after
        };
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Text(plain));
    }
    Ok(pieces)
}

fn field(inside: &str) -> Result<Piece, String> {
    let (name, default) = match inside.split_once(':') {
        Some((name, default)) => (name, Some(default.to_owned())),
        None => (inside, None),
    };
    match Field::named(name) {
        Some(field) if !inside.contains('{') => Ok(Piece::Field { field, default }),
        _ => Err(format!("it has {:?}", format!("{{{inside}}}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::tests::event;

    fn filled(template: &str, event: &Event) -> Result<String, String> {
        let template = Template::parse("KEY", template).map_err(|error| error.to_string())?;
        let text = template.fill(event).map_err(|error| error.to_string())?;
        Ok(text.into_owned())
    }

    #[test]
    fn fields_stand_for_the_attributes_of_the_event() {
        let event = Event {
            subject: Some("Zoë".into()),
            content_type: Some("text/plain".into()),
            attributes: vec![
                ("dataschema".into(), "urn:s".into()),
                ("tenant7".into(), "{type}".into()),
            ],
            ..event()
        };
        for (template, text) in [
            ("", ""),
            ("orders", "orders"),
            ("{type}", "after:signup"),
            ("orders.{type}.{id}", "orders.after:signup.1"),
            ("{source}{subject}", "/testZoë"),
            ("{datacontenttype} {dataschema}", "text/plain urn:s"),
            ("ü{ext.tenant7}ü", "ü{type}ü"),
            ("{subject:none}", "Zoë"),
            ("{{{type}}}", "{after:signup}"),
            ("{{type}}", "{type}"),
        ] {
            assert_eq!(filled(template, &event).as_deref(), Ok(text), "{template}");
        }
    }

    #[test]
    fn a_template_without_fields_is_told_from_others() {
        for (template, has_fields) in [("", false), ("{{a}}", false), ("a.{type}", true)] {
            let template = Template::parse("KEY", template).unwrap();
            assert_eq!(template.has_fields(), has_fields);
        }
    }

    #[test]
    fn an_attribute_an_event_lacks_has_its_default_or_is_named() {
        let event = event();
        for (template, text) in [
            ("{subject:none}", "none"),
            ("a.{subject:}.b", "a..b"),
            ("{ext.tenant:urn:x}", "urn:x"),
            ("{type:none}", "after:signup"),
        ] {
            assert_eq!(filled(template, &event).as_deref(), Ok(text), "{template}");
        }
        for field in ["subject", "datacontenttype", "dataschema", "ext.tenant"] {
            let error = filled(&format!("a.{{{field}}}"), &event).unwrap_err();
            assert!(error.contains(&format!("KEY makes a text of, {{{field}}};")));
            assert!(error.contains(&format!("{{{field}:none}}")), "{error}");
        }
    }

    #[test]
    fn a_template_with_a_fault_is_refused_with_the_setting_the_fault_and_the_fields() {
        for (template, fault) in [
            ("{typ}", "it has \"{typ}\""),
            ("{}", "it has \"{}\""),
            ("{ type }", "it has \"{ type }\""),
            ("{Type}", "it has \"{Type}\""),
            ("{tenant}", "it has \"{tenant}\""),
            ("{ext.}", "it has \"{ext.}\""),
            ("{ext.Tenant}", "it has \"{ext.Tenant}\""),
            ("{ext.a-b:x}", "it has \"{ext.a-b:x}\""),
            ("{:none}", "it has \"{:none}\""),
            ("{subject:{type}}", "it has \"{subject:{type}\""),
            ("a{type", "a \"{\" in it has no \"}\""),
            ("a{", "a \"{\" in it has no \"}\""),
            ("a}b", "a \"}\" in it has no \"{\""),
            ("{type}}", "a \"}\" in it has no \"{\""),
        ] {
            let error = filled(template, &event()).unwrap_err();
            assert!(error.contains("the setting KEY is"), "{error}");
            assert!(error.contains("{subject}"), "{error}");
            assert!(error.contains(fault), "{template}: {error}");
        }
    }
}
