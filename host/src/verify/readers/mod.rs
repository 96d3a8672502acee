//! Readers: what looks into a queue to see what arrived there.
//!
//! One for each backend we ship, and one that asks a program (`command`). A reader
//! is no part of what is tried: it has connections of its own, straight to the
//! server, and none of the plugin's code. Where the manifest grants the server by TLS,
//! a reader speaks it, too (`tls`). It tells every event it finds from where
//! it began; whoever asked sorts out those of others.

mod command;
mod file;
mod kafka;
mod nats;
mod rabbitmq;
mod redis;
mod sqs;
mod tls;
mod webhook;

use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, header};
use bytes::Bytes;

use super::profile::{ReaderKind, Variables};
use crate::event::Event;
use crate::wasm::Grants;

/// How long a reader waits for its server to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// Reads what arrives from where it was opened on. Its methods block.
pub(super) trait Reader: Send {
    /// What has come since the last call, oldest first; nothing, at once, if
    /// nothing has.
    ///
    /// # Errors
    ///
    /// If it cannot be told now. A later call may, and leaves nothing out.
    fn read(&mut self) -> Result<Vec<Event>, ReaderError>;

    /// Where it reads, for people, for instance `the stream x of Redis at HOST:PORT`.
    fn place(&self) -> String;

    /// The largest event the server takes, in bytes of data, if it tells.
    fn max_event(&self) -> Option<u64> {
        None
    }

    /// How long nothing has to come until nothing is on its way.
    fn quiet(&self) -> Duration {
        Duration::from_millis(50)
    }

    /// How long it may fail until nothing can be told any more: a server may be
    /// started again meanwhile.
    fn longest_outage(&self) -> Duration {
        Duration::from_secs(60)
    }

    /// Lets go of what it made on the server. Called once, at the end.
    fn close(&mut self) {}
}

/// Why a reader cannot read.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct ReaderError(pub(super) String);

impl ReaderError {
    /// What cannot be done, at which server, and why.
    fn at(what: &str, place: &str, error: impl std::fmt::Display) -> ReaderError {
        ReaderError(format!("cannot {what} {place}: {error}"))
    }
}

/// What a reader is opened with.
pub(super) struct Setup<'a> {
    /// The manifest's variables, with the profile's settings in place of them.
    pub(super) env: Variables,
    pub(super) grants: &'a Grants,
    /// The type of the events.
    pub(super) event_type: &'a str,
    /// What marks the sources of this run.
    pub(super) run: &'a str,
}

impl Setup<'_> {
    fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).map(String::as_str)
    }

    fn variable_or<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.variable(name).unwrap_or(default)
    }

    /// The template in that variable, filled in for the events of the run. Their type
    /// is all that is known of all of them.
    fn filled(&self, name: &str, default: &str) -> Result<String, ReaderError> {
        let template = self.variable_or(name, default);
        let filled = template.replace("{type}", self.event_type);
        match filled.contains(['{', '}']) {
            false => Ok(filled),
            true => Err(ReaderError(format!(
                "{name} is {template:?}, which depends on more than the type of an event; say \
                 where to read in the profile: [settings], {name} = \"...\""
            ))),
        }
    }
}

/// Opens a reader: what arrives from now on is what it tells.
pub(super) fn open(kind: &ReaderKind, setup: &Setup<'_>) -> Result<Box<dyn Reader>, ReaderError> {
    Ok(match kind {
        ReaderKind::Command(command) => Box::new(command::Command::open(command, setup)?),
        ReaderKind::Shipped(name) => match name.as_str() {
            "kafka" => Box::new(kafka::Kafka::open(setup)?),
            "nats-jetstream" => Box::new(nats::Nats::open(setup)?),
            "rabbitmq" => Box::new(rabbitmq::RabbitMq::open(setup)?),
            "redis-streams" => Box::new(redis::Redis::open(setup)?),
            "sqs" | "sns" => Box::new(sqs::Sqs::open(setup)?),
            "webhook" => Box::new(webhook::Webhook::open(setup)?),
            _ => Box::new(file::File::open(setup)?),
        },
    })
}

/// An event in CloudEvents' JSON format.
fn from_json(json: impl Into<Bytes>) -> Result<Event, ReaderError> {
    let mut headers = HeaderMap::new();
    let json_format = HeaderValue::from_static("application/cloudevents+json");
    headers.insert(header::CONTENT_TYPE, json_format);
    from_http(&headers, json.into())
}

/// An event as CloudEvents has it over HTTP.
fn from_http(headers: &HeaderMap, body: Bytes) -> Result<Event, ReaderError> {
    let decoded = crate::http::decode(headers, body);
    let events = decoded.map_err(|problem| ReaderError(problem.to_string()))?;
    let event = events.into_iter().next();
    event.ok_or_else(|| ReaderError("it holds no event".to_owned()))
}

/// An event of attributes and data as they lie in a message. `None` if they are no
/// event, which others may have put there.
fn from_attributes(
    attributes: impl IntoIterator<Item = (String, String)>,
    content_type: Option<String>,
    data: impl Into<Bytes>,
) -> Option<Event> {
    let (event_types, others): (Vec<_>, Vec<_>) = attributes
        .into_iter()
        .filter(|(name, _)| name != "specversion")
        .partition(|(name, _)| name == "type");
    let (_, event_type) = event_types.into_iter().next()?;
    let mut builder = Event::builder(event_type).data(data);
    if let Some(content_type) = content_type {
        builder = builder.content_type(content_type);
    }
    for (name, value) in others {
        builder = match name.as_str() {
            "id" => builder.id(value),
            "source" => builder.source(value),
            "time" => builder.time(value.parse().ok()?),
            "subject" => builder.subject(value),
            "datacontenttype" => builder.content_type(value),
            _ => builder.attribute(name, value),
        };
    }
    builder.build().ok()
}
