//! Reads a stream of NATS JetStream, with `async-nats`: the one that takes the
//! subject. Configured by the variables of `nats-jetstream`.

use std::sync::Arc;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::{Ordered, OrderedConfig};
use async_nats::jetstream::{self, Message, consumer::DeliverPolicy};
use async_nats::{Client, ConnectOptions, ServerAddr};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use futures_util::StreamExt;
use percent_encoding::percent_decode_str;
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::{PATIENCE, Reader, ReaderError, Setup, from_http};
use crate::event::Event;

/// How long a message may take that is on its way.
const SHORT: Duration = Duration::from_millis(20);

/// How many messages are taken at a time.
const MOST: usize = 1000;

pub(super) struct Nats {
    runtime: Handle,
    /// Connects anew by itself.
    client: Client,
    /// Begins anew, where it was, after a message that was left out.
    messages: Ordered,
    place: String,
}

impl Nats {
    pub(super) fn open(setup: &Setup<'_>) -> Result<Nats, ReaderError> {
        let url = setup.variable_or("NATS_URL", "nats://127.0.0.1:4222");
        let subject = setup.filled("NATS_SUBJECT", "events.{type}")?;
        let runtime = Handle::current();
        let place = format!("what NATS at {url} has for {subject}");
        let mut options = login(setup);
        if let Some(config) = tls(setup, url)? {
            let config = Arc::unwrap_or_clone(config);
            options = options.require_tls(true).tls_client_config(config);
        }
        let opened = async {
            let client = options.connect(url).await?;
            let jetstream = jetstream::new(client.clone());
            let name = jetstream.stream_by_subject(subject.clone()).await?;
            let stream = jetstream.get_stream(name).await?;
            let end = stream.get_info().await?.state.last_sequence;
            let config = OrderedConfig {
                deliver_policy: DeliverPolicy::ByStartSequence {
                    start_sequence: end + 1,
                },
                ..OrderedConfig::default()
            };
            let consumer = stream.create_consumer(config).await?;
            let messages = consumer.messages().await?;
            Ok::<_, Box<dyn std::error::Error + Send + Sync>>((client, messages))
        };
        let opened = runtime.block_on(timeout(PATIENCE, opened));
        let opened = opened.map_err(|_| ReaderError::at("read", &place, "it does not answer"))?;
        let (client, messages) = opened.map_err(|error| ReaderError::at("read", &place, error))?;
        Ok(Nats {
            runtime,
            client,
            messages,
            place,
        })
    }
}

/// What is spoken TLS with, if the server is granted so.
fn tls(setup: &Setup<'_>, url: &str) -> Result<Option<Arc<ClientConfig>>, ReaderError> {
    let Ok(server) = url.parse::<ServerAddr>() else {
        // The client says so.
        return Ok(None);
    };
    setup.tls(server.host(), server.port())
}

fn login(setup: &Setup<'_>) -> ConnectOptions {
    let variable = |name: &str| setup.variable(name).map(str::to_owned);
    let options = ConnectOptions::new();
    if let Some(user) = variable("NATS_USER") {
        let password = variable("NATS_PASSWORD").unwrap_or_default();
        return options.user_and_password(user, password);
    }
    match (variable("NATS_TOKEN"), variable("NATS_NKEY")) {
        (Some(token), _) => options.token(token),
        (None, Some(seed)) => options.nkey(seed),
        (None, None) => options,
    }
}

impl Reader for Nats {
    fn read(&mut self) -> Result<Vec<Event>, ReaderError> {
        let messages = &mut self.messages;
        let taken = self.runtime.block_on(async {
            let mut events = Vec::new();
            let mut taken = 0;
            while taken < MOST
                && let Ok(next) = timeout(SHORT, messages.next()).await
            {
                let message = next.ok_or_else(|| "the subscription ended".to_owned())?;
                taken += 1;
                events.extend(event(&message.map_err(|error| error.to_string())?));
            }
            Ok::<_, String>(events)
        });
        taken.map_err(|error| ReaderError::at("read", &self.place, error))
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn max_event(&self) -> Option<u64> {
        Some(self.client.server_info().max_payload as u64)
    }
}

/// The event of a message, in either content mode.
fn event(message: &Message) -> Option<Event> {
    let mut headers = HeaderMap::new();
    for (name, values) in message.headers.as_ref()?.iter() {
        let (name, value) = (
            name.to_string().to_ascii_lowercase(),
            values.first()?.as_str(),
        );
        // What is a header of its own over HTTP is an attribute like any other here.
        let (name, value) = match name.as_str() {
            "ce-datacontenttype" => {
                let value = percent_decode_str(value).decode_utf8().ok()?;
                ("content-type".to_owned(), value.into_owned())
            }
            _ => (name, value.to_owned()),
        };
        let name: HeaderName = name.parse().ok()?;
        headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    from_http(&headers, message.payload.clone()).ok()
}
