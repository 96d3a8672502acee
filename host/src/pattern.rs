//! Patterns over event types: `after:signup`, `after:*`, `*`.
//!
//! The same patterns are used wherever an event type is matched: by
//! subscriptions and in manifests.

use std::fmt;
use std::str::FromStr;

use serde::Deserialize;

/// The longest pattern, in bytes. Far above any real event type.
const MAX_LEN: usize = 1024;

/// A pattern over event types. `*` stands for any run of characters, also none;
/// everything else stands for itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct Pattern(Box<str>);

impl Pattern {
    /// The pattern that matches every event type.
    pub fn any() -> Pattern {
        Pattern("*".into())
    }

    /// Whether `event_type` matches the whole pattern.
    pub fn matches(&self, event_type: &str) -> bool {
        let Some((head, mut rest)) = self.0.split_once('*') else {
            return *self.0 == *event_type;
        };
        let Some(mut text) = event_type.strip_prefix(head) else {
            return false;
        };
        // Each part between two stars is taken where it first occurs; only the
        // last has to reach the end. So one pass is enough.
        while let Some((part, after)) = rest.split_once('*') {
            let Some(at) = text.find(part) else {
                return false;
            };
            text = &text[at + part.len()..];
            rest = after;
        }
        text.ends_with(rest)
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Pattern, PatternError> {
        if text.is_empty() {
            return Err(PatternError("is empty".into()));
        }
        if text.len() > MAX_LEN {
            return Err(PatternError(format!("is longer than {MAX_LEN} bytes")));
        }
        if let Some(c) = text.chars().find(|c| c.is_control()) {
            return Err(PatternError(format!(
                "holds the control character U+{:04X}",
                c as u32
            )));
        }
        Ok(Pattern(text.into()))
    }
}

impl TryFrom<String> for Pattern {
    type Error = PatternError;

    fn try_from(text: String) -> Result<Pattern, PatternError> {
        text.parse()
    }
}

/// Why a text is not a pattern.
#[derive(Debug, thiserror::Error)]
#[error("the event pattern {0}; write an event type such as `after:signup`, `after:*` or `*`")]
pub struct PatternError(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_any_run_and_the_rest_for_itself() {
        let cases = [
            ("after:signup", "after:signup", true),
            ("after:signup", "after:signups", false),
            ("after:*", "after:signup", true),
            ("after:*", "after:", true),
            ("after:*", "before:login", false),
            ("*", "", true),
            ("*", "anything at all", true),
            ("*.created", "user.created", true),
            ("*.created", "user.created.twice", false),
            ("a*a", "a", false),
            ("a*a", "aa", true),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("**", "x", true),
            ("ä*", "äö", true),
        ];
        for (pattern, text, expected) in cases {
            let parsed: Pattern = pattern.parse().unwrap();
            assert_eq!(parsed.matches(text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn a_pattern_nobody_can_have_meant_is_refused() {
        for (text, part) in [
            ("", "empty"),
            ("a\nb", "U+000A"),
            (&"x".repeat(1025), "1024"),
        ] {
            let error = text.parse::<Pattern>().unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
