//! Backend `nats-jetstream`: publishes each event to a subject, and counts it as
//! published when a stream of JetStream has acknowledged it.
//!
//! - `settings`: what the environment says.
//! - `wire`: NATS' text protocol, as far as a publisher needs it.
//! - `connection`: connecting, logging in, and requests.
//! - `message`: an event as a message.
//! - `ack`: what an answer means for its event.
mod ack;
mod connection;
mod message;
mod settings;
mod wire;

use ack::Answer;
use backhaul_guest::{Backend, Event, Failure, OpenError, PublishError};
use connection::Connection;
use settings::Settings;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use wire::Lost;

/// After so much time without a batch the server may have closed the connection:
/// it is tried before events go out.
const IDLE: Duration = Duration::from_secs(30);

struct JetStream {
    settings: Settings,
    connection: Connection,
    used: Instant,
}

impl Backend for JetStream {
    const NAME: &'static str = "nats-jetstream";

    fn open() -> Result<Self, OpenError> {
        let settings = Settings::from_env()?;
        Ok(Self {
            connection: Connection::open(&settings)?,
            used: Instant::now(),
            settings,
        })
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        if self.used.elapsed() > IDLE && self.connection.ping().is_err() {
            let opened = Connection::open(&self.settings);
            self.connection = opened
                .map_err(|error| Failure::all_retryable(0..events.len(), error.to_string()))?;
        }
        let failures = self.publish_all(events);
        self.used = Instant::now();
        Err(failures)
    }
}

impl JetStream {
    fn publish_all(&mut self, events: &[Event]) -> Vec<Failure> {
        let deadline = Instant::now() + self.settings.timeout;
        let mut failures = Vec::new();
        let first = self.connection.reserve(events.len());
        let mut waiting = self.send(events, first, &mut failures);
        let mut unheard = Vec::new();
        let mut left = waiting.iter().filter(|waits| **waits).count();
        while left > 0 {
            match self.connection.answer(first, events.len(), deadline) {
                // An answer too many is none.
                Ok((index, _)) if !waiting[index] => {}
                Ok((index, answer)) => {
                    waiting[index] = false;
                    left -= 1;
                    match answer {
                        Answer::Stored => {}
                        Answer::Failed(error) => failures.push(ack::failure(index, error)),
                        Answer::NobodyListens => unheard.push(index),
                    }
                }
                Err(lost) => {
                    failures.extend(self.lost(&waiting, &lost));
                    break;
                }
            }
        }
        failures.extend(self.explain_silence(&unheard, events, deadline));
        failures
    }

    /// Sends what can be sent, and says for which events an answer is to come. The
    /// server works on one part while the next is encoded; if one cannot be sent, the
    /// answers still tell which of those before are stored.
    fn send(&mut self, events: &[Event], first: u64, failures: &mut Vec<Failure>) -> Vec<bool> {
        let mut waiting = vec![false; events.len()];
        let mut out = Vec::with_capacity(64 << 10);
        for (index, event) in events.iter().enumerate() {
            let reply = self.connection.inbox(first + index as u64);
            let limit = self.connection.max_payload();
            match message::append(&self.settings, event, &reply, limit, &mut out) {
                Ok(()) => waiting[index] = true,
                Err(error) => failures.push(Failure::permanent(index, error)),
            }
            if (out.len() > 32 << 10 || index + 1 == events.len())
                && self.connection.write(&std::mem::take(&mut out)).is_err()
            {
                waiting[index + 1..].fill(true);
                break;
            }
        }
        waiting
    }

    fn lost(&self, waiting: &[bool], lost: &Lost) -> Vec<Failure> {
        let address = &self.settings.address;
        let message = format!("no acknowledgement from NATS at {address}: {lost}");
        let waiting = waiting.iter().enumerate().filter(|(_, waits)| **waits);
        waiting
            .map(|(index, _)| Failure::retryable(index, message.as_str()))
            .collect()
    }

    /// Nobody took these messages: either no stream has their subject, or the one
    /// that has cannot be reached for the moment. Each subject is asked for once.
    fn explain_silence(
        &mut self,
        unheard: &[usize],
        events: &[Event],
        deadline: Instant,
    ) -> Vec<Failure> {
        let is_same_for_all = !self.settings.subject.has_fields();
        let mut known = HashMap::new();
        let mut failures = Vec::with_capacity(unheard.len());
        for index in unheard.iter().copied() {
            let error = match message::subject(&self.settings, &events[index]) {
                Ok(subject) => known
                    .entry(subject)
                    .or_insert_with_key(|subject| {
                        self.connection
                            .why_unheard(subject, is_same_for_all, deadline)
                    })
                    .clone(),
                Err(error) => PublishError::Permanent(error),
            };
            failures.push(ack::failure(index, error));
        }
        failures
    }
}

backhaul_guest::export!(JetStream);

#[cfg(test)]
mod tests;
