//! A connection to a broker: what it can do is found out, and we are logged in.

use crate::fields::{Fields, Put, Unreadable};
use crate::scram::{Scram, Sha};
use crate::settings::{Login, Mechanism};
use crate::wire::{Api, Lost, Wire};
use std::ops::RangeInclusive;
use std::time::Instant;

const PRODUCE: i16 = 0;
const METADATA: Api = Api { key: 3, version: 4 };
const SASL_HANDSHAKE: Api = Api {
    key: 17,
    version: 1,
};
const API_VERSIONS: Api = Api {
    key: 18,
    version: 0,
};
const INIT_PRODUCER_ID: Api = Api {
    key: 22,
    version: 0,
};
const SASL_AUTHENTICATE: Api = Api {
    key: 36,
    version: 0,
};

/// The versions of the produce request we write: from record batches with headers on,
/// up to the last one without compact fields, in which a broker names the records it
/// refuses.
const PRODUCE_VERSIONS: RangeInclusive<i16> = 3..=8;

pub(crate) struct Connection {
    pub(crate) wire: Wire,
    /// The produce request, in the newest version both sides know.
    pub(crate) produce: Api,
}

impl Connection {
    /// Makes a connection ready to be used.
    pub(crate) fn open(wire: Wire, login: Option<&Login>, deadline: Instant) -> Result<Self, Lost> {
        let mut connection = Self {
            wire,
            produce: Api {
                key: PRODUCE,
                version: *PRODUCE_VERSIONS.start(),
            },
        };
        connection.find_versions(deadline)?;
        if let Some(login) = login {
            connection.log_in(login, deadline)?;
        }
        Ok(connection)
    }

    /// Sends a request and waits for what it is answered.
    pub(crate) fn ask(
        &mut self,
        api: Api,
        body: impl FnOnce(&mut Vec<u8>),
        deadline: Instant,
    ) -> Result<Vec<u8>, Lost> {
        let number = self.wire.send(api, body)?;
        self.wire.receive(number, deadline)
    }

    /// What a broker knows of these topics; a topic it may create is created.
    pub(crate) fn metadata(&mut self, topics: &[&str], deadline: Instant) -> Result<Vec<u8>, Lost> {
        let body = |out: &mut Vec<u8>| {
            out.put_count(topics.len());
            for topic in topics {
                out.put_text(topic);
            }
            out.put_i8(1);
        };
        self.ask(METADATA, body, deadline)
    }

    /// Asks for a producer's id that nobody has had, and its epoch.
    pub(crate) fn new_producer(&mut self, deadline: Instant) -> Result<(i16, i64, i16), Lost> {
        let body = |out: &mut Vec<u8>| {
            // No transactions, and so no time limit for them.
            out.put_i16(-1);
            out.put_i32(i32::MAX);
        };
        let answer = self.ask(INIT_PRODUCER_ID, body, deadline)?;
        let mut fields = Fields::new(&answer);
        fields.i32()?;
        Ok((fields.i16()?, fields.i64()?, fields.i16()?))
    }

    fn find_versions(&mut self, deadline: Instant) -> Result<(), Lost> {
        let answer = self.ask(API_VERSIONS, |_| {}, deadline)?;
        let mut fields = Fields::new(&answer);
        if fields.i16()? != 0 {
            return Err(Lost::Protocol("it does not say which requests it knows"));
        }
        let known = fields.array(|fields| {
            let (key, first, last) = (fields.i16()?, fields.i16()?, fields.i16()?);
            Ok((key, first..=last))
        })?;
        let versions = |key: i16| {
            let of_key = known.iter().find(|(known, _)| *known == key);
            of_key.map(|(_, versions)| versions)
        };
        let has = |api: Api| versions(api.key).is_some_and(|v| v.contains(&api.version));
        let produce = versions(PRODUCE).map(|versions| Api {
            key: PRODUCE,
            version: *versions.end().min(PRODUCE_VERSIONS.end()),
        });
        if let Some(produce) = produce
            && PRODUCE_VERSIONS.contains(&produce.version)
            && has(produce)
            && has(METADATA)
            && has(INIT_PRODUCER_ID)
        {
            self.produce = produce;
            return Ok(());
        }
        Err(Lost::Refused(
            "it is too old, or no Kafka: idempotent producers need 0.11 or later".to_owned(),
        ))
    }

    fn log_in(&mut self, login: &Login, deadline: Instant) -> Result<(), Lost> {
        let name = login.mechanism.name();
        let answer = self.ask(SASL_HANDSHAKE, |out| out.put_text(name), deadline)?;
        let mut fields = Fields::new(&answer);
        match fields.i16()? {
            0 => {}
            UNSUPPORTED_SASL_MECHANISM => {
                let offered = fields.array(Fields::text)?.join(", ");
                return Err(Lost::Refused(format!(
                    "it does not know the mechanism {name}, but {offered}; set KAFKA_SASL to one of these"
                )));
            }
            ILLEGAL_SASL_STATE => {
                return Err(Lost::Refused(
                    "it wants no login at this port; remove KAFKA_SASL, or use the port of SASL_PLAINTEXT".to_owned(),
                ));
            }
            code => return Err(refused_login(code, None)),
        }
        let (user, password) = (&login.user, &login.password);
        let sha = match login.mechanism {
            Mechanism::Plain => {
                let answer = format!("\0{user}\0{password}");
                return self.authenticate(answer.as_bytes(), deadline).map(|_| ());
            }
            Mechanism::ScramSha256 => Sha::Sha256,
            Mechanism::ScramSha512 => Sha::Sha512,
        };
        let mut nonce = [0; 24];
        getrandom::fill(&mut nonce).map_err(std::io::Error::other)?;
        let scram = Scram::new(sha, user, password, &nonce);
        let server = self.authenticate(scram.first().as_bytes(), deadline)?;
        let (proof, expected) = scram.prove(&server).map_err(|fault| {
            Lost::Refused(format!(
                "its part of the login with {name} is wrong: {fault}"
            ))
        })?;
        let server = self.authenticate(proof.as_bytes(), deadline)?;
        if expected.is(&server) {
            return Ok(());
        }
        Err(Lost::Refused(
            "it does not know the password itself; is it the server it is taken for?".to_owned(),
        ))
    }

    fn authenticate(&mut self, bytes: &[u8], deadline: Instant) -> Result<Vec<u8>, Lost> {
        let body = |out: &mut Vec<u8>| {
            out.put_count(bytes.len());
            out.extend_from_slice(bytes);
        };
        let answer = self.ask(SASL_AUTHENTICATE, body, deadline)?;
        let mut fields = Fields::new(&answer);
        let (code, text) = (fields.i16()?, fields.optional_text()?);
        if code != 0 {
            return Err(refused_login(code, text));
        }
        Ok(fields.bytes()?.to_vec())
    }
}

const UNSUPPORTED_SASL_MECHANISM: i16 = 33;
const ILLEGAL_SASL_STATE: i16 = 34;

fn refused_login(code: i16, text: Option<&str>) -> Lost {
    let text = text.unwrap_or("it does not say why");
    Lost::Refused(format!(
        "it refused the login: {text} ({code}); check KAFKA_SASL, KAFKA_USER and KAFKA_PASSWORD"
    ))
}

/// What a broker knows of the cluster.
pub(crate) struct Metadata {
    /// Each broker's id, host and port.
    pub(crate) brokers: Vec<(i32, String, i32)>,
    pub(crate) topics: Vec<TopicMetadata>,
}

pub(crate) struct TopicMetadata {
    /// 0: none.
    pub(crate) error: i16,
    pub(crate) name: String,
    /// Each partition's number, and its leader if it has one.
    pub(crate) partitions: Vec<(i32, Option<i32>)>,
}

impl Metadata {
    pub(crate) fn read(answer: &[u8]) -> Result<Self, Unreadable> {
        let mut fields = Fields::new(answer);
        fields.i32()?;
        let brokers = fields.array(|fields| {
            let broker = (fields.i32()?, fields.text()?.to_owned(), fields.i32()?);
            fields.optional_text()?;
            Ok(broker)
        })?;
        fields.optional_text()?;
        fields.i32()?;
        let topics = fields.array(|fields| {
            let (error, name) = (fields.i16()?, fields.text()?.to_owned());
            fields.i8()?;
            let partitions = fields.array(|fields| {
                fields.i16()?;
                let (number, leader) = (fields.i32()?, fields.i32()?);
                fields.array(Fields::i32)?;
                fields.array(Fields::i32)?;
                Ok((number, Some(leader).filter(|leader| *leader >= 0)))
            })?;
            Ok(TopicMetadata {
                error,
                name,
                partitions,
            })
        })?;
        Ok(Self { brokers, topics })
    }
}
