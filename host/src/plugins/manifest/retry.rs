//! `[retry]`: when events that may work later are offered again.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::values::{Age, Count, Factor, Span};
use crate::retry::RetryPolicy;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawRetry {
    first_delay: Option<Spanned<Span<1>>>,
    max_delay: Option<Spanned<Span<1>>>,
    multiplier: Option<Factor>,
    attempts: Option<Count<1, 1_000_000>>,
    max_age: Option<Age>,
}

impl RawRetry {
    /// What it says, with defaults for what it does not; an error comes with
    /// where in the manifest it is.
    pub(super) fn policy(&self) -> Result<RetryPolicy, (Range<usize>, String)> {
        let defaults = RetryPolicy::default();
        let delay = |value: &Option<Spanned<Span<1>>>| value.as_ref().map(|v| v.get_ref().0);
        let policy = RetryPolicy {
            first_delay: delay(&self.first_delay).unwrap_or(defaults.first_delay),
            max_delay: delay(&self.max_delay).unwrap_or(defaults.max_delay),
            multiplier: self
                .multiplier
                .as_ref()
                .map_or(defaults.multiplier, |m| m.0),
            max_attempts: self.attempts.as_ref().map(|attempts| attempts.0 as u32),
            max_age: self.max_age.as_ref().map(|age| age.0),
        };
        if policy.max_delay >= policy.first_delay {
            return Ok(policy);
        }
        let (first, max) = (policy.first_delay, policy.max_delay);
        Err(match (&self.max_delay, &self.first_delay) {
            (Some(value), _) => {
                let problem = format!("{max:?} is less than first_delay, which is {first:?}");
                (value.span(), problem)
            }
            (None, value) => {
                let problem = format!("{first:?} is more than max_delay, which is {max:?}");
                (value.as_ref().map_or(0..0, Spanned::span), problem)
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use crate::plugins::Manifest;
    use crate::retry::RetryPolicy;

    fn parse(text: &str) -> Result<RetryPolicy, String> {
        let manifest = Manifest::parse("plugins/x.toml".as_ref(), text);
        manifest.map(|m| m.retry).map_err(|error| error.to_string())
    }

    #[test]
    fn retries_have_no_end_unless_one_is_set() {
        assert_eq!(parse(""), Ok(RetryPolicy::default()));
        let text = r#"
            [retry]
            first_delay = "10ms"
            max_delay = "1m"
            multiplier = 3
            attempts = 20
            max_age = "24h"
        "#;
        let expected = RetryPolicy {
            first_delay: Duration::from_millis(10),
            max_delay: Duration::from_secs(60),
            multiplier: 3.0,
            max_attempts: Some(20),
            max_age: Some(Duration::from_secs(24 * 3600)),
        };
        assert_eq!(parse(text), Ok(expected));
        let ends = |text: &str| {
            let policy = parse(&format!("[retry]\n{text}")).unwrap();
            (policy.max_attempts, policy.max_age, policy.multiplier)
        };
        assert_eq!(ends("attempts = 1000000"), (Some(1_000_000), None, 2.0));
        let year = Some(Duration::from_secs(365 * 86400));
        assert_eq!(ends("max_age = \"365days\""), (None, year, 2.0));
        assert_eq!(ends("multiplier = 1.5"), (None, None, 1.5));
    }

    #[test]
    fn what_is_wrong_with_retries_is_named_with_file_line_and_key() {
        for (line, problem) in [
            (
                "first_delay = 5",
                "`first_delay`: is not a time from 1ms to 1h",
            ),
            (
                "max_delay = \"2h\"",
                "`max_delay`: is not a time from 1ms to 1h",
            ),
            (
                "first_delay = \"0s\"",
                "`first_delay`: is not a time from 1ms",
            ),
            (
                "multiplier = 0.5",
                "`multiplier`: is not a number from 1.0 to 10.0",
            ),
            ("multiplier = nan", "`multiplier`: is not a number"),
            ("multiplier = \"2\"", "`multiplier`: is not a number"),
            (
                "attempts = 0",
                "`attempts`: is not a whole number from 1 to 1000000",
            ),
            ("attempts = 1000001", "`attempts`: is not a whole number"),
            (
                "max_age = \"500ms\"",
                "`max_age`: is not a time from 1s to 365days",
            ),
            ("max_age = \"366days\"", "`max_age`: is not a time"),
            ("max_tries = 3", "unknown field `max_tries`"),
            (
                "max_delay = \"50ms\"",
                "`max_delay`: 50ms is less than first_delay, which is 100ms",
            ),
            (
                "first_delay = \"10s\"",
                "`first_delay`: 10s is more than max_delay, which is 5s",
            ),
        ] {
            let error = parse(&format!("[retry]\n{line}")).unwrap_err();
            assert!(error.starts_with("plugins/x.toml, line 2: "), "{error}");
            assert!(error.contains(problem), "{line}: {error}");
        }
    }
}
