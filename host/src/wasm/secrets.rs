//! The environment of a plugin, and the values in it that must not be seen.
//!
//! Values that come from a file or from the host's environment are secrets. What
//! a guest prints or reports goes through [`Secrets`] before anybody reads it, so
//! that a careless guest gives none away. It is no defence against a guest that
//! means to: one that spells a secret backwards is not recognised.

use std::borrow::Cow;
use std::fmt;

use super::grants::Grants;
use super::text::printable;

/// Secrets shorter than this many bytes are not searched for: texts are full of
/// them by chance.
const MIN_SECRET: usize = 4;

/// What is shown in place of a secret.
const HIDDEN: &str = "***";

/// A variable of a plugin's environment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvGrant {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: EnvValue,
}

impl EnvGrant {
    /// A variable whose value is in the manifest.
    pub fn plain(name: impl Into<String>, value: impl Into<String>) -> EnvGrant {
        EnvGrant {
            name: name.into(),
            value: EnvValue::Plain(value.into()),
        }
    }

    /// A variable whose value is hidden in what the plugin prints and reports.
    pub fn secret(name: impl Into<String>, value: impl Into<String>) -> EnvGrant {
        EnvGrant {
            name: name.into(),
            value: EnvValue::Secret(value.into()),
        }
    }
}

/// The value of a variable. `Debug` does not show it: a plain one may be a secret
/// that somebody wrote in the wrong place.
#[derive(Clone, PartialEq, Eq)]
pub enum EnvValue {
    /// Written in the manifest, for all to read.
    Plain(String),
    /// Never shown to anybody but the plugin.
    Secret(String),
}

impl EnvValue {
    /// The value, as the plugin gets it.
    pub fn reveal(&self) -> &str {
        match self {
            EnvValue::Plain(value) | EnvValue::Secret(value) => value,
        }
    }
}

impl fmt::Debug for EnvValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            EnvValue::Plain(_) => "Plain(...)",
            EnvValue::Secret(_) => "Secret(...)",
        })
    }
}

/// The secrets of one plugin, to be taken out of texts that come from it.
#[derive(Clone, Default)]
pub struct Secrets {
    /// What is searched for; none is empty.
    forms: Vec<String>,
}

impl Secrets {
    /// The secrets among the variables of `grants`.
    pub fn of(grants: &Grants) -> Secrets {
        let mut forms = Vec::new();
        for grant in &grants.env {
            if let EnvValue::Secret(secret) = &grant.value {
                add_forms(&mut forms, secret);
            }
        }
        forms.retain(|form| form.len() >= MIN_SECRET);
        forms.sort_unstable();
        forms.dedup();
        Secrets { forms }
    }

    /// `text` with `***` in place of every secret in it.
    pub fn redact<'t>(&self, text: &'t str) -> Cow<'t, str> {
        self.replaced(text, self.places(text))
    }

    /// The same for a text of which only the first `max` bytes are of interest;
    /// what follows them is left away. A secret that the cut goes through is
    /// hidden, too.
    pub(super) fn redact_start<'t>(&self, text: &'t str, max: usize) -> Cow<'t, str> {
        let start = &text[..text.floor_char_boundary(max)];
        let mut places = self.places(start);
        if start.len() < text.len() {
            let begun = self.forms.iter().filter_map(|form| begun(start, form));
            if let Some(length) = begun.max() {
                places.push((start.len() - length, start.len()));
            }
        }
        self.replaced(start, places)
    }

    /// What is shown of a guest's text, cut off after `max` bytes: fit to be read,
    /// without secrets.
    pub(super) fn printable(&self, text: &str, max: usize) -> String {
        let mut shown = printable(&self.redact_start(text, max), max);
        if text.len() > max && !shown.ends_with("...") {
            shown.push_str("...");
        }
        shown
    }

    fn places(&self, text: &str) -> Vec<(usize, usize)> {
        let found = |form| {
            text.match_indices(form)
                .map(|(at, form)| (at, at + form.len()))
        };
        self.forms
            .iter()
            .map(String::as_str)
            .flat_map(found)
            .collect()
    }

    fn replaced<'t>(&self, text: &'t str, mut places: Vec<(usize, usize)>) -> Cow<'t, str> {
        if places.is_empty() {
            return Cow::Borrowed(text);
        }
        places.sort_unstable();
        let mut shown = String::with_capacity(text.len());
        let mut end = 0;
        for (from, to) in places {
            // One that lies in another, or begins in it, is part of it.
            if from >= end {
                shown.push_str(&text[end..from]);
                shown.push_str(HIDDEN);
            }
            end = end.max(to);
        }
        shown.push_str(&text[end..]);
        Cow::Owned(shown)
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({} forms)", self.forms.len())
    }
}

/// How a guest may come to print a secret: as it is, one line of it, the
/// password of a URL alone, within a URL, or quoted.
fn add_forms(forms: &mut Vec<String>, secret: &str) {
    let lines = secret.lines().map(str::trim);
    for part in lines.chain([secret]).chain(password(secret)) {
        forms.push(part.to_owned());
        forms.push(percent_encoded(part, |byte| format!("%{byte:02X}")));
        forms.push(percent_encoded(part, |byte| format!("%{byte:02x}")));
        forms.push(part.escape_debug().to_string());
    }
}

/// The password in `scheme://user:password@host`.
fn password(url: &str) -> Option<&str> {
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?', '#']).next()?;
    let (_, password) = authority.rsplit_once('@')?.0.split_once(':')?;
    Some(password)
}

fn percent_encoded(text: &str, encode: impl Fn(u8) -> String) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        match unreserved(byte) {
            true => encoded.push(char::from(byte)),
            false => encoded.push_str(&encode(byte)),
        }
    }
    encoded
}

/// How many bytes at the end of `text` are the beginning of `form`.
fn begun(text: &str, form: &str) -> Option<usize> {
    let (text, form) = (text.as_bytes(), form.as_bytes());
    (1..form.len().min(text.len() + 1))
        .rev()
        .find(|length| text.ends_with(&form[..*length]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(values: &[&str]) -> Secrets {
        let env = values.iter().map(|value| EnvGrant::secret("S", *value));
        Secrets::of(&Grants {
            env: env.collect(),
            ..Grants::default()
        })
    }

    #[test]
    fn a_secret_is_hidden_wherever_it_stands_and_the_rest_is_left() {
        let secrets = secrets(&["hunter2", "correct horse"]);
        for (text, shown) in [
            ("hunter2", "***"),
            ("a hunter2, b hunter2hunter2 c", "a ***, b ****** c"),
            ("ünï hunter2 cödé", "ünï *** cödé"),
            ("correct horse battery", "*** battery"),
            ("hunter", "hunter"),
            ("", ""),
        ] {
            assert_eq!(secrets.redact(text), shown);
        }
    }

    #[test]
    fn one_secret_within_or_across_another_leaves_nothing_over() {
        let secrets = secrets(&["abcdef", "cdefgh", "bcde"]);
        assert_eq!(secrets.redact("1abcdefgh2"), "1***2");
        assert_eq!(secrets.redact("1bcde2"), "1***2");
    }

    #[test]
    fn a_secret_is_recognised_encoded_quoted_by_lines_and_as_the_password_of_a_url() {
        let hidden = secrets(&[
            "p@ss \"word\"",
            "redis://me:hunter2@host:6379/0",
            "first\n  second\n",
        ]);
        for text in [
            "redis://me:p%40ss%20%22word%22@host",
            "p%40ss%20%22word%22",
            "p@ss \\\"word\\\"",
            "hunter2",
            "  second",
        ] {
            let shown = hidden.redact(text);
            for left in ["word", "hunter", "second"] {
                assert!(!shown.contains(left), "{text}: {shown}");
            }
        }
        assert_eq!(secrets(&["a/b+c"]).redact("a%2fb%2bc"), "***");
    }

    #[test]
    fn short_and_plain_values_are_left() {
        assert_eq!(secrets(&["abc", "", "\n"]).redact("abc\n"), "abc\n");
        let plain = Secrets::of(&Grants {
            env: vec![EnvGrant::plain("LEVEL", "debug")],
            ..Grants::default()
        });
        assert_eq!(plain.redact("debug"), "debug");
    }

    #[test]
    fn a_cut_through_a_secret_shows_no_part_of_it() {
        let secrets = secrets(&["hunter2"]);
        let text = "password hunter2 and more";
        for max in 0..=text.len() {
            let shown = secrets.redact_start(text, max);
            assert!(
                !shown.contains('h') && !shown.contains('2'),
                "{max}: {shown}"
            );
        }
        assert_eq!(secrets.redact_start("ends in h", 100), "ends in h");
        assert_eq!(secrets.redact_start("ü", 1), "");
    }

    #[test]
    fn debug_shows_no_value() {
        let grants = Grants {
            env: vec![
                EnvGrant::secret("A", "hunter2"),
                EnvGrant::plain("B", "hunter3"),
            ],
            ..Grants::default()
        };
        let shown = format!("{grants:?} {:?} {:?}", grants.env, Secrets::of(&grants));
        assert!(!shown.contains("hunter") && shown.contains('A'), "{shown}");
    }
}
