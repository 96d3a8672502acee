//! A connection to a NATS server: logged in, with one inbox for all answers.

use crate::ack::{self, Answer};
use crate::settings::{Login, Settings};
use crate::wire::{Frame, Lost, Message, Wire};
use backhaul_guest::{OpenError, PublishError, connect};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::{Duration, Instant};

/// For a connection, and for all of the login. With the default of `NATS_TIMEOUT`
/// they stay below the 5 seconds a call may take, so that the host learns what was slow.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1_000);

/// What the server says of itself.
#[derive(Deserialize)]
struct Info {
    max_payload: usize,
    #[serde(default)]
    headers: bool,
    #[serde(default)]
    jetstream: bool,
    #[serde(default)]
    tls_required: bool,
    nonce: Option<String>,
}

#[derive(Serialize)]
struct Connect<'a> {
    verbose: bool,
    pedantic: bool,
    name: &'a str,
    lang: &'a str,
    version: &'a str,
    headers: bool,
    no_responders: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pass: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    auth_token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    nkey: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
}

pub(crate) struct Connection {
    wire: Wire,
    max_payload: usize,
    /// What the subjects of answers begin with; a number follows.
    inbox: String,
    next: u64,
}

impl Connection {
    pub(crate) fn open(settings: &Settings) -> Result<Self, OpenError> {
        let address = &settings.address;
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        let stream = connect(address.as_str(), deadline).map_err(|error| {
            format!("cannot connect to NATS at {address}; is it running, and {address} granted as tcp? {error}")
        })?;
        let inbox = format!("_INBOX.{:016x}{:016x}.", random(), random());
        let mut connection = Self {
            wire: Wire::new(stream),
            max_payload: 0,
            inbox,
            next: 0,
        };
        let deadline = Instant::now() + CONNECT_TIMEOUT;
        match connection.log_in(settings, deadline) {
            Ok(None) => Ok(connection),
            Ok(Some(fault)) => Err(format!("NATS at {address} {fault}").into()),
            Err(Lost::Refused(error)) if error.contains("Authorization") => Err(format!(
                "NATS at {address} refused the login: {error}; check NATS_USER and NATS_PASSWORD, \
                 NATS_TOKEN or NATS_NKEY"
            )
            .into()),
            Err(lost) => Err(format!("cannot log in to NATS at {address}: {lost}").into()),
        }
    }

    /// Takes its greeting, answers it, and waits until it agrees; or says why this
    /// server will not do.
    fn log_in(&mut self, settings: &Settings, deadline: Instant) -> Result<Option<&str>, Lost> {
        let Frame::Info(info) = self.wire.next(deadline)? else {
            return Err(Lost::Protocol("it did not greet with INFO"));
        };
        let info: Info =
            serde_json::from_str(&info).map_err(|_| Lost::Protocol("its INFO cannot be read"))?;
        if info.tls_required {
            return Ok(Some("asks for TLS: grant it as tls+nats://HOST:PORT"));
        }
        if !info.headers || !info.jetstream {
            return Ok(Some("has no JetStream; start it with -js or jetstream {}"));
        }
        let connect = login(&settings.login, info.nonce.as_deref());
        let connect = serde_json::to_string(&connect).expect("text has a JSON form");
        let inbox = &self.inbox;
        let hello = format!("CONNECT {connect}\r\nSUB {inbox}* 1\r\nPING\r\n");
        self.max_payload = info.max_payload;
        self.wire.write(hello.as_bytes())?;
        self.pong(deadline)?;
        Ok(None)
    }

    fn pong(&mut self, deadline: Instant) -> Result<(), Lost> {
        loop {
            match self.wire.next(deadline)? {
                Frame::Pong => return Ok(()),
                Frame::Ping => self.wire.write(b"PONG\r\n")?,
                Frame::Info(_) | Frame::Message(_) => {}
            }
        }
    }

    /// Whether the server is still there.
    pub(crate) fn ping(&mut self) -> Result<(), Lost> {
        self.wire.write(b"PING\r\n")?;
        self.pong(Instant::now() + CONNECT_TIMEOUT)
    }

    /// The most bytes a message may have, headers included.
    pub(crate) fn max_payload(&self) -> usize {
        self.max_payload
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Lost> {
        self.wire.write(bytes)
    }

    /// Numbers for as many answers; the first of them.
    pub(crate) fn reserve(&mut self, count: usize) -> u64 {
        let first = self.next;
        self.next += count as u64;
        first
    }

    /// Where the answer of this number goes.
    pub(crate) fn inbox(&self, number: u64) -> String {
        format!("{}{number}", self.inbox)
    }

    /// The next answer to one of the `count` messages numbered from `first` on, as
    /// its position among them.
    pub(crate) fn answer(
        &mut self,
        first: u64,
        count: usize,
        deadline: Instant,
    ) -> Result<(usize, Answer), Lost> {
        loop {
            let message = self.message(deadline)?;
            let index = self.number(&message).and_then(|n| n.checked_sub(first));
            // Others are of a batch before, and too late.
            if let Some(index) = index.and_then(|index| usize::try_from(index).ok())
                && index < count
            {
                return Ok((index, ack::read(message.status, &message.payload)));
            }
        }
    }

    /// What it means that nobody took a message to this subject.
    /// If all events have the same one, that is no event's fault.
    pub(crate) fn why_unheard(
        &mut self,
        subject: &str,
        is_same_for_all: bool,
        deadline: Instant,
    ) -> PublishError {
        match self.stream_of(subject, deadline) {
            Ok(None) if is_same_for_all => PublishError::Retryable(format!(
                "no stream takes the subject {subject:?}; create one, or change NATS_SUBJECT"
            )),
            Ok(None) => PublishError::Permanent(format!(
                "no stream takes the subject {subject:?}; create one, or change NATS_SUBJECT, \
                 and retry the dead letter"
            )),
            Ok(Some(stream)) => PublishError::Retryable(format!(
                "the stream {stream} of the subject {subject:?} cannot be reached now"
            )),
            Err(lost) => PublishError::Retryable(format!(
                "nobody takes the subject {subject:?}, and JetStream does not say whether a stream \
                 should: {lost}"
            )),
        }
    }

    /// The name of the stream that has this subject.
    fn stream_of(&mut self, subject: &str, deadline: Instant) -> Result<Option<String>, Lost> {
        #[derive(Deserialize)]
        struct Names {
            #[serde(default)]
            streams: Option<Vec<String>>,
            total: u64,
        }
        let number = self.reserve(1);
        let (reply, body) = (
            self.inbox(number),
            serde_json::json!({ "subject": subject }),
        );
        let (body, length) = (body.to_string(), body.to_string().len());
        let request = format!("PUB $JS.API.STREAM.NAMES {reply} {length}\r\n{body}\r\n");
        self.wire.write(request.as_bytes())?;
        loop {
            let message = self.message(deadline)?;
            if self.number(&message) != Some(number) {
                continue;
            }
            let names: Option<Names> = serde_json::from_slice(&message.payload).ok();
            let Some(Names { streams, total }) = names else {
                return Err(Lost::Refused("it lists no streams".to_owned()));
            };
            let first = streams.and_then(|streams| streams.into_iter().next());
            return Ok(first.or_else(|| (total > 0).then(String::new)));
        }
    }

    fn message(&mut self, deadline: Instant) -> Result<Message, Lost> {
        loop {
            match self.wire.next(deadline)? {
                Frame::Message(message) => return Ok(message),
                Frame::Ping => self.wire.write(b"PONG\r\n")?,
                Frame::Info(_) | Frame::Pong => {}
            }
        }
    }

    fn number(&self, message: &Message) -> Option<u64> {
        message.subject.strip_prefix(&self.inbox)?.parse().ok()
    }
}

fn login<'a>(login: &'a Login, nonce: Option<&str>) -> Connect<'a> {
    let mut connect = Connect {
        verbose: false,
        pedantic: false,
        name: "backhaul",
        lang: "rust",
        version: env!("CARGO_PKG_VERSION"),
        headers: true,
        no_responders: true,
        user: None,
        pass: None,
        auth_token: None,
        nkey: None,
        sig: None,
    };
    match login {
        Login::None => {}
        Login::User(user, password) => {
            connect.user = Some(user);
            connect.pass = Some(password);
        }
        Login::Token(token) => connect.auth_token = Some(token),
        Login::NKey(pair) => {
            // Without a nonce the server does not ask for a key, and refuses this one.
            let signature = pair.sign(nonce.unwrap_or_default().as_bytes());
            connect.sig = signature.ok().map(|bytes| URL_SAFE_NO_PAD.encode(bytes));
            connect.nkey = Some(pair.public_key());
        }
    }
    connect
}

/// Enough for inboxes not to meet; they are no secret.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
