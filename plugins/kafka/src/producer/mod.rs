//! An idempotent producer: a batch of events becomes record batches, one for each
//! partition at a time, which go to all leaders at once.
//!
//! Each record batch bears the producer's id and epoch, and a number that goes on in
//! each partition. By these a broker drops what it has already, and notices what is
//! missing in between. The numbers are only used up by what is in the log, so the next
//! record batch of a partition has to wait until it is known what became of the one
//! before: see `doubt`.

mod outcome;

use crate::cluster::Cluster;
use crate::doubt::{Chunk, Doubt, Known, Member};
use crate::partitioner;
use crate::produce::{self, Answer, Place};
use crate::records::{self, BATCH_OVERHEAD, Identity};
use crate::settings::Settings;
use crate::verdict::{Verdict, verdict};
use crate::work::Work;
use backhaul_guest::{Event, Failure};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;
use std::time::{Duration, Instant};

/// How often in a row something is tried in one call without success. The pauses
/// between add up to 0.7 s, about the time a partition needs to change its leader.
const MOST_TRIES: u32 = 5;

/// Before a further try: 50, 100, 200, 400 ms.
fn pause(tries: u32) -> Duration {
    Duration::from_millis(50) * 2u32.pow(tries - 1)
}

/// To find the brokers and log in. With the default of `KAFKA_TIMEOUT` this stays below
/// the 5 seconds a call may take, so that the host learns what was slow.
const OPEN_TIMEOUT: Duration = Duration::from_millis(2_000);

/// For answers that are there already when the deadline is over.
const GRACE: Duration = Duration::from_millis(20);

pub(crate) struct Producer {
    cluster: Cluster,
    identity: Option<Identity>,
    /// The number of the next record, where it is not 0.
    sequences: HashMap<Place, i32>,
    doubt: Doubt,
    /// The most bytes of a record batch of topics that took no more.
    limits: HashMap<Rc<str>, usize>,
    /// Which of a topic's partitions gets the next events without a key.
    turn: usize,
}

impl Producer {
    pub(crate) fn open(settings: &Settings) -> Result<Self, String> {
        let mut cluster = Cluster::new(&settings.brokers, settings.login.as_ref());
        // Whether anybody is there; topics are looked for when there are events for them.
        cluster.find(&[], Instant::now() + OPEN_TIMEOUT)?;
        let mut turn = [0; 2];
        getrandom::fill(&mut turn).map_err(|error| error.to_string())?;
        Ok(Self {
            cluster,
            identity: None,
            sequences: HashMap::new(),
            doubt: Doubt::default(),
            limits: HashMap::new(),
            turn: u16::from_ne_bytes(turn).into(),
        })
    }

    /// Publishes the events; returns what was not published.
    pub(crate) fn publish(&mut self, settings: &Settings, events: &[Event]) -> Vec<Failure> {
        let deadline = Instant::now() + settings.timeout;
        let known = self.doubt.recognise(events);
        let mut work = Work::new(settings, events);
        for place in self.doubt.chunks.keys() {
            work.lane(place);
        }
        self.sort_in(settings, &mut work, &known, deadline);
        while self.round(settings, &mut work, deadline) {}
        self.doubt.end(events);
        work.failures
    }

    /// Puts each new event into the lane of its partition.
    fn sort_in(
        &mut self,
        settings: &Settings,
        work: &mut Work<'_>,
        known: &[Known],
        deadline: Instant,
    ) {
        let events = work.events;
        let mut topics: BTreeMap<Cow<'_, str>, Vec<usize>> = BTreeMap::new();
        for (index, event) in events.iter().enumerate() {
            if known[index] != Known::New {
                continue;
            }
            match settings.topic.of(event) {
                Ok(topic) => topics.entry(topic).or_default().push(index),
                Err(text) => work.fail_for_good(index, &text),
            }
        }
        let stale = topics.keys().map(|topic| &**topic);
        let stale: Vec<&str> = stale.filter(|t| self.cluster.is_stale(t)).collect();
        let (mut faults, mut unreachable) = (HashMap::new(), None::<String>);
        if !stale.is_empty() {
            match self.cluster.find(&stale, deadline) {
                Ok(found) => faults = found,
                Err(text) => unreachable = Some(text),
            }
        }
        for (topic, indexes) in topics {
            let Some(leaders) = self.cluster.leaders(&topic) else {
                let (text, for_good) = match (&unreachable, faults.get(&*topic)) {
                    (Some(text), _) => (text.clone(), false),
                    (None, Some(fault)) => (
                        format!("the topic {topic}: {}", fault.text),
                        fault.is_lasting && settings.topic.varies,
                    ),
                    (None, None) => (format!("no broker knows the topic {topic}"), false),
                };
                for index in indexes {
                    match for_good {
                        true => work.fail_for_good(index, &text),
                        false => work.fail_for_now(index, &text),
                    }
                }
                continue;
            };
            let count = leaders.len();
            let turn = next_led(leaders, self.turn);
            self.turn = self.turn.wrapping_add(1);
            let mut partitions: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
            for index in indexes {
                let Some(record) = work.record(index) else {
                    continue;
                };
                let partition = match &record.message.key {
                    Some(key) => partitioner::partition(key.as_bytes(), count),
                    None => turn,
                };
                partitions.entry(partition).or_default().push(index);
            }
            let topic: Rc<str> = topic.into();
            for (partition, indexes) in partitions {
                let place = Place {
                    topic: topic.clone(),
                    partition: partition as i32,
                };
                work.lane(&place).waiting.extend(indexes);
            }
        }
    }

    /// Sends the next record batch of each lane and takes in the answers. Returns
    /// whether anything is left to be done.
    fn round(&mut self, settings: &Settings, work: &mut Work<'_>, deadline: Instant) -> bool {
        let places = self.open_places(work);
        if places.is_empty() {
            return false;
        }
        if Instant::now() >= deadline {
            for place in places {
                self.give_up(work, &place, "it took too long (KAFKA_TIMEOUT)");
            }
            return false;
        }
        let mut leaders: BTreeMap<i32, Vec<Place>> = BTreeMap::new();
        for place in places {
            if !self.fill(settings, work, &place, deadline) {
                continue;
            }
            let Place { topic, partition } = &place;
            match self.cluster.leader(topic, *partition as usize) {
                Some(leader) => leaders.entry(leader).or_default().push(place),
                None => self.problem(work, &place, "the partition has no leader"),
            }
        }
        let mut sent = Vec::new();
        for (leader, places) in leaders {
            match self.send(leader, &places, deadline) {
                Ok(number) => sent.push((leader, places, number)),
                Err(text) => {
                    for place in &places {
                        self.problem(work, place, &text);
                    }
                }
            }
        }
        for (leader, places, number) in sent {
            match self.receive(leader, number, deadline) {
                Ok(answers) => self.settle_all(settings, work, &places, answers),
                Err(text) => {
                    for place in &places {
                        self.problem(work, place, &text);
                    }
                }
            }
        }
        self.look_again(settings, work, deadline);
        true
    }

    fn open_places(&self, work: &Work<'_>) -> Vec<Place> {
        let is_open = |place: &Place| {
            let lane = &work.lanes[place];
            let is_empty = lane.waiting.is_empty() && !self.doubt.chunks.contains_key(place);
            !lane.is_closed && !is_empty
        };
        work.lanes.keys().filter(|p| is_open(p)).cloned().collect()
    }

    /// Sees to it that there is a record batch to send: the one in doubt, or else the
    /// next events. Returns whether there is.
    fn fill(
        &mut self,
        settings: &Settings,
        work: &mut Work<'_>,
        place: &Place,
        deadline: Instant,
    ) -> bool {
        if self.doubt.chunks.contains_key(place) {
            return true;
        }
        let identity = match self.identity(deadline) {
            Ok(identity) => identity,
            Err(text) => {
                work.close(place, Vec::new(), &text, false);
                return false;
            }
        };
        let limit = self.limits.get(&place.topic).copied();
        let limit = limit.unwrap_or(settings.batch_bytes);
        let (taken, size) = work.take(place, limit.saturating_sub(BATCH_OVERHEAD));
        let sequence = self.sequences.get(place).copied().unwrap_or(0);
        let records = work.records(&taken);
        let chunk = Chunk {
            identity,
            sequence,
            size: size + BATCH_OVERHEAD,
            bytes: records::encode(&records, identity, sequence, settings.compression),
            members: taken.into_iter().map(Member::Offered).collect(),
        };
        self.doubt.chunks.insert(place.clone(), chunk);
        true
    }

    fn identity(&mut self, deadline: Instant) -> Result<Identity, String> {
        if let Some(identity) = self.identity {
            return Ok(identity);
        }
        let mut pauses = (1..MOST_TRIES).map(pause);
        loop {
            let (code, producer_id, epoch) = self.cluster.new_producer(deadline)?;
            let text = match verdict(code) {
                Verdict::Stored => {
                    let identity = Identity { producer_id, epoch };
                    self.identity = Some(identity);
                    return Ok(identity);
                }
                // A broker that has just started has none to give for a moment.
                Verdict::Again(text) => match pauses.next() {
                    Some(pause) if Instant::now() + pause < deadline => {
                        std::thread::sleep(pause);
                        continue;
                    }
                    _ => text,
                },
                Verdict::Setting(text) => text,
                _ => "an error this plugin does not know",
            };
            return Err(format!("Kafka gives no producer id: {text} ({code})"));
        }
    }

    fn send(&mut self, leader: i32, places: &[Place], deadline: Instant) -> Result<i32, String> {
        let connection = self.cluster.connection(leader, deadline)?;
        let batch = |place| Some((place, self.doubt.chunks.get(place)?.bytes.as_slice()));
        let batches: Vec<(&Place, &[u8])> = places.iter().filter_map(batch).collect();
        // So that the broker says why, before we do not listen any more.
        let timeout = deadline.saturating_duration_since(Instant::now()) * 3 / 4;
        let api = connection.produce;
        let body = |out: &mut Vec<u8>| produce::put(out, timeout, &batches);
        let sent = connection.wire.send(api, body);
        sent.map_err(|lost| self.cluster.lost(leader, &lost))
    }

    fn receive(
        &mut self,
        leader: i32,
        number: i32,
        deadline: Instant,
    ) -> Result<Vec<Answer>, String> {
        let Some(connection) = self.cluster.connected(leader) else {
            return Err("the connection is gone".to_owned());
        };
        let version = connection.produce.version;
        let until = deadline.max(Instant::now() + GRACE);
        let answer = connection.wire.receive(number, until);
        let answers = answer.and_then(|answer| Ok(produce::read(&answer, version)?));
        answers.map_err(|lost| self.cluster.lost(leader, &lost))
    }
}

/// The first partition from `turn` on that has a leader, or else whichever it is.
fn next_led(leaders: &[Option<i32>], turn: usize) -> usize {
    let count = leaders.len();
    let from_turn = (0..count).map(|n| (turn % count + n) % count);
    let led = from_turn
        .clone()
        .find(|partition| leaders[*partition].is_some());
    led.unwrap_or(turn % count)
}
