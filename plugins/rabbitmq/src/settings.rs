//! What `rabbitmq` takes from its environment.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `RABBITMQ_URL` | `amqp://[user:password@]host[:port][/vhost]` | `amqp://guest:guest@127.0.0.1:5672` |
//! | `RABBITMQ_PASSWORD` | takes the place of the URL's, so that it can come from a file | none |
//! | `RABBITMQ_EXCHANGE` | the exchange; `amq.default` is the one without a name | `backhaul` |
//! | `RABBITMQ_EXCHANGE_TYPE` | `topic`, `direct`, `fanout`, `headers` or a plugin's | `topic` |
//! | `RABBITMQ_EXCHANGE_DURABLE` | whether the exchange outlives the server: `true`, `false` | `true` |
//! | `RABBITMQ_EXCHANGE_DECLARE` | `active` creates it if it is missing, `passive` does not | `active` |
//! | `RABBITMQ_ROUTING_KEY` | template of the routing key | `{type}` |
//! | `RABBITMQ_MANDATORY` | whether an event no queue gets is a dead letter: `true`, `false` | `true` |
//! | `RABBITMQ_PERSISTENT` | whether messages outlive the server: `true`, `false` | `true` |
//! | `RABBITMQ_HEADER_PREFIX` | stands before the names of attributes in headers | `cloudEvents:` |
//! | `RABBITMQ_HEARTBEAT` | seconds between heartbeats, 0 to 65535; 0: none | `0` |
//! | `RABBITMQ_TIMEOUT` | seconds to open, and again to publish a batch; 0.1 to 3600 | `2` |

use amq_protocol::auth::{Credentials, SASLMechanism};
use amq_protocol::types::LongString;
use amq_protocol::uri::{AMQPScheme, AMQPUri};
use backhaul_guest::{SettingError, Template, parsed_setting, setting, setting_or};
use std::time::Duration;

/// The most bytes AMQP's short strings hold: names, routing keys, most properties.
pub(crate) const SHORT_STRING: usize = 255;

/// What RabbitMQ calls the exchange without a name where it needs one.
const DEFAULT_EXCHANGE: &str = "amq.default";

pub(crate) struct Settings {
    pub(crate) address: Address,
    pub(crate) exchange: Exchange,
    pub(crate) routing_key: Template,
    pub(crate) header_prefix: String,
    pub(crate) mandatory: bool,
    pub(crate) persistent: bool,
    /// `None`: no heartbeats.
    pub(crate) heartbeat: Option<Duration>,
    /// For opening, and again for each batch.
    pub(crate) timeout: Duration,
}

/// Where the server is, and as whom to log in.
#[derive(Debug)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) vhost: String,
    credentials: Credentials,
}

pub(crate) struct Exchange {
    /// Empty: the one without a name, which is always there.
    pub(crate) name: String,
    pub(crate) kind: String,
    pub(crate) durable: bool,
    pub(crate) passive: bool,
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, SettingError> {
        let url = setting_or("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672");
        Ok(Self {
            address: Address::parse(&url, setting("RABBITMQ_PASSWORD").ok())?,
            exchange: Exchange::from_env()?,
            routing_key: Template::from_setting("RABBITMQ_ROUTING_KEY", "{type}")?,
            header_prefix: header_prefix(setting_or("RABBITMQ_HEADER_PREFIX", "cloudEvents:"))?,
            mandatory: switch("RABBITMQ_MANDATORY")?,
            persistent: switch("RABBITMQ_PERSISTENT")?,
            heartbeat: heartbeat()?,
            timeout: timeout()?,
        })
    }
}

impl Address {
    /// The crate's own errors are not passed on: they may quote the URL.
    fn parse(url: &str, password: Option<String>) -> Result<Self, SettingError> {
        Self::try_parse(url, password).ok_or_else(|| {
            let expected = "amqp://[user:password@]host[:port][/vhost], without parameters, \
                            special characters in % notation (the vhost \"/\" is %2f); for TLS, write \
                            amqp:// and grant tls://HOST:PORT";
            SettingError::invalid_secret("RABBITMQ_URL", expected)
        })
    }

    fn try_parse(url: &str, password: Option<String>) -> Option<Self> {
        let uri: AMQPUri = url.parse().ok()?;
        let (_, rest) = url.split_once("://")?;
        let authority = rest.split(['/', '?', '#']).next()?;
        let (_, place) = authority.rsplit_once('@').unwrap_or(("", authority));
        if uri.scheme != AMQPScheme::AMQP || place.is_empty() || rest.contains(['?', '#']) {
            return None;
        }
        let user = uri.authority.userinfo;
        let password = password.unwrap_or(user.password);
        if uri.vhost.len() > SHORT_STRING {
            return None;
        }
        Some(Self {
            // The crate takes every IPv6 address for localhost.
            host: match place.strip_prefix('[') {
                Some(v6) => v6.split_once(']')?.0.to_owned(),
                None => uri.authority.host,
            },
            port: uri.authority.port,
            vhost: uri.vhost,
            credentials: Credentials::new(user.username, password),
        })
    }

    /// What proves to the server who we are.
    pub(crate) fn login(&self) -> LongString {
        self.credentials
            .sasl_auth_string(SASLMechanism::Plain)
            .into()
    }

    /// Host and port, for messages and as they are granted.
    pub(crate) fn place(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        }
    }
}

impl Exchange {
    fn from_env() -> Result<Self, SettingError> {
        let name = short("RABBITMQ_EXCHANGE", "backhaul")?;
        let passive = match setting_or("RABBITMQ_EXCHANGE_DECLARE", "active").as_str() {
            "active" => false,
            "passive" => true,
            other => {
                let expected = "active or passive";
                let error = SettingError::invalid("RABBITMQ_EXCHANGE_DECLARE", other, expected);
                return Err(error);
            }
        };
        Ok(Self {
            name: if name == DEFAULT_EXCHANGE {
                String::new()
            } else {
                name
            },
            kind: short("RABBITMQ_EXCHANGE_TYPE", "topic")?,
            durable: switch("RABBITMQ_EXCHANGE_DURABLE")?,
            passive,
        })
    }
}

fn short(name: &str, default: &str) -> Result<String, SettingError> {
    let value = setting_or(name, default);
    if value.len() > SHORT_STRING {
        return Err(SettingError::invalid(name, &value, "at most 255 bytes"));
    }
    Ok(value)
}

fn header_prefix(prefix: String) -> Result<String, SettingError> {
    // Leaves room for the longest names of attributes in use.
    if prefix.len() > 64 {
        let expected = "at most 64 bytes";
        return Err(SettingError::invalid(
            "RABBITMQ_HEADER_PREFIX",
            &prefix,
            expected,
        ));
    }
    Ok(prefix)
}

/// A setting that is on unless it is switched off.
fn switch(name: &str) -> Result<bool, SettingError> {
    Ok(parsed_setting(name, "true or false")?.unwrap_or(true))
}

fn heartbeat() -> Result<Option<Duration>, SettingError> {
    let expected = "a whole number of seconds, 0 to 65535";
    let seconds: u16 = parsed_setting("RABBITMQ_HEARTBEAT", expected)?.unwrap_or(0);
    Ok((seconds > 0).then(|| Duration::from_secs(seconds.into())))
}

/// Opening and publishing together stay below the 5 seconds a call may take
/// unless set otherwise, so that the host learns what was slow.
fn timeout() -> Result<Duration, SettingError> {
    let (name, expected) = ("RABBITMQ_TIMEOUT", "a number of seconds, 0.1 to 3600");
    let seconds: f64 = parsed_setting(name, expected)?.unwrap_or(2.0);
    if !(0.1..=3600.0).contains(&seconds) {
        return Err(SettingError::invalid(name, &seconds.to_string(), expected));
    }
    Ok(Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Settings {
        /// The defaults, with this URL and less patience.
        pub(crate) fn for_url(url: &str) -> Self {
            Self {
                address: Address::parse(url, None).expect("a valid URL"),
                timeout: Duration::from_secs(1),
                ..Self::from_env().expect("the defaults")
            }
        }
    }

    #[test]
    fn an_url_that_cannot_be_used_is_refused_without_being_shown() {
        for bad in [
            "",
            "secret",
            "127.0.0.1:5672",
            "http://127.0.0.1",
            "amqps://u:secret@127.0.0.1",
            "amqp://u:secret@127.0.0.1:port",
            "amqp://u:secret@127.0.0.1?heartbeat=5",
            "amqp://u:%ff@127.0.0.1",
            "amqp://",
            "amqp:///vhost",
            "amqp://[::1/v",
        ] {
            let error = Address::parse(bad, None).expect_err(bad).to_string();
            assert!(error.contains("RABBITMQ_URL"), "{error}");
            assert!(!error.contains("secret@"), "{error}");
        }
    }

    #[test]
    fn the_parts_of_an_url_have_the_defaults_of_amqp() {
        for (url, place, vhost, login) in [
            (
                "amqp://rabbit.internal",
                "rabbit.internal:5672",
                "/",
                "\0guest\0guest",
            ),
            ("amqp://u:p@[::1]:7/v", "[::1]:7", "v", "\0u\0p"),
            ("amqp://u:a%2Fb@h:1/%2f", "h:1", "/", "\0u\0a/b"),
            ("amqp://u:p@h/", "h:5672", "", "\0u\0p"),
        ] {
            let address = Address::parse(url, None).expect(url);
            assert_eq!(address.place(), place, "{url}");
            assert_eq!(address.vhost, vhost, "{url}");
            assert_eq!(address.login().as_bytes(), login.as_bytes(), "{url}");
        }
        let address = Address::parse("amqp://u:old@h", Some("new".into())).expect("a valid URL");
        assert_eq!(address.login().as_bytes(), b"\0u\0new");
    }
}
