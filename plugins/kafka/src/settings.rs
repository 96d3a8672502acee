//! What `kafka` takes from its environment.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `KAFKA_BROKERS` | `host[:port]`, one or more with commas between | `127.0.0.1:9092` |
//! | `KAFKA_TOPIC` | template of the topic | `events` |
//! | `KAFKA_KEY` | template of the key; empty: none | `{ext.partitionkey:}` |
//! | `KAFKA_MODE` | content mode of CloudEvents: `binary` or `structured` | `binary` |
//! | `KAFKA_COMPRESSION` | `none`, `gzip`, `snappy`, `lz4` or `zstd` | `none` |
//! | `KAFKA_BATCH_BYTES` | the most bytes of one record batch, before compression | `1000000` |
//! | `KAFKA_SASL` | `PLAIN`, `SCRAM-SHA-256` or `SCRAM-SHA-512` | none |
//! | `KAFKA_USER`, `KAFKA_PASSWORD` | to log in with | none |
//! | `KAFKA_TIMEOUT` | for a batch, reconnecting included, 10ms to 1h | `2500ms` |

use crate::compression::Compression;
use crate::topic::TopicTemplate;
use backhaul_guest::{ContentMode, SettingError, Template, content_mode_setting, parsed_setting};
use backhaul_guest::{server_address, setting, setting_or, timeout_setting};
use std::time::Duration;

pub(crate) struct Settings {
    /// `HOST:PORT`, at least one.
    pub(crate) brokers: Vec<String>,
    pub(crate) login: Option<Login>,
    pub(crate) topic: TopicTemplate,
    pub(crate) key: Template,
    pub(crate) mode: ContentMode,
    pub(crate) compression: Compression,
    /// The most bytes of one record batch, unless a single event has more.
    pub(crate) batch_bytes: usize,
    pub(crate) timeout: Duration,
}

#[derive(Clone)]
pub(crate) struct Login {
    pub(crate) mechanism: Mechanism,
    pub(crate) user: String,
    pub(crate) password: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl Mechanism {
    /// As the protocol names it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::ScramSha256 => "SCRAM-SHA-256",
            Self::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

const BATCH_BYTES: usize = 1_000_000;

const KEY: &str = "{ext.partitionkey:}";

const TIMEOUT: Duration = Duration::from_millis(2500);

impl Settings {
    pub(crate) fn from_env() -> Result<Self, SettingError> {
        let compression = setting_or("KAFKA_COMPRESSION", "none");
        Ok(Self {
            brokers: brokers(&setting_or("KAFKA_BROKERS", "127.0.0.1:9092"))?,
            login: login()?,
            topic: TopicTemplate::from_env()?,
            key: Template::from_setting("KAFKA_KEY", KEY)?,
            mode: content_mode_setting("KAFKA_MODE")?,
            compression: Compression::named(&compression).ok_or_else(|| {
                let expected = "none, gzip, snappy, lz4 or zstd";
                SettingError::invalid("KAFKA_COMPRESSION", &compression, expected)
            })?,
            batch_bytes: batch_bytes()?,
            timeout: timeout_setting("KAFKA_TIMEOUT", TIMEOUT)?,
        })
    }
}

fn brokers(text: &str) -> Result<Vec<String>, SettingError> {
    let brokers = text
        .split(',')
        .map(|broker| server_address(broker.trim(), 9092))
        .collect::<Option<Vec<String>>>();
    brokers.ok_or_else(|| {
        let expected = "host[:port], one or more with commas between, without a scheme, user and password \
                        (these go to KAFKA_USER and KAFKA_PASSWORD)";
        SettingError::invalid_secret("KAFKA_BROKERS", expected)
    })
}

fn login() -> Result<Option<Login>, SettingError> {
    let Ok(name) = setting("KAFKA_SASL") else {
        return match setting("KAFKA_USER") {
            Ok(user) => {
                let expected = "together with KAFKA_SASL, which says how to log in: PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
                Err(SettingError::invalid("KAFKA_USER", &user, expected))
            }
            Err(_) => Ok(None),
        };
    };
    let all = [
        Mechanism::Plain,
        Mechanism::ScramSha256,
        Mechanism::ScramSha512,
    ];
    let known = all.into_iter().find(|known| known.name() == name);
    let mechanism = known.ok_or_else(|| {
        let expected = "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512";
        SettingError::invalid("KAFKA_SASL", &name, expected)
    })?;
    Ok(Some(Login {
        mechanism,
        user: setting("KAFKA_USER")?,
        password: setting("KAFKA_PASSWORD")?,
    }))
}

fn batch_bytes() -> Result<usize, SettingError> {
    let (name, expected) = ("KAFKA_BATCH_BYTES", "a number of bytes, 1000 to 16000000");
    let bytes = parsed_setting(name, expected)?.unwrap_or(BATCH_BYTES);
    if !(1_000..=16_000_000).contains(&bytes) {
        return Err(SettingError::invalid(name, &bytes.to_string(), expected));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Default for Settings {
        fn default() -> Self {
            Self {
                timeout: Duration::from_secs(20),
                ..Self::from_env().expect("the defaults")
            }
        }
    }

    #[test]
    fn brokers_are_hosts_with_or_without_a_port_and_nothing_else() {
        for (text, expected) in [
            ("h", &["h:9092"][..]),
            (
                "h:1, i ,[::1],[::1]:7",
                &["h:1", "i:9092", "[::1]:9092", "[::1]:7"],
            ),
        ] {
            assert_eq!(brokers(text).unwrap(), expected);
        }
        for bad in [
            "",
            "h,",
            "h:port",
            "h:99999",
            "::1",
            "kafka://h",
            "u:hush@h:1",
            "h h",
        ] {
            let error = brokers(bad).expect_err(bad).to_string();
            assert!(!error.contains("hush"), "{error}");
        }
    }
}
