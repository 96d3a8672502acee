//! A connection with one channel that is ready to publish with confirms:
//! login, virtual host, exchange, and what a refusal of each means.

use crate::frames::{Broken, FRAME_OVERHEAD, Frames};
use crate::settings::{Exchange, Settings};
use amq_protocol::frame::{AMQPFrame, ProtocolVersion};
use amq_protocol::protocol::{AMQPClass, channel, confirm, connection, exchange};
use amq_protocol::types::{AMQPValue, FieldTable, LongString};
use std::time::{Duration, Instant};

/// The one channel in use.
pub(crate) const CHANNEL: u16 = 1;

/// The largest frames asked for, RabbitMQ's own default. Memory holds one at a time.
const LARGEST_FRAME: u32 = 131_072;

/// What AMQP says every server must take.
const SMALLEST_FRAME: u32 = 4_096;

/// After this long without a batch the server is asked whether it is still there.
const IDLE: Duration = Duration::from_secs(5);

pub(crate) struct Session {
    pub(crate) frames: Frames,
    /// How many messages were published: the tag of the latest.
    pub(crate) published: u64,
    /// Why the server makes publishers wait, while it does.
    pub(crate) blocked: Option<String>,
    pub(crate) last_used: Instant,
}

impl Session {
    /// # Errors
    ///
    /// A text that says what was refused and what can be done about it.
    pub(crate) fn open(settings: &Settings) -> Result<Self, String> {
        let (address, deadline) = (&settings.address, Instant::now() + settings.timeout);
        let place = address.place();
        let frames = Frames::connect(&address.host, address.port, deadline).map_err(|broken| {
            format!("cannot connect to RabbitMQ at {place}; is it running, and {place} granted as tcp? {broken}")
        })?;
        let mut session = Self {
            frames,
            published: 0,
            blocked: None,
            last_used: Instant::now(),
        };
        let wrong = |broken: Broken| format!("no session with RabbitMQ at {place}: {broken}");
        session.greet(deadline).map_err(wrong)?;
        let tune = session.log_in(settings, deadline).map_err(|broken| match broken {
            Broken::Closed { code: 403, .. } => format!(
                "RabbitMQ at {place} refused user or password; check RABBITMQ_URL and RABBITMQ_PASSWORD"
            ),
            broken => wrong(broken),
        })?;
        session
            .enter(settings, &tune, deadline)
            .map_err(|broken| match broken {
                Broken::Closed { code: 530, text } => format!(
                    "RabbitMQ at {place} refused the virtual host {:?}: {text}; create it, allow it to the user, \
                     or name another in RABBITMQ_URL",
                    address.vhost
                ),
                broken => wrong(broken),
            })?;
        session
            .prepare(&settings.exchange, deadline)
            .map_err(|broken| {
                settings
                    .exchange
                    .refused(&broken)
                    .unwrap_or_else(|| wrong(broken))
            })?;
        Ok(session)
    }

    fn greet(&mut self, deadline: Instant) -> Result<(), Broken> {
        self.frames
            .put(&AMQPFrame::ProtocolHeader(ProtocolVersion::amqp_0_9_1()));
        self.frames.send()?;
        match self.method(deadline)? {
            AMQPClass::Connection(connection::AMQPMethod::Start(start)) => {
                let mechanisms = start.mechanisms.to_string();
                if mechanisms.split(' ').any(|mechanism| mechanism == "PLAIN") {
                    return Ok(());
                }
                let message = format!("it offers {mechanisms:?} to log in, PLAIN is needed");
                Err(Broken::Violation(message))
            }
            other => Err(unexpected(&other)),
        }
    }

    fn log_in(
        &mut self,
        settings: &Settings,
        deadline: Instant,
    ) -> Result<connection::Tune, Broken> {
        let start_ok = connection::StartOk {
            client_properties: client_properties(),
            mechanism: "PLAIN".into(),
            response: settings.address.login(),
            locale: "en_US".into(),
        };
        self.put_method(
            0,
            connection_method(connection::AMQPMethod::StartOk(start_ok)),
        );
        self.frames.send()?;
        match self.method(deadline)? {
            AMQPClass::Connection(connection::AMQPMethod::Tune(tune)) => Ok(tune),
            other => Err(unexpected(&other)),
        }
    }

    fn enter(
        &mut self,
        settings: &Settings,
        tune: &connection::Tune,
        deadline: Instant,
    ) -> Result<(), Broken> {
        // 0 means no limit.
        let frame_max = match tune.frame_max {
            0 => LARGEST_FRAME,
            frame_max => frame_max.min(LARGEST_FRAME),
        };
        if frame_max < SMALLEST_FRAME {
            let message = format!("it allows frames of {frame_max} bytes, AMQP {SMALLEST_FRAME}");
            return Err(Broken::Violation(message));
        }
        let tune_ok = connection::TuneOk {
            channel_max: CHANNEL,
            frame_max,
            heartbeat: settings.heartbeat.map_or(0, |heartbeat| {
                u16::try_from(heartbeat.as_secs()).unwrap_or(u16::MAX)
            }),
        };
        let open = connection::Open {
            virtual_host: settings.address.vhost.as_str().into(),
        };
        self.put_method(
            0,
            connection_method(connection::AMQPMethod::TuneOk(tune_ok)),
        );
        self.put_method(0, connection_method(connection::AMQPMethod::Open(open)));
        self.frames.send()?;
        self.frames.agree(frame_max as usize, settings.heartbeat);
        match self.method(deadline)? {
            AMQPClass::Connection(connection::AMQPMethod::OpenOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Opens the channel, sees to the exchange, and asks for confirms.
    fn prepare(&mut self, exchange: &Exchange, deadline: Instant) -> Result<(), Broken> {
        let open = channel::AMQPMethod::Open(channel::Open {});
        self.put_method(CHANNEL, AMQPClass::Channel(open));
        if let Some(declare) = exchange.declare() {
            self.put_method(CHANNEL, declare);
        }
        self.put_method(CHANNEL, select());
        self.frames.send()?;
        loop {
            match self.method(deadline)? {
                AMQPClass::Channel(channel::AMQPMethod::OpenOk(_))
                | AMQPClass::Exchange(exchange::AMQPMethod::DeclareOk(_)) => {}
                AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(_)) => return Ok(()),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// Whether the server is still there, asked if it was not heard of for a
    /// while. It may have closed a connection on which no heartbeats came, or have
    /// been started anew: then nothing has to fail.
    pub(crate) fn is_alive(&mut self, heartbeat: Option<Duration>, timeout: Duration) -> bool {
        let idle = heartbeat.unwrap_or(IDLE).min(IDLE);
        self.last_used.elapsed() < idle || self.answers(Instant::now() + timeout).is_ok()
    }

    fn answers(&mut self, deadline: Instant) -> Result<(), Broken> {
        // What is on already is confirmed once more, without other effect.
        self.put_method(CHANNEL, select());
        self.frames.send()?;
        match self.method(deadline)? {
            AMQPClass::Confirm(confirm::AMQPMethod::SelectOk(_)) => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Says goodbye; the server notes a warning about connections that just end.
    pub(crate) fn close(mut self, timeout: Duration) {
        let close = connection::Close {
            reply_code: 200,
            reply_text: "closed by the plugin".into(),
            class_id: 0,
            method_id: 0,
        };
        self.put_method(0, connection_method(connection::AMQPMethod::Close(close)));
        if self.frames.send().is_ok() {
            // Whatever the answer, the connection ends here.
            let _ = self.method(Instant::now() + timeout);
        }
    }

    pub(crate) fn put_method(&mut self, channel: u16, method: AMQPClass) -> usize {
        self.frames.put(&AMQPFrame::Method(channel, method))
    }

    /// The most bytes of data one frame takes.
    pub(crate) fn largest_payload(&self) -> usize {
        self.frames.largest() - FRAME_OVERHEAD
    }

    /// The next method; not one of those about the connection itself.
    pub(crate) fn method(&mut self, deadline: Instant) -> Result<AMQPClass, Broken> {
        loop {
            let method = match self.frames.receive(deadline)? {
                AMQPFrame::Method(_, method) => method,
                other => {
                    let message = format!("it sent {other} where a method was due");
                    return Err(Broken::Violation(message));
                }
            };
            match method {
                AMQPClass::Connection(connection::AMQPMethod::Blocked(blocked)) => {
                    self.blocked = Some(blocked.reason.to_string());
                }
                AMQPClass::Connection(connection::AMQPMethod::Unblocked(_)) => self.blocked = None,
                AMQPClass::Connection(connection::AMQPMethod::Close(close)) => {
                    let (code, text) = (close.reply_code, close.reply_text.to_string());
                    return Err(Broken::Closed { code, text });
                }
                AMQPClass::Channel(channel::AMQPMethod::Close(close)) => {
                    let (code, text) = (close.reply_code, close.reply_text.to_string());
                    return Err(Broken::Closed { code, text });
                }
                method => return Ok(method),
            }
        }
    }
}

impl Exchange {
    fn declare(&self) -> Option<AMQPClass> {
        let declare = exchange::Declare {
            exchange: self.name.as_str().into(),
            kind: self.kind.as_str().into(),
            passive: self.passive,
            durable: self.durable,
            auto_delete: false,
            internal: false,
            nowait: false,
            arguments: FieldTable::default(),
        };
        let declare = AMQPClass::Exchange(exchange::AMQPMethod::Declare(declare));
        (!self.name.is_empty()).then_some(declare)
    }

    /// What it means that the server closed because of the exchange.
    pub(crate) fn refused(&self, broken: &Broken) -> Option<String> {
        let Broken::Closed { code, text } = broken else {
            return None;
        };
        let hint = match code {
            403 => {
                "allow it to the user, or set RABBITMQ_EXCHANGE_DECLARE = \"passive\" if only declaring is not allowed"
            }
            404 => "create it, or set RABBITMQ_EXCHANGE_DECLARE = \"active\"",
            406 => {
                "set RABBITMQ_EXCHANGE_TYPE and RABBITMQ_EXCHANGE_DURABLE as it was created with, or RABBITMQ_EXCHANGE_DECLARE = \"passive\""
            }
            _ => "check the settings RABBITMQ_EXCHANGE and those that begin so",
        };
        let name = &self.name;
        Some(format!(
            "RabbitMQ refused the exchange {name:?}: {code} {text}; {hint}"
        ))
    }
}

pub(crate) fn unexpected(method: &AMQPClass) -> Broken {
    let (class, method) = (method.get_amqp_class_id(), method.get_amqp_method_id());
    Broken::Violation(format!("it sent the method {class}.{method} out of turn"))
}

fn connection_method(method: connection::AMQPMethod) -> AMQPClass {
    AMQPClass::Connection(method)
}

fn select() -> AMQPClass {
    AMQPClass::Confirm(confirm::AMQPMethod::Select(confirm::Select {
        nowait: false,
    }))
}

/// What the server shows in its list of connections, and what it may tell us.
fn client_properties() -> FieldTable {
    let text = |text: &str| AMQPValue::LongString(LongString::from(text));
    let mut capabilities = FieldTable::default();
    for capability in [
        "authentication_failure_close",
        "basic.nack",
        "connection.blocked",
        "publisher_confirms",
    ] {
        capabilities.insert(capability.into(), AMQPValue::Boolean(true));
    }
    let mut properties = FieldTable::default();
    properties.insert("product".into(), text("Backhaul"));
    properties.insert("version".into(), text(env!("CARGO_PKG_VERSION")));
    properties.insert("connection_name".into(), text("backhaul rabbitmq"));
    properties.insert("capabilities".into(), AMQPValue::FieldTable(capabilities));
    properties
}
