//! A profile as a file: `NAME.verify.toml`. What is wrong is refused with file, line
//! and key.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, Error as _};
use toml::Spanned;

use super::shipped::READERS;
use super::{Attributes, Order, Profile, ReaderKind, Refused, Variables};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    reader: Option<RawReader>,
    #[serde(default)]
    settings: Variables,
    #[serde(rename = "type")]
    event_type: Option<Spanned<String>>,
    order: Option<RawOrder>,
    attributes: Option<RawAttributes>,
    instances: Option<bool>,
    reconnects: Option<bool>,
    deduplicates: Option<bool>,
    repeats: Option<bool>,
    max_event: Option<RawSize>,
    patience: Option<RawTime>,
    credentials: Option<Variables>,
    refused: Option<RawRefused>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, default)]
#[derive(Default)]
struct RawRefused {
    #[serde(rename = "type")]
    event_type: Option<String>,
    content_type: Option<String>,
    attributes: Variables,
    lacks: Variables,
    env: Variables,
}

impl Profile {
    /// Reads a profile from `text`; `file` is named in errors. What it does not say is
    /// as in the profile that `base` gives for its reader.
    pub(super) fn parse(
        file: &Path,
        text: &str,
        base: impl FnOnce(Option<&ReaderKind>) -> Profile,
    ) -> Result<Profile, ProfileError> {
        let at = |span: Option<Range<usize>>, problem: String| {
            ProfileError::at(file, text, span, problem)
        };
        let raw: Raw =
            toml::from_str(text).map_err(|error| at(error.span(), error.message().to_owned()))?;
        if let Some(event_type) = &raw.event_type {
            let event = crate::event::Event::new(event_type.get_ref().clone(), "");
            event.map_err(|error| at(Some(event_type.span()), error.to_string()))?;
        }
        let reader = raw.reader.map(|reader| reader.0);
        let base = base(reader.as_ref());
        Ok(Profile {
            reader: reader.or(base.reader),
            settings: raw.settings,
            event_type: raw.event_type.map(Spanned::into_inner).or(base.event_type),
            order: raw.order.map_or(base.order, |order| order.0),
            attributes: raw
                .attributes
                .map_or(base.attributes, |attributes| attributes.0),
            instances: raw.instances.unwrap_or(base.instances),
            reconnects: raw.reconnects.unwrap_or(base.reconnects),
            deduplicates: raw.deduplicates.unwrap_or(base.deduplicates),
            repeats: raw.repeats.unwrap_or(base.repeats),
            max_event: raw.max_event.map(|size| size.0).or(base.max_event),
            patience: raw.patience.map_or(base.patience, |time| time.0),
            wrong_credentials: raw.credentials.unwrap_or(base.wrong_credentials),
            refused: raw.refused.map(Into::into).or(base.refused),
        })
    }
}

impl From<RawRefused> for Refused {
    fn from(raw: RawRefused) -> Refused {
        Refused {
            event_type: raw.event_type,
            content_type: raw.content_type,
            attributes: raw.attributes,
            lacks: raw.lacks,
            env: raw.env,
        }
    }
}

struct RawReader(ReaderKind);

impl<'de> Deserialize<'de> for RawReader {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawReader, D::Error> {
        let wrong = || {
            D::Error::custom(format!(
                "is neither one of {} nor {{ command = [\"PROGRAM\", ...] }}",
                READERS.join(", ")
            ))
        };
        let kind = match toml::Value::deserialize(deserializer) {
            Ok(toml::Value::String(name)) if READERS.contains(&name.as_str()) => {
                ReaderKind::Shipped(name)
            }
            Ok(toml::Value::Table(mut table)) if table.len() == 1 => {
                let command = table.remove("command").ok_or_else(wrong)?;
                let command: Vec<String> = command.try_into().map_err(|_| wrong())?;
                if command.is_empty() {
                    return Err(wrong());
                }
                ReaderKind::Command(command)
            }
            _ => return Err(wrong()),
        };
        Ok(RawReader(kind))
    }
}

struct RawOrder(Order);

impl<'de> Deserialize<'de> for RawOrder {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawOrder, D::Error> {
        match String::deserialize(deserializer).as_deref() {
            Ok("all") => Ok(RawOrder(Order::All)),
            Ok("key") => Ok(RawOrder(Order::Key)),
            Ok("none") => Ok(RawOrder(Order::None)),
            _ => Err(D::Error::custom("is none of \"all\", \"key\", \"none\"")),
        }
    }
}

struct RawAttributes(Attributes);

impl<'de> Deserialize<'de> for RawAttributes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawAttributes, D::Error> {
        let wrong = || D::Error::custom("is neither \"all\" nor a list of names");
        match toml::Value::deserialize(deserializer) {
            Ok(toml::Value::String(all)) if all == "all" => Ok(RawAttributes(Attributes::All)),
            Ok(list @ toml::Value::Array(_)) => {
                let names = list.try_into().map_err(|_| wrong())?;
                Ok(RawAttributes(Attributes::Some(names)))
            }
            _ => Err(wrong()),
        }
    }
}

struct RawSize(u64);

impl<'de> Deserialize<'de> for RawSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawSize, D::Error> {
        let size = String::deserialize(deserializer).ok();
        let size = size.and_then(|text| text.parse::<bytesize::ByteSize>().ok());
        match size {
            Some(size) if size.as_u64() > 0 => Ok(RawSize(size.as_u64())),
            _ => Err(D::Error::custom("is not a size such as \"1MiB\"")),
        }
    }
}

struct RawTime(std::time::Duration);

impl<'de> Deserialize<'de> for RawTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<RawTime, D::Error> {
        let time = String::deserialize(deserializer).ok();
        let time = time.and_then(|text| humantime::parse_duration(&text).ok());
        time.map(RawTime)
            .ok_or_else(|| D::Error::custom("is not a time such as \"5s\""))
    }
}

/// What is wrong with a profile, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProfileError {
    file: PathBuf,
    line: Option<usize>,
    problem: String,
}

impl ProfileError {
    pub(super) fn unreadable(file: &Path, error: &std::io::Error) -> ProfileError {
        ProfileError {
            file: file.to_owned(),
            line: None,
            problem: format!("cannot be read: {error}"),
        }
    }

    fn at(file: &Path, text: &str, span: Option<Range<usize>>, problem: String) -> ProfileError {
        let before = span.and_then(|span| text.get(..span.start));
        let key = before.and_then(|before| {
            let (key, _) = before.rsplit('\n').next()?.rsplit_once('=')?;
            key.trim_end().rsplit([' ', '{', ',']).next()
        });
        ProfileError {
            file: file.to_owned(),
            line: before.map(|before| before.matches('\n').count() + 1),
            problem: match key {
                Some(key) => format!("`{key}`: {problem}"),
                None => problem,
            },
        }
    }
}

impl fmt::Display for ProfileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if let Some(line) = self.line {
            write!(f, ", line {line}")?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for ProfileError {}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn parse(text: &str) -> Result<Profile, String> {
        let base = |reader: Option<&ReaderKind>| match reader {
            Some(ReaderKind::Shipped(name)) => Profile::shipped(name, &Variables::new()),
            _ => Profile::default(),
        };
        Profile::parse("x.verify.toml".as_ref(), text, base).map_err(|error| error.to_string())
    }

    #[test]
    fn a_profile_says_what_a_backend_supports() {
        let profile = parse(
            r#"
            reader = { command = ["./reader", "--all"] }
            type = "order:verify"
            order = "key"
            attributes = ["subject", "time"]
            instances = false
            reconnects = false
            deduplicates = true
            max_event = "256KiB"
            patience = "500ms"
            [settings]
            QUEUE = "orders"
            [credentials]
            PASSWORD = "wrong"
            [refused]
            type = "no such"
            env = { STRICT = "1" }
            "#,
        )
        .unwrap();
        let command = vec!["./reader".to_owned(), "--all".to_owned()];
        assert_eq!(profile.reader, Some(ReaderKind::Command(command)));
        assert_eq!((profile.order, profile.instances), (Order::Key, false));
        assert!(profile.attributes.has("time") && !profile.attributes.has("type"));
        assert_eq!(profile.max_event, Some(256 << 10));
        assert_eq!(profile.patience, Duration::from_millis(500));
        assert_eq!(profile.settings["QUEUE"], "orders");
        assert_eq!(profile.refused.unwrap().env["STRICT"], "1");
    }

    #[test]
    fn what_it_does_not_say_is_as_shipped() {
        let profile = parse("reader = \"file\"\npatience = \"1s\"").unwrap();
        assert!(!profile.instances);
        assert_eq!(profile.patience, Duration::from_secs(1));
    }

    #[test]
    fn what_is_wrong_is_named_with_file_line_and_key() {
        for (text, line, problem) in [
            ("\nordre = \"all\"", "line 2", "unknown field `ordre`"),
            ("order = \"some\"", "line 1", "`order`: is none of"),
            (
                "reader = \"redis\"",
                "line 1",
                "`reader`: is neither one of file, kafka",
            ),
            ("reader = { command = [] }", "line 1", "is neither one of"),
            ("instances = 4", "line 1", "`instances`: invalid type"),
            ("\nmax_event = 4", "line 2", "`max_event`: is not a size"),
            ("patience = \"soon\"", "line 1", "`patience`: is not a time"),
            (
                "attributes = \"some\"",
                "line 1",
                "`attributes`: is neither",
            ),
            (
                "type = \"\"",
                "line 1",
                "`type`: attribute `type` is missing",
            ),
            ("[refused]\nsize = 1", "line 2", "unknown field `size`"),
            ("[settings]\nA = 1", "line 2", "`A`: invalid type"),
            ("order = ", "line 1", ""),
        ] {
            let error = parse(text).unwrap_err();
            let start = format!("x.verify.toml, {line}: ");
            assert!(
                error.starts_with(&start) && error.contains(problem),
                "{text}: {error}"
            );
        }
    }
}
