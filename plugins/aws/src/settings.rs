//! What a backend takes from its environment. Names that begin with the service
//! are written `SQS_` here, and are `SNS_` with SNS.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` | who sends | none, must be set |
//! | `AWS_SESSION_TOKEN` | what belongs to keys that expire | none |
//! | `AWS_REGION` | the region signatures name | that of the target |
//! | `AWS_ENDPOINT_URL` | where the service is | where the target is |
//! | `SQS_QUEUE_URL`, `SNS_TOPIC_ARN` | the target, with fields | none, must be set |
//! | `SQS_GROUP_ID` | the group of an event that says none itself, with fields | `{source}` |
//! | `SQS_DEDUPLICATION_ID` | what repeats are told by, with fields | source and id |
//! | `SQS_FIFO_CALLS` | `strict`: a call has one message of a group at most; `full`: several | `strict` |
//! | `SQS_MAX_BYTES` | of a message, and of a call | the service's |
//! | `SQS_CONCURRENCY` | calls side by side, 1 to 32 | 4 |
//! | `SQS_TIMEOUT` | for all calls of a batch, 10ms to 1h | `4500ms` |
//! | `SNS_SUBJECT` | the subject, with fields | none |

use crate::Service;
use crate::endpoint;
use crate::signing::Signer;
use backhaul_guest::{
    SettingError, Template, parsed_setting, setting, setting_or, timeout_setting,
};
use std::num::NonZeroU8;
use std::time::Duration;

pub(crate) struct Settings {
    pub(crate) signer: Signer,
    /// Scheme, host and port of the service.
    pub(crate) origin: String,
    pub(crate) target: Template,
    pub(crate) group: Template,
    pub(crate) deduplication: Option<Template>,
    pub(crate) subject: Option<Template>,
    /// One message of a group in a call, and no more.
    pub(crate) strict: bool,
    pub(crate) max_bytes: usize,
    pub(crate) concurrency: NonZeroU8,
    pub(crate) timeout: Duration,
}

impl Settings {
    pub(crate) fn from_env<S: Service>() -> Result<Self, SettingError> {
        let named = |name: &str| format!("{}_{name}", S::NAME);
        let target = setting(S::TARGET)?;
        let invalid = || SettingError::invalid(S::TARGET, &target, S::TARGET_FORM);
        let template = Template::parse(S::TARGET, &target)?;
        let place = S::place(&target).ok_or_else(invalid)?;
        if !target.contains(['{', '}']) && !S::is_target(&target) {
            return Err(invalid());
        }
        let region = setting_or("AWS_REGION", "");
        let region = Some(region).filter(|region| !region.is_empty());
        let region = match region.or(place.region) {
            Some(region) => region,
            None => setting("AWS_REGION")?,
        };
        let optional = |name: &str| match setting_or(&named(name), "") {
            text if text.is_empty() => Ok(None),
            text => Template::parse(&named(name), &text).map(Some),
        };
        Ok(Self {
            signer: Signer::from_env(region, S::SIGNING_NAME)?,
            origin: endpoint::from_env()?.unwrap_or(place.origin),
            target: template,
            group: Template::from_setting(&named("GROUP_ID"), "{source}")?,
            deduplication: optional("DEDUPLICATION_ID")?,
            subject: if S::SUBJECTS {
                optional("SUBJECT")?
            } else {
                None
            },
            strict: strict(&named("FIFO_CALLS"))?,
            max_bytes: number(&named("MAX_BYTES"), S::MAX_BYTES, MAX_BYTES)?,
            concurrency: concurrency(&named("CONCURRENCY"))?,
            timeout: timeout_setting(&named("TIMEOUT"), TIMEOUT)?,
        })
    }
}

/// With the rest of a call, less than the 5 seconds it may take.
const TIMEOUT: Duration = Duration::from_millis(4500);

/// What any service may be told to take: 1 KiB to 2 MiB.
const MAX_BYTES: std::ops::RangeInclusive<usize> = 1 << 10..=2 << 20;

/// As many as the host connects for one instance.
const MAX_CONCURRENCY: u8 = 32;

fn strict(name: &str) -> Result<bool, SettingError> {
    match setting_or(name, "strict").as_str() {
        "strict" => Ok(true),
        "full" => Ok(false),
        other => Err(SettingError::invalid(name, other, "strict or full")),
    }
}

fn number(
    name: &str,
    default: usize,
    range: std::ops::RangeInclusive<usize>,
) -> Result<usize, SettingError> {
    let expected = format!(
        "a whole number of bytes, {} to {}",
        range.start(),
        range.end()
    );
    let number = parsed_setting(name, &expected)?.unwrap_or(default);
    if range.contains(&number) {
        return Ok(number);
    }
    Err(SettingError::invalid(name, &number.to_string(), &expected))
}

fn concurrency(name: &str) -> Result<NonZeroU8, SettingError> {
    let expected = "a whole number of calls, 1 to 32";
    let default = NonZeroU8::new(4).expect("not zero");
    let calls = parsed_setting(name, expected)?.unwrap_or(default);
    if calls.get() <= MAX_CONCURRENCY {
        return Ok(calls);
    }
    Err(SettingError::invalid(name, &calls.to_string(), expected))
}
