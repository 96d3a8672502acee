//! Backend `kafka`: publishes each event to a topic of Apache Kafka, as an idempotent
//! producer that waits for all replicas in sync.
//!
//! - `settings`: what comes from the environment; `topic`: the topic of an event.
//! - `fields`, `wire`: Kafka's protocol over TCP, bounded in size and time.
//! - `connection`: what a broker can do, and the login (`scram`).
//! - `cluster`: brokers, leaders, and the connections to them.
//! - `message`: an event as a message; `records`, `compression`: messages as a record
//!   batch; `produce`: the request that carries them.
//! - `partitioner`: which partition a key belongs to.
//! - `producer`: a batch, from its events to the answers (`outcome`); `work` is what is left of it,
//!   `doubt` what may be in the log or not, `verdict` what an error means.

mod cluster;
mod compression;
mod connection;
mod doubt;
mod fields;
mod message;
mod partitioner;
mod produce;
mod producer;
mod records;
mod scram;
#[cfg(test)]
mod scripted;
mod settings;
#[cfg(test)]
mod tests;
mod topic;
mod verdict;
mod wire;
mod work;

use backhaul_guest::{Backend, Event, Failure, OpenError};
use producer::Producer;
use settings::Settings;

struct Kafka {
    settings: Settings,
    producer: Producer,
}

impl Backend for Kafka {
    const NAME: &'static str = "kafka";

    fn open() -> Result<Self, OpenError> {
        let settings = Settings::from_env()?;
        Ok(Self {
            producer: Producer::open(&settings)?,
            settings,
        })
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        Err(self.producer.publish(&self.settings, events))
    }

    /// It connects anew by itself, and a new one would not be recognised by the brokers.
    fn usable_after(&self, _: &[Failure]) -> bool {
        true
    }
}

backhaul_guest::export!(Kafka);
