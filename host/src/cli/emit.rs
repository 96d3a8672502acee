//! `backhaul emit`: posts one event to a running host.

use std::io::Read;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};

use super::client::{self, DEFAULT_HOST};
use crate::event::{Event, EventBuilder};

/// What the CloudEvents HTTP binding has encoded in header values, beside all
/// that is not ASCII.
const ENCODED: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'%');

/// Posts one event to a running host and prints its id.
///
/// DATA is JSON, unless --content-type says otherwise. The event is sent in
/// CloudEvents' binary mode.
#[derive(Args)]
pub(super) struct Arguments {
    /// Event type, for instance after:signup
    #[arg(value_name = "TYPE")]
    event_type: String,

    /// Payload: as it is, @FILE, or - for standard input [default: none]
    #[arg(value_name = "DATA|@FILE|-", allow_hyphen_values = true)]
    data: Option<String>,

    /// Host to post to
    #[arg(
        long,
        env = "BACKHAUL_URL",
        value_name = "URL",
        default_value = DEFAULT_HOST
    )]
    to: String,

    /// Where the event happened, a URI reference
    #[arg(long, value_name = "URI", default_value = "backhaul-emit")]
    source: String,

    /// What it is about, within the source
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,

    /// Id [default: a new UUID]
    #[arg(long, value_name = "TEXT")]
    id: Option<String>,

    /// Media type of DATA [default: application/json]
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
}

pub(super) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let url = events_url(&arguments.to)?;
    let event = event(arguments)?;
    let mut request = client::agent().post(&url);
    for (name, value) in headers(&event) {
        request = request.header(name, value);
    }
    let response = request.send(&event.data()[..]);
    client::answer(response.with_context(|| client::no_answer(&url))?)
        .map_err(|error| error.context("the event was not taken"))?;
    println!("{}", event.id());
    Ok(ExitCode::SUCCESS)
}

fn event(arguments: Arguments) -> anyhow::Result<Event> {
    let data = match arguments.data.as_deref() {
        None => Vec::new(),
        Some("-") => {
            let mut data = Vec::new();
            std::io::stdin()
                .read_to_end(&mut data)
                .context("standard input cannot be read")?;
            data
        }
        Some(text) => match text.strip_prefix('@') {
            Some(file) => std::fs::read(file).with_context(|| format!("{file} cannot be read"))?,
            None => text.as_bytes().to_owned(),
        },
    };
    let mut builder: EventBuilder = Event::builder(arguments.event_type).source(arguments.source);
    match arguments.content_type {
        Some(content_type) => builder = builder.content_type(content_type),
        None if data.is_empty() => {}
        None => {
            serde_json::from_slice::<serde::de::IgnoredAny>(&data)
                .context("the data is not JSON; quote it as such, or name its --content-type")?;
            builder = builder.content_type("application/json");
        }
    }
    if let Some(subject) = arguments.subject {
        builder = builder.subject(subject);
    }
    if let Some(id) = arguments.id {
        builder = builder.id(id);
    }
    Ok(builder.data(data).build()?)
}

fn headers(event: &Event) -> Vec<(&'static str, String)> {
    let encoded = |text: &str| utf8_percent_encode(text, ENCODED).to_string();
    let mut headers = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", encoded(event.id())),
        ("ce-source", encoded(event.source())),
        ("ce-type", encoded(event.event_type())),
        ("ce-time", event.time().to_string()),
    ];
    headers.extend(
        event
            .subject()
            .map(|subject| ("ce-subject", encoded(subject))),
    );
    headers.extend(
        event
            .content_type()
            .map(|content_type| ("content-type", content_type.to_owned())),
    );
    headers
}

/// The URL to post to: `/events`, unless the URL has a path.
fn events_url(to: &str) -> anyhow::Result<String> {
    let rest = to.strip_prefix("http://").unwrap_or_default();
    match rest.trim_end_matches('/').contains('/') {
        true => Ok(to.to_owned()),
        false => client::url(to, "/events"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_without_a_path_means_its_events() {
        assert_eq!(events_url("http://h:1").unwrap(), "http://h:1/events");
        assert_eq!(events_url("http://h:1/").unwrap(), "http://h:1/events");
        assert_eq!(
            events_url("http://h:1/x/events").unwrap(),
            "http://h:1/x/events"
        );
        assert!(events_url("https://h").is_err());
        assert!(events_url("h:1").is_err());
    }
}
