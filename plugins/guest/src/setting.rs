//! A backend's settings: the environment variables its manifest grants.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A setting that is missing or cannot be used. Its text names the variable,
/// its value and what is expected, and says where to set it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingError(String);

impl SettingError {
    /// The setting has a value, but not one that can be used; `expected` ends
    /// the sentence "expected ...".
    pub fn invalid(name: &str, value: &str, expected: &str) -> Self {
        Self(format!(
            "the setting {name} is {value:?}, expected {expected}; correct it in grants.env of the manifest"
        ))
    }

    /// The same for a setting that may hold a secret: the text leaves the value out.
    pub fn invalid_secret(name: &str, expected: &str) -> Self {
        Self(format!(
            "the setting {name} cannot be used, expected {expected} (the value is not shown, it may hold a secret); \
             correct it in grants.env of the manifest"
        ))
    }

    fn missing(name: &str) -> Self {
        Self(format!(
            "the setting {name} is missing; add it to the manifest: [grants] env = {{ {name} = \"...\" }}"
        ))
    }
}

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingError {}

/// The value of a setting the backend cannot do without.
///
/// # Errors
///
/// If the variable is not set or empty.
pub fn setting(name: &str) -> Result<String, SettingError> {
    lookup(name).ok_or_else(|| SettingError::missing(name))
}

/// The value of a setting, or `default` if the variable is not set or empty.
pub fn setting_or(name: &str, default: &str) -> String {
    lookup(name).unwrap_or_else(|| default.to_owned())
}

/// The value of a setting as a number or another type that parses from text;
/// `None` if the variable is not set or empty.
///
/// # Errors
///
/// If the value does not parse. `expected` then ends the sentence "expected
/// ...", for instance `a whole number of seconds, at least 1`.
pub fn parsed_setting<T: FromStr>(name: &str, expected: &str) -> Result<Option<T>, SettingError> {
    parsed(name, lookup(name).as_deref(), expected)
}

/// The setting for how long a batch may take, a duration from 10ms to 1h such as
/// `2500ms`; `default` if the variable is not set or empty.
///
/// # Errors
///
/// If it is no such duration.
pub fn timeout_setting(name: &str, default: Duration) -> Result<Duration, SettingError> {
    let example = default.as_millis();
    let expected = format!("a duration from 10ms to 1h, such as {example}ms");
    let timeout = parsed_setting::<humantime::Duration>(name, &expected)?;
    let timeout = timeout.map_or(default, Into::into);
    if !(Duration::from_millis(10)..=Duration::from_secs(3600)).contains(&timeout) {
        let value = humantime::format_duration(timeout).to_string();
        return Err(SettingError::invalid(name, &value, &expected));
    }
    Ok(timeout)
}

/// CloudEvents' content modes: how an event lies in a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentMode {
    /// The data are the message, attributes its headers.
    Binary,
    /// The event in CloudEvents' JSON format is the message.
    Structured,
}

/// The setting for the content mode, `binary` or `structured`; binary if the variable
/// is not set or empty.
///
/// # Errors
///
/// If it is neither.
pub fn content_mode_setting(name: &str) -> Result<ContentMode, SettingError> {
    match setting_or(name, "binary").as_str() {
        "binary" => Ok(ContentMode::Binary),
        "structured" => Ok(ContentMode::Structured),
        other => Err(SettingError::invalid(name, other, "binary or structured")),
    }
}

/// `HOST:PORT` of `host[:port]`, which is a name, an IPv4 address or an IPv6 address in
/// brackets; `None` if it is anything else or more, such as a user or a path.
pub fn server_address(text: &str, default_port: u16) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, port.parse::<u16>().ok()?),
        _ => (text, default_port),
    };
    let in_brackets = host.starts_with('[') && host.ends_with(']');
    let odd = |c: char| c.is_whitespace() || matches!(c, '@' | '/' | ',' | '?' | '#');
    if host.is_empty() || host.contains(odd) || (host.contains(':') && !in_brackets) {
        return None;
    }
    Some(format!("{host}:{port}"))
}

/// WASI has no values that are not Unicode, so those count as not set.
fn lookup(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn parsed<T: FromStr>(
    name: &str,
    value: Option<&str>,
    expected: &str,
) -> Result<Option<T>, SettingError> {
    value
        .map(|value| {
            let invalid = |_| SettingError::invalid(name, value, expected);
            value.trim().parse().map_err(invalid)
        })
        .transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_that_does_not_parse_is_named_with_its_value_and_what_is_expected() {
        let expected = "a whole number of entries";
        assert_eq!(parsed::<u64>("MAXLEN", None, expected), Ok(None));
        assert_eq!(parsed("MAXLEN", Some(" 1000 "), expected), Ok(Some(1000)));

        let error = parsed::<u64>("MAXLEN", Some("many"), expected).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the setting MAXLEN is \"many\", expected a whole number of entries; \
             correct it in grants.env of the manifest"
        );
    }

    #[test]
    fn a_server_has_a_host_and_maybe_a_port_and_nothing_else() {
        for (text, expected) in [
            ("h", "h:7"),
            ("h:1", "h:1"),
            ("[::1]", "[::1]:7"),
            ("[::1]:2", "[::1]:2"),
        ] {
            assert_eq!(server_address(text, 7).as_deref(), Some(expected));
        }
        for bad in [
            "", ":1", "h:port", "h:99999", "u@h", "a,b", "::1", "h/path", "h h",
        ] {
            assert_eq!(server_address(bad, 7), None, "{bad}");
        }
    }

    #[test]
    fn a_missing_setting_is_named_with_the_line_to_add() {
        let error = setting("BACKHAUL_GUEST_NEVER_SET").unwrap_err();
        assert!(
            error
                .to_string()
                .contains("env = { BACKHAUL_GUEST_NEVER_SET = \"...\" }")
        );
        assert_eq!(setting_or("BACKHAUL_GUEST_NEVER_SET", "default"), "default");
    }
}
