//! What is left to do of the events being published: a lane for each partition, in
//! which they wait in order.

use crate::message::Message;
use crate::produce::Place;
use crate::records::Record;
use crate::settings::Settings;
use backhaul_guest::{Event, Failure};
use std::collections::{BTreeMap, VecDeque};

pub(crate) struct Work<'a> {
    settings: &'a Settings,
    pub(crate) events: &'a [Event],
    records: Vec<Option<Record<'a>>>,
    pub(crate) lanes: BTreeMap<Place, Lane>,
    pub(crate) failures: Vec<Failure>,
}

#[derive(Default)]
pub(crate) struct Lane {
    pub(crate) waiting: VecDeque<usize>,
    /// How often in a row nothing moved.
    pub(crate) tries: u32,
    /// What went wrong last.
    pub(crate) problem: Option<String>,
    /// Some record cannot be in the log, and it was not said which.
    pub(crate) one_by_one: bool,
    /// Nothing more is sent.
    pub(crate) is_closed: bool,
}

impl<'a> Work<'a> {
    pub(crate) fn new(settings: &'a Settings, events: &'a [Event]) -> Self {
        Self {
            settings,
            events,
            records: events.iter().map(|_| None).collect(),
            lanes: BTreeMap::new(),
            failures: Vec::new(),
        }
    }

    pub(crate) fn lane(&mut self, place: &Place) -> &mut Lane {
        if !self.lanes.contains_key(place) {
            self.lanes.insert(place.clone(), Lane::default());
        }
        self.lanes.get_mut(place).expect("it was put there")
    }

    /// The record of an event; or, if there can be none, its failure is noted.
    pub(crate) fn record(&mut self, index: usize) -> Option<&Record<'a>> {
        if self.records[index].is_none() {
            match Message::new(self.settings, &self.events[index]) {
                Ok(message) => self.records[index] = Some(Record::new(message)),
                Err(error) => self.fail_for_good(index, &error.to_string()),
            }
        }
        self.records[index].as_ref()
    }

    /// Takes the next events of a lane, as many as fit into `limit` bytes but at least
    /// one, and says how many bytes they have.
    pub(crate) fn take(&mut self, place: &Place, limit: usize) -> (Vec<usize>, usize) {
        let (mut taken, mut size) = (Vec::new(), 0);
        let Some(lane) = self.lanes.get_mut(place) else {
            return (taken, size);
        };
        while let Some(index) = lane.waiting.front().copied() {
            let next = self.records[index].as_ref().map_or(0, Record::size);
            if !taken.is_empty() && (size + next > limit || lane.one_by_one) {
                break;
            }
            size += next;
            taken.push(index);
            lane.waiting.pop_front();
        }
        (taken, size)
    }

    /// The records of events that [`take`](Self::take) gave.
    pub(crate) fn records(&self, taken: &[usize]) -> Vec<&Record<'a>> {
        let record = |index: &usize| self.records[*index].as_ref();
        taken.iter().filter_map(record).collect()
    }

    /// Puts events back to where they were taken from.
    pub(crate) fn put_back(
        &mut self,
        place: &Place,
        indexes: impl DoubleEndedIterator<Item = usize>,
    ) {
        for index in indexes.rev() {
            if self.record(index).is_some() {
                self.lane(place).waiting.push_front(index);
            }
        }
    }

    pub(crate) fn fail_for_good(&mut self, index: usize, text: &str) {
        self.failures.push(Failure::permanent(index, text));
    }

    pub(crate) fn fail_for_now(&mut self, index: usize, text: &str) {
        self.failures.push(Failure::retryable(index, text));
    }

    /// Nothing more is sent of a lane. What waits in it fails, and `in_doubt` too.
    pub(crate) fn close(
        &mut self,
        place: &Place,
        in_doubt: Vec<usize>,
        text: &str,
        for_good: bool,
    ) {
        let lane = self.lane(place);
        lane.is_closed = true;
        let waiting = std::mem::take(&mut lane.waiting);
        for index in in_doubt.into_iter().chain(waiting) {
            match for_good {
                true => self.fail_for_good(index, text),
                false => self.fail_for_now(index, text),
            }
        }
    }
}
