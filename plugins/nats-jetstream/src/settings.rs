//! What `nats-jetstream` takes from its environment.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `NATS_URL` | `nats://host[:port]` | `nats://127.0.0.1:4222` |
//! | `NATS_USER`, `NATS_PASSWORD` | to log in with | none |
//! | `NATS_TOKEN` | to log in with | none |
//! | `NATS_NKEY` | seed of a user's NKey (`SU...`) to log in with | none |
//! | `NATS_SUBJECT` | template of the subject | `events.{type}` |
//! | `NATS_MSG_ID` | template of what a stream tells repeats by | source and id, a line end between |
//! | `NATS_MODE` | content mode of CloudEvents: `binary` or `structured` | `binary` |
//! | `NATS_TIMEOUT` | for the acknowledgements of a batch, 10ms to 1h | `2500ms` |

use backhaul_guest::{ContentMode, SettingError, Template, content_mode_setting, server_address};
use backhaul_guest::{setting, setting_or, timeout_setting};
use nkeys::{KeyPair, KeyPairType};
use std::time::Duration;

pub(crate) struct Settings {
    /// Host and port.
    pub(crate) address: String,
    pub(crate) login: Login,
    pub(crate) subject: Template,
    pub(crate) msg_id: Template,
    pub(crate) mode: ContentMode,
    pub(crate) timeout: Duration,
}

pub(crate) enum Login {
    None,
    User(String, String),
    Token(String),
    NKey(Box<KeyPair>),
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, SettingError> {
        let address = address(&setting_or("NATS_URL", "nats://127.0.0.1:4222"));
        Ok(Self {
            address: address.ok_or_else(|| {
                let expected = "nats://host[:port], without user and password (these go to NATS_USER and NATS_PASSWORD); for TLS, write nats:// and grant tls+nats://HOST:PORT";
                SettingError::invalid_secret("NATS_URL", expected)
            })?,
            login: login()?,
            subject: Template::from_setting("NATS_SUBJECT", SUBJECT)?,
            msg_id: Template::from_setting("NATS_MSG_ID", MSG_ID)?,
            mode: content_mode_setting("NATS_MODE")?,
            timeout: timeout_setting("NATS_TIMEOUT", TIMEOUT)?,
        })
    }
}

const SUBJECT: &str = "events.{type}";

/// Only together they are unique. No attribute has a line end, so no two of them make
/// the same text.
const MSG_ID: &str = "{source}\n{id}";

const TIMEOUT: Duration = Duration::from_millis(2500);

#[cfg(test)]
impl Default for Settings {
    fn default() -> Self {
        Self {
            address: "127.0.0.1:4222".to_owned(),
            login: Login::None,
            subject: Template::parse("NATS_SUBJECT", SUBJECT).expect("a template"),
            msg_id: Template::parse("NATS_MSG_ID", MSG_ID).expect("a template"),
            mode: ContentMode::Binary,
            timeout: TIMEOUT,
        }
    }
}

fn address(url: &str) -> Option<String> {
    let authority = url.strip_prefix("nats://")?;
    server_address(authority.strip_suffix('/').unwrap_or(authority), 4222)
}

fn login() -> Result<Login, SettingError> {
    let (user, token) = (setting("NATS_USER").ok(), setting("NATS_TOKEN").ok());
    match (user, token, setting("NATS_NKEY").ok()) {
        (None, None, None) => Ok(Login::None),
        (Some(user), None, None) => Ok(Login::User(user, setting_or("NATS_PASSWORD", ""))),
        (None, Some(token), None) => Ok(Login::Token(token)),
        (None, None, Some(seed)) => key(&seed).map(Login::NKey).ok_or_else(|| {
            let expected = "the seed of a user's NKey, which begins with SU";
            SettingError::invalid_secret("NATS_NKEY", expected)
        }),
        (Some(user), ..) => {
            let expected = "one way to log in: NATS_USER, NATS_TOKEN or NATS_NKEY";
            Err(SettingError::invalid("NATS_USER", &user, expected))
        }
        _ => {
            let expected = "one way to log in: NATS_USER, NATS_TOKEN or NATS_NKEY";
            Err(SettingError::invalid_secret("NATS_TOKEN", expected))
        }
    }
}

fn key(seed: &str) -> Option<Box<KeyPair>> {
    let pair = KeyPair::from_seed(seed.trim()).ok()?;
    matches!(pair.key_pair_type(), KeyPairType::User).then(|| Box::new(pair))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_host_and_maybe_a_port_and_nothing_else() {
        for (url, expected) in [
            ("nats://h", "h:4222"),
            ("nats://h:1/", "h:1"),
            ("nats://[::1]", "[::1]:4222"),
            ("nats://[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(address(url).as_deref(), Some(expected));
        }
        for bad in [
            "",
            "h:4222",
            "tls://h",
            "nats://",
            "nats://u:p@h",
            "nats://h:port",
            "nats://h:99999",
            "nats://a,b",
            "nats://::1",
            "nats://h/path",
        ] {
            assert_eq!(address(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_is_a_users() {
        assert!(key(&KeyPair::new_user().seed().unwrap()).is_some());
        assert!(key(&KeyPair::new_account().seed().unwrap()).is_none());
        assert!(key(&KeyPair::new_user().public_key()).is_none());
        assert!(key("SU").is_none());
    }
}
