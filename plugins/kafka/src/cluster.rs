//! The brokers of a cluster: where they are, which of them leads a partition, and the
//! connections to them.

use crate::connection::{Connection, Metadata};
use crate::settings::Login;
use crate::verdict::{TopicState, topic_state};
use crate::wire::{Lost, Wire};
use backhaul_guest::connect;
use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

/// For connecting to a broker and logging in, if others could be asked instead.
const PATIENCE: Duration = Duration::from_millis(1_000);

/// After this long the cluster is asked again, for partitions that were added.
const FRESH: Duration = Duration::from_secs(300);

/// So many topics that are missing are remembered.
const MOST_MISSING: usize = 1_000;

pub(crate) struct Cluster {
    /// The addresses that were set, `HOST:PORT`.
    bootstrap: Vec<String>,
    login: Option<Login>,
    /// The addresses the cluster advertises, by the ids of its brokers.
    brokers: HashMap<i32, String>,
    connections: HashMap<String, Connection>,
    topics: HashMap<String, Topic>,
    /// Topics that were waited for in vain.
    missing: HashSet<String>,
}

struct Topic {
    /// Of each partition.
    leaders: Vec<Option<i32>>,
    asked: Instant,
}

/// Why a topic cannot be used.
pub(crate) struct Fault {
    pub(crate) text: &'static str,
    /// Whether it will be so until somebody does something about the topic.
    pub(crate) is_lasting: bool,
}

impl Cluster {
    pub(crate) fn new(bootstrap: &[String], login: Option<&Login>) -> Self {
        Self {
            bootstrap: bootstrap.to_owned(),
            login: login.cloned(),
            brokers: HashMap::new(),
            connections: HashMap::new(),
            topics: HashMap::new(),
            missing: HashSet::new(),
        }
    }

    /// The leaders of a topic's partitions.
    pub(crate) fn leaders(&self, topic: &str) -> Option<&[Option<i32>]> {
        self.topics.get(topic).map(|topic| topic.leaders.as_slice())
    }

    pub(crate) fn leader(&self, topic: &str, partition: usize) -> Option<i32> {
        *self.leaders(topic)?.get(partition)?
    }

    /// Whether the cluster has to be asked about a topic.
    pub(crate) fn is_stale(&self, topic: &str) -> bool {
        let topic = self.topics.get(topic);
        topic.is_none_or(|topic| topic.asked.elapsed() > FRESH)
    }

    /// Asks about these topics, for a while if they are not there yet: one that was
    /// created a moment ago, by this very question perhaps, is not known at once. Returns
    /// what is wrong with those that cannot be used.
    ///
    /// # Errors
    ///
    /// If no broker answers: a text for the log.
    pub(crate) fn find(
        &mut self,
        topics: &[&str],
        deadline: Instant,
    ) -> Result<HashMap<String, Fault>, String> {
        let mut pause = Duration::from_millis(20);
        loop {
            let states = self.ask(topics, deadline)?;
            let (mut faults, mut wait) = (HashMap::new(), false);
            for (name, state) in states {
                let (text, is_lasting) = match state {
                    TopicState::Known => {
                        self.missing.remove(&name);
                        continue;
                    }
                    TopicState::Missing => {
                        wait |= !self.missing.contains(&name);
                        let text = "it does not exist; create it, or allow it with auto.create.topics.enable";
                        (text, true)
                    }
                    TopicState::Refused(text) => (text, true),
                    TopicState::Later(text) => {
                        wait = true;
                        (text, false)
                    }
                };
                faults.insert(name, Fault { text, is_lasting });
            }
            let is_late = Instant::now() + pause * 2 > deadline;
            if !wait || is_late {
                if self.missing.len() > MOST_MISSING {
                    self.missing.clear();
                }
                let lasting = faults.iter().filter(|(_, fault)| fault.is_lasting);
                self.missing.extend(lasting.map(|(name, _)| name.clone()));
                return Ok(faults);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(200));
        }
    }

    /// Asks once, the brokers one after the other until one answers.
    fn ask(
        &mut self,
        topics: &[&str],
        deadline: Instant,
    ) -> Result<Vec<(String, TopicState)>, String> {
        let addresses = self.addresses();
        let mut failed = Vec::new();
        for (tried, address) in addresses.iter().enumerate() {
            let left = deadline.saturating_duration_since(Instant::now());
            let share = left / u32::try_from(addresses.len() - tried).unwrap_or(u32::MAX);
            let until = Instant::now() + share.max(PATIENCE.min(left));
            let answered = self.connection_at(address, until).and_then(|connection| {
                let answer = connection.metadata(topics, until);
                answer.and_then(|answer| Ok(Metadata::read(&answer)?))
            });
            match answered {
                Ok(metadata) => return Ok(self.learn(metadata)),
                Err(lost) => {
                    self.connections.remove(address);
                    failed.push(self.explain(address, &lost));
                }
            }
        }
        Err(failed.join("; "))
    }

    /// Those with a connection first.
    fn addresses(&self) -> Vec<String> {
        let mut addresses: Vec<String> = self.connections.keys().cloned().collect();
        for address in self.bootstrap.iter().chain(self.brokers.values()) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        addresses
    }

    fn learn(&mut self, metadata: Metadata) -> Vec<(String, TopicState)> {
        let brokers = metadata.brokers.into_iter();
        self.brokers = brokers
            .map(|(id, host, port)| {
                let address = match host.contains(':') {
                    true => format!("[{host}]:{port}"),
                    false => format!("{host}:{port}"),
                };
                (id, address)
            })
            .collect();
        let in_use = |address: &String| {
            self.bootstrap.contains(address) || self.brokers.values().any(|a| a == address)
        };
        self.connections.retain(|address, _| in_use(address));
        let mut states = Vec::new();
        for topic in metadata.topics {
            let count = topic.partitions.len();
            let mut leaders = vec![None; count];
            for (number, leader) in topic.partitions {
                if let Some(place) = usize::try_from(number)
                    .ok()
                    .and_then(|n| leaders.get_mut(n))
                {
                    *place = leader;
                }
            }
            let mut state = topic_state(topic.error);
            if matches!(state, TopicState::Known) {
                if count == 0 {
                    state = TopicState::Missing;
                } else {
                    let asked = Instant::now();
                    self.topics
                        .insert(topic.name.clone(), Topic { leaders, asked });
                }
            }
            if !matches!(state, TopicState::Known) {
                self.topics.remove(&topic.name);
            }
            states.push((topic.name, state));
        }
        states
    }

    /// The connection to a broker.
    ///
    /// # Errors
    ///
    /// If there is none: a text for the log.
    pub(crate) fn connection(
        &mut self,
        broker: i32,
        deadline: Instant,
    ) -> Result<&mut Connection, String> {
        let Some(address) = self.brokers.get(&broker).cloned() else {
            return Err(format!(
                "the broker {broker} is not part of the cluster now"
            ));
        };
        let until = deadline.min(Instant::now() + PATIENCE);
        match self.connection_at(&address, until) {
            // Not in one step for the borrow checker's sake: it is there.
            Ok(_) => Ok(self.connections.get_mut(&address).expect("a connection")),
            Err(lost) => Err(self.explain(&address, &lost)),
        }
    }

    /// A connection that is there.
    pub(crate) fn connected(&mut self, broker: i32) -> Option<&mut Connection> {
        self.connections.get_mut(self.brokers.get(&broker)?)
    }

    /// A broker's connection is of no use any more; returns a text for the log.
    pub(crate) fn lost(&mut self, broker: i32, lost: &Lost) -> String {
        let address = self.brokers.get(&broker).cloned().unwrap_or_default();
        self.connections.remove(&address);
        self.explain(&address, lost)
    }

    /// Asks any broker for a new producer's id and epoch, with an error code.
    pub(crate) fn new_producer(&mut self, deadline: Instant) -> Result<(i16, i64, i16), String> {
        let mut failed = Vec::new();
        for address in self.addresses() {
            let until = deadline.min(Instant::now() + PATIENCE);
            let answered = self
                .connection_at(&address, until)
                .and_then(|connection| connection.new_producer(until));
            match answered {
                Ok(answer) => return Ok(answer),
                Err(lost) => {
                    self.connections.remove(&address);
                    failed.push(self.explain(&address, &lost));
                }
            }
        }
        Err(failed.join("; "))
    }

    fn connection_at(&mut self, address: &str, until: Instant) -> Result<&mut Connection, Lost> {
        if !self.connections.contains_key(address) {
            let stream = connect(address, until).map_err(|error| match Lost::from(error) {
                Lost::Broken(error) => Lost::Unreachable(error),
                lost => lost,
            })?;
            let wire = Wire::new(stream);
            let connection = Connection::open(wire, self.login.as_ref(), until)?;
            self.connections.insert(address.to_owned(), connection);
        }
        Ok(self.connections.get_mut(address).expect("it was put there"))
    }

    fn explain(&self, address: &str, lost: &Lost) -> String {
        let Lost::Unreachable(error) = lost else {
            let hint = match lost {
                Lost::Closed if self.login.is_none() => "; if it wants a login, set KAFKA_SASL",
                _ => "",
            };
            return format!("Kafka at {address}: {lost}{hint}");
        };
        let is_set = self.bootstrap.iter().any(|set| set == address);
        let who = match self.brokers.iter().find(|(_, at)| *at == address) {
            Some((id, _)) if !is_set => format!(
                ", which is what the broker {id} advertises (its advertised.listeners, which may not be in KAFKA_BROKERS); \
                 each broker's address must be granted: tcp = [\"{address}\"]"
            ),
            _ => format!("; is it running, and {address} granted as tcp?"),
        };
        format!("cannot connect to Kafka at {address}{who} {error}")
    }
}
