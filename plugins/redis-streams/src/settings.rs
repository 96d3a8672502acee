//! What `redis-streams` takes from its environment, and what follows from it:
//! how to connect, and how an event becomes an `XADD`.
//!
//! | setting | meaning | default |
//! | --- | --- | --- |
//! | `REDIS_URL` | `redis://[user[:password]@]host[:port][/database]` | `redis://127.0.0.1:6379` |
//! | `REDIS_PASSWORD` | takes the place of the URL's, so that it can come from a file | none |
//! | `REDIS_STREAM` | template of the stream's key, for instance `events:{type}` | `backhaul:events` |
//! | `REDIS_MAXLEN` | entries to keep, at least 1; Redis trims in steps (`MAXLEN ~`) | no trimming |
//! | `REDIS_MAXAGE` | instead: how long to keep an entry (`MINID ~`) | no trimming |
//! | `REDIS_FIELDS` | fields of an entry: `attributes` or `cloudevent` | `attributes` |
//!
//! With `attributes` an entry has the fields `id`, `type`, `source`, `time` and
//! `data` (as the producer gave it), then `subject`, `datacontenttype` and the
//! other attributes the event has. With `cloudevent` it has `type`, to filter by
//! without parsing, and `event`, the event in CloudEvents' JSON format.

use crate::trimming::Trimming;
use backhaul_guest::{Event, Failure, OpenError, SettingError, Template, setting, setting_or};
use redis::{Client, Cmd, Connection, ConnectionLike, ErrorKind, IntoConnectionInfo, RedisWrite};
use redis::{ConnectionAddr, ConnectionInfo, ProtocolVersion, RedisError, RedisResult};
use std::borrow::Cow;
use std::time::Duration;

/// For connecting, and for each of the (at most two) replies while logging in.
/// Connecting, [`REPLY_TIMEOUT`] for the first reply and once more for a batch
/// stay below the 5 seconds a call may take, so that the host learns what was
/// slow.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// For a reply to come. WASI's sockets know no time-out for sending: a server
/// that stops reading in the middle of a batch larger than the socket's buffers
/// is noticed by the host's limit for the call.
const REPLY_TIMEOUT: Duration = Duration::from_millis(1_500);

pub(crate) struct Settings {
    /// Address, credentials and database.
    client: Client,
    /// Host and port, for messages; a URL may hold a password.
    address: String,
    stream: Template,
    trimming: Trimming,
    fields: Fields,
}

/// An event on its way to its stream.
pub(crate) struct Entry<'a> {
    /// Of the event in the batch.
    pub(crate) index: usize,
    pub(crate) key: Cow<'a, str>,
    event: &'a Event,
}

enum Fields {
    Attributes,
    CloudEvent,
}

impl Settings {
    pub(crate) fn from_env() -> Result<Self, SettingError> {
        let (url, password) = (
            setting_or("REDIS_URL", "redis://127.0.0.1:6379"),
            setting("REDIS_PASSWORD").ok(),
        );
        let info = connection_info(&url, password).ok_or_else(|| {
            let expected = "redis://[user[:password]@]host[:port][/database], with special characters in % notation; for TLS, write redis:// and grant tls://HOST:PORT";
            SettingError::invalid_secret("REDIS_URL", expected)
        })?;
        let fields = match setting_or("REDIS_FIELDS", "attributes").as_str() {
            "attributes" => Fields::Attributes,
            "cloudevent" => Fields::CloudEvent,
            other => {
                let expected = "attributes or cloudevent";
                return Err(SettingError::invalid("REDIS_FIELDS", other, expected));
            }
        };
        Ok(Self {
            address: info.addr().to_string(),
            client: Client::open(info)
                .map_err(|_| SettingError::invalid_secret("REDIS_URL", "a Redis address"))?,
            stream: Template::from_setting("REDIS_STREAM", "backhaul:events")?,
            trimming: Trimming::from_env()?,
            fields,
        })
    }

    pub(crate) fn connect(&self) -> Result<Connection, OpenError> {
        self.try_connect().map_err(|error| {
            match error.kind() {
                ErrorKind::AuthenticationFailed => format!(
                    "Redis at {} refused user or password; check REDIS_URL and REDIS_PASSWORD",
                    self.address
                ),
                _ => format!(
                    "cannot connect to Redis at {0}; is it running, and {0} granted as tcp? {1}",
                    self.address,
                    explain(&error)
                ),
            }
            .into()
        })
    }

    fn try_connect(&self) -> RedisResult<Connection> {
        let mut connection = self.client.get_connection_with_timeout(CONNECT_TIMEOUT)?;
        connection.set_read_timeout(Some(REPLY_TIMEOUT))?;
        // Finds a server that accepts but does not answer before a batch is sent.
        // A refusal (`NOAUTH`, `NOPERM`) is an answer; `XADD` may fare better.
        connection.req_command(&redis::cmd("PING"))?;
        Ok(connection)
    }

    /// The events with their streams, but for those that lack what the stream's
    /// name is made of.
    pub(crate) fn entries<'a>(
        &'a self,
        events: &'a [Event],
        failures: &mut Vec<Failure>,
    ) -> Vec<Entry<'a>> {
        let mut entries = Vec::with_capacity(events.len());
        for (index, event) in events.iter().enumerate() {
            match self.stream.fill(event) {
                Ok(key) => entries.push(Entry { index, key, event }),
                Err(error) => failures.push(Failure::permanent(index, error.to_string())),
            }
        }
        entries
    }

    /// One `XADD` for each entry, in the form they are sent.
    pub(crate) fn xadds(&self, entries: &[Entry<'_>]) -> Vec<u8> {
        let size: usize = entries
            .iter()
            .map(|entry| entry.event.data.len() + 512)
            .sum();
        let (mut packed, mut command) = (Vec::with_capacity(size), Cmd::new());
        for entry in entries {
            self.xadd(entry, &mut command);
            command.write_packed_command(&mut packed);
        }
        packed
    }

    fn xadd(&self, entry: &Entry<'_>, command: &mut Cmd) {
        let event = entry.event;
        command.clear();
        command.arg("XADD").arg(entry.key.as_ref());
        self.trimming.write_options(command);
        command.arg("*");
        match self.fields {
            Fields::Attributes => attribute_fields(event, command),
            Fields::CloudEvent => {
                let mut json = Vec::with_capacity(event.data.len() + 512);
                event.append_cloudevent_json(&mut json);
                command.arg("type").arg(&event.event_type);
                command.arg("event").arg(json);
            }
        }
    }

    /// What the loss of the connection means for the events without a reply.
    pub(crate) fn lost(&self, unanswered: &[Entry<'_>], reason: &str) -> Vec<Failure> {
        let message = format!(
            "no acknowledgement from Redis at {}: {reason}",
            self.address
        );
        unanswered
            .iter()
            .map(|entry| Failure::retryable(entry.index, message.as_str()))
            .collect()
    }
}

fn attribute_fields(event: &Event, command: &mut Cmd) {
    command.arg("id").arg(&event.id);
    command.arg("type").arg(&event.event_type);
    command.arg("source").arg(&event.source);
    if let Some(time) = event.time_rfc3339() {
        command.arg("time").write_arg_fmt(time);
    }
    command.arg("data").arg(event.data.as_slice());
    if let Some(subject) = &event.subject {
        command.arg("subject").arg(subject);
    }
    if let Some(content_type) = &event.content_type {
        command.arg("datacontenttype").arg(content_type);
    }
    for (name, value) in &event.attributes {
        command.arg(name).arg(value);
    }
}

/// `None` if the URL cannot be used. The crate's error is not passed on: it may
/// quote parts of the URL.
fn connection_info(url: &str, password: Option<String>) -> Option<ConnectionInfo> {
    let info = url.into_connection_info().ok()?;
    if !matches!(info.addr(), ConnectionAddr::Tcp(..)) {
        return None;
    }
    let mut redis = info.redis_settings().clone();
    if let Some(password) = password {
        redis = redis.set_password(password);
    }
    // RESP2: one reply for each command, with no pushes between them. No name of
    // the library: each of those replies would add its own time-out.
    redis = redis.set_protocol(ProtocolVersion::RESP2);
    Some(info.set_redis_settings(redis.set_skip_set_lib_name()))
}

/// The crate passes on the errors of WASI sockets, which call a time-out
/// "Resource temporarily unavailable".
pub(crate) fn explain(error: &RedisError) -> String {
    if error.is_timeout() {
        "it does not answer in time".to_owned()
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_url_that_cannot_be_used_is_refused_and_one_with_odd_parts_is_not() {
        for bad in [
            "",
            "127.0.0.1:6379",
            "http://127.0.0.1",
            "rediss://127.0.0.1",
            "unix:///run/redis.sock",
            "redis://127.0.0.1:port",
            "redis://127.0.0.1/database",
            "redis://",
        ] {
            assert!(connection_info(bad, None).is_none(), "{bad}");
        }
        let info = connection_info("redis://user:a%2Fb@[::1]/3?protocol=resp3", None);
        let info = info.expect("a valid URL");
        assert_eq!(info.redis_settings().password(), Some("a/b"));
        assert_eq!(info.redis_settings().db(), 3);
        assert_eq!(info.redis_settings().protocol(), ProtocolVersion::RESP2);
        assert_eq!(info.addr().to_string(), "::1:6379");
    }

    #[test]
    fn the_password_setting_takes_the_place_of_the_urls() {
        let info = connection_info("redis://:old@localhost", Some("new".into()));
        let info = info.expect("a valid URL");
        assert_eq!(info.redis_settings().password(), Some("new"));
    }
}
