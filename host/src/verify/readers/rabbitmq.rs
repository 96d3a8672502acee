//! Reads what an exchange of RabbitMQ routes, with `lapin`: from a queue of its own,
//! bound to the exchange, or from the one that `RABBITMQ_QUEUE` in the profile's
//! settings names. Configured by the variables of `rabbitmq` otherwise.

use std::time::Duration;

use futures_util::StreamExt;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties, Consumer, ExchangeKind};
use tokio::runtime::Handle;
use tokio::time::timeout;

use super::tls::Tunnel;
use super::{PATIENCE, Reader, ReaderError, Setup, from_attributes};
use crate::event::Event;

/// How long a message may take that is on its way.
const SHORT: Duration = Duration::from_millis(20);

/// How many messages are taken at a time.
const MOST: usize = 1000;

/// After so long without a consumer the server removes our queue by itself.
const EXPIRES: i32 = 3_600_000;

pub(super) struct RabbitMq {
    runtime: Handle,
    uri: AMQPUri,
    queue: Queue,
    header_prefix: String,
    consuming: Option<Consuming>,
    place: String,
    _tunnel: Option<Tunnel>,
}

/// What is read from.
struct Queue {
    name: String,
    /// To which exchange it is bound; `None` if it is not ours.
    bound: Option<Binding>,
}

struct Binding {
    exchange: String,
    kind: ExchangeKind,
    durable: bool,
    /// Whether the exchange is created if it is missing.
    declare: bool,
    key: String,
}

struct Consuming {
    /// Both end the connection when they are dropped.
    _connection: Connection,
    channel: Channel,
    consumer: Consumer,
}

impl RabbitMq {
    pub(super) fn open(setup: &Setup<'_>) -> Result<RabbitMq, ReaderError> {
        let url = setup.variable_or("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672");
        // The crate's own error may quote the URL.
        let unusable = |_| ReaderError("RABBITMQ_URL is no address of RabbitMQ".to_owned());
        let mut uri: AMQPUri = url.parse().map_err(unusable)?;
        if let Some(password) = setup.variable("RABBITMQ_PASSWORD") {
            password.clone_into(&mut uri.authority.userinfo.password);
        }
        let queue = Queue::of(setup)?;
        let address = format!("{}:{}", uri.authority.host, uri.authority.port);
        let place = match &queue.bound {
            Some(binding) => format!("the exchange {} of RabbitMQ at {address}", binding.exchange),
            None => format!("the queue {} of RabbitMQ at {address}", queue.name),
        };
        let tunnel = setup.tunnel(&uri.authority.host, uri.authority.port)?;
        if let Some(address) = tunnel.as_ref().map(Tunnel::address) {
            uri.authority.host = address.ip().to_string();
            uri.authority.port = address.port();
        }
        let mut reader = RabbitMq {
            runtime: Handle::current(),
            uri,
            queue,
            header_prefix: setup
                .variable_or("RABBITMQ_HEADER_PREFIX", "cloudEvents:")
                .to_owned(),
            consuming: None,
            place,
            _tunnel: tunnel,
        };
        reader.read()?;
        Ok(reader)
    }

    async fn connect(&self) -> lapin::Result<Consuming> {
        let (uri, properties) = (self.uri.clone(), ConnectionProperties::default());
        let connection = Connection::connect_uri(uri, properties).await?;
        let channel = connection.create_channel().await?;
        let name = self.queue.name.as_str();
        if let Some(binding) = &self.queue.bound {
            binding.declare(&channel).await?;
            let mut arguments = FieldTable::default();
            arguments.insert("x-expires".into(), AMQPValue::LongInt(EXPIRES));
            // Durable: it is to outlive a server that is started again.
            let options = QueueDeclareOptions {
                durable: true,
                ..QueueDeclareOptions::default()
            };
            channel
                .queue_declare(name.into(), options, arguments)
                .await?;
            let (exchange, key) = (binding.exchange.as_str(), binding.key.as_str());
            let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
            channel
                .queue_bind(name.into(), exchange.into(), key.into(), options, arguments)
                .await?;
        }
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel
            .basic_consume(name.into(), "backhaul-verify".into(), options, arguments)
            .await?;
        Ok(Consuming {
            _connection: connection,
            channel,
            consumer,
        })
    }

    /// The messages that are there, or on their way.
    async fn take(&mut self) -> Result<Vec<Event>, String> {
        if self.consuming.is_none() {
            let connected = timeout(PATIENCE, self.connect()).await;
            let connected = connected.map_err(|_| "it does not answer".to_owned())?;
            self.consuming = Some(connected.map_err(|error| error.to_string())?);
        }
        let Consuming {
            channel, consumer, ..
        } = self.consuming.as_mut().expect("it was just made");
        let (mut events, mut last) = (Vec::new(), None);
        let mut taken = 0;
        while taken < MOST
            && let Ok(next) = timeout(SHORT, consumer.next()).await
        {
            let delivery = next.ok_or_else(|| "the connection ended".to_owned())?;
            let delivery = delivery.map_err(|error| error.to_string())?;
            taken += 1;
            last = Some(delivery.delivery_tag);
            events.extend(event(delivery, &self.header_prefix));
        }
        if let Some(last) = last {
            let all_before = BasicAckOptions { multiple: true };
            let acknowledged = channel.basic_ack(last, all_before).await;
            acknowledged.map_err(|error| error.to_string())?;
        }
        Ok(events)
    }
}

impl Queue {
    fn of(setup: &Setup<'_>) -> Result<Queue, ReaderError> {
        if let Some(name) = setup.variable("RABBITMQ_QUEUE") {
            return Ok(Queue {
                name: name.to_owned(),
                bound: None,
            });
        }
        let exchange = setup.variable_or("RABBITMQ_EXCHANGE", "backhaul");
        if exchange == "amq.default" {
            return Ok(Queue {
                name: setup.filled("RABBITMQ_ROUTING_KEY", "{type}")?,
                bound: None,
            });
        }
        let kind = setup.variable_or("RABBITMQ_EXCHANGE_TYPE", "topic");
        let (kind, key) = match kind {
            "topic" => (ExchangeKind::Topic, "#".to_owned()),
            "fanout" => (ExchangeKind::Fanout, String::new()),
            "headers" => (ExchangeKind::Headers, String::new()),
            "direct" => {
                let key = setup.filled("RABBITMQ_ROUTING_KEY", "{type}")?;
                (ExchangeKind::Direct, key)
            }
            other => (ExchangeKind::Custom(other.to_owned()), "#".to_owned()),
        };
        Ok(Queue {
            name: format!("backhaul-verify-{}", setup.run),
            bound: Some(Binding {
                exchange: exchange.to_owned(),
                kind,
                durable: setup.variable_or("RABBITMQ_EXCHANGE_DURABLE", "true") == "true",
                declare: setup.variable_or("RABBITMQ_EXCHANGE_DECLARE", "active") == "active",
                key,
            }),
        })
    }
}

impl Binding {
    async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        if !self.declare {
            return Ok(());
        }
        let options = ExchangeDeclareOptions {
            durable: self.durable,
            ..ExchangeDeclareOptions::default()
        };
        let (exchange, kind) = (self.exchange.as_str(), self.kind.clone());
        channel
            .exchange_declare(exchange.into(), kind, options, FieldTable::default())
            .await
    }
}

impl Reader for RabbitMq {
    fn read(&mut self) -> Result<Vec<Event>, ReaderError> {
        let taken = self.runtime.clone().block_on(self.take());
        taken.map_err(|error| {
            self.consuming = None;
            ReaderError::at("read", &self.place, error)
        })
    }

    fn place(&self) -> String {
        self.place.clone()
    }

    fn close(&mut self) {
        let Some(consuming) = self.consuming.take().filter(|_| self.queue.bound.is_some()) else {
            return;
        };
        // What stays is removed by the server after a while.
        let deleted = consuming.channel.queue_delete(
            self.queue.name.as_str().into(),
            QueueDeleteOptions::default(),
        );
        let _ = self
            .runtime
            .block_on(async { timeout(PATIENCE, deleted).await });
    }
}

/// The event of a message: attributes are headers with a prefix, data the body.
fn event(delivery: lapin::message::Delivery, header_prefix: &str) -> Option<Event> {
    let properties = delivery.properties;
    let headers = properties.headers().iter().flat_map(FieldTable::inner);
    let attributes: Vec<(String, String)> = headers
        .filter_map(|(name, value)| match value {
            AMQPValue::LongString(value) => {
                let name = name.as_str().strip_prefix(header_prefix)?;
                Some((name.to_owned(), value.to_string()))
            }
            _ => None,
        })
        .collect();
    let content_type = properties.content_type().as_ref();
    let content_type = content_type.map(ToString::to_string);
    from_attributes(attributes, content_type, delivery.data)
}
