//! A backend's settings: the environment variables its manifest grants.

use std::fmt;
use std::str::FromStr;

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
