//! Record batches of which it is not known whether they are in the log.
//!
//! A record batch is in doubt from when it is sent until its answer comes, and goes on to
//! be if none does. Then it is sent again as it is, before anything else of its
//! partition, until the broker has said what became of it: by producer and numbers the
//! broker recognises what it has. The host, which knows nothing of this, meanwhile
//! offers the same events again, maybe one by one and among others; they are recognised
//! here by source and id.

use crate::produce::Place;
use crate::records::Identity;
use backhaul_guest::Event;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// So many events are remembered as stored while they wait to be offered again. With one
/// instance that is soon; another instance may have got them instead.
const MOST_STORED: usize = 4_096;

/// A record batch as it is sent, and sent again.
pub(crate) struct Chunk {
    pub(crate) identity: Identity,
    /// The number of its first record.
    pub(crate) sequence: i32,
    /// Before compression.
    pub(crate) size: usize,
    pub(crate) bytes: Vec<u8>,
    /// The event of each record.
    pub(crate) members: Vec<Member>,
}

pub(crate) enum Member {
    /// It is this one of the events that are being published.
    Offered(usize),
    /// The host will offer it again, or has given it up.
    Absent(Name),
}

/// What tells an event from all others.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Name {
    source: String,
    id: String,
}

/// What is known of an event that is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    New,
    InDoubt,
    Stored,
}

#[derive(Default)]
pub(crate) struct Doubt {
    /// At most one of each partition.
    pub(crate) chunks: BTreeMap<Place, Chunk>,
    stored: VecDeque<Name>,
}

impl Chunk {
    /// The number of the record after its last. Kafka's numbers begin again after 2^31-1.
    pub(crate) fn next_sequence(&self) -> i32 {
        let count = self.members.len() as i64;
        let next = (i64::from(self.sequence) + count) & i64::from(i32::MAX);
        i32::try_from(next).expect("31 bits")
    }

    /// Which of the events being published are in it.
    pub(crate) fn offered(&self) -> impl DoubleEndedIterator<Item = usize> {
        self.members.iter().filter_map(|member| match member {
            Member::Offered(index) => Some(*index),
            Member::Absent(_) => None,
        })
    }
}

impl Doubt {
    /// Finds out which of the events that are offered are known already.
    pub(crate) fn recognise(&mut self, events: &[Event]) -> Vec<Known> {
        let mut known = vec![Known::New; events.len()];
        if self.chunks.is_empty() && self.stored.is_empty() {
            return known;
        }
        // The same event may be there twice.
        let mut offered: HashMap<(&str, &str), RefCell<VecDeque<usize>>> = HashMap::new();
        for (index, event) in events.iter().enumerate() {
            let name = (event.source.as_str(), event.id.as_str());
            offered.entry(name).or_default().get_mut().push_back(index);
        }
        let find = |name: &Name| {
            let same = offered.get(&(name.source.as_str(), name.id.as_str()));
            same.and_then(|same| same.borrow_mut().pop_front())
        };
        self.stored.retain(|name| match find(name) {
            Some(index) => {
                known[index] = Known::Stored;
                false
            }
            None => true,
        });
        for member in self.chunks.values_mut().flat_map(|c| &mut c.members) {
            if let Member::Absent(name) = member
                && let Some(index) = find(name)
            {
                known[index] = Known::InDoubt;
                *member = Member::Offered(index);
            }
        }
        known
    }

    /// A record batch is in the log: its events are published if they are offered, and
    /// remembered if not.
    pub(crate) fn stored(&mut self, chunk: Chunk) {
        for member in chunk.members {
            if let Member::Absent(name) = member {
                self.stored.push_back(name);
            }
        }
        let too_many = self.stored.len().saturating_sub(MOST_STORED);
        self.stored.drain(..too_many);
    }

    /// What is still in doubt is, from now on, not offered.
    pub(crate) fn end(&mut self, events: &[Event]) {
        for member in self.chunks.values_mut().flat_map(|c| &mut c.members) {
            if let Member::Offered(index) = member {
                *member = Member::Absent(Name {
                    source: events[*index].source.clone(),
                    id: events[*index].id.clone(),
                });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::tests::event;

    use Known::{InDoubt, New, Stored};

    const IDENTITY: Identity = Identity {
        producer_id: 1,
        epoch: 0,
    };

    fn events(ids: &[&str]) -> Vec<Event> {
        let event = |id: &&str| Event {
            id: (*id).to_owned(),
            ..event()
        };
        ids.iter().map(event).collect()
    }

    fn chunk(sequence: i32, members: std::ops::Range<usize>) -> Chunk {
        Chunk {
            identity: IDENTITY,
            sequence,
            size: 0,
            bytes: Vec::new(),
            members: members.map(Member::Offered).collect(),
        }
    }

    fn place() -> Place {
        Place {
            topic: "events".into(),
            partition: 0,
        }
    }

    #[test]
    fn what_is_in_doubt_is_recognised_in_whatever_portions_it_comes_again() {
        let mut doubt = Doubt::default();
        let batch = events(&["a", "b", "b", "c"]);
        assert_eq!(doubt.recognise(&batch), [New; 4]);
        doubt.chunks.insert(place(), chunk(0, 0..4));
        doubt.end(&batch);

        let probe = events(&["a"]);
        assert_eq!(doubt.recognise(&probe), [InDoubt]);
        doubt.end(&probe);
        assert_eq!(doubt.recognise(&probe), [InDoubt]);
        let stored = doubt.chunks.remove(&place()).unwrap();
        assert_eq!(stored.offered().collect::<Vec<_>>(), [0]);
        doubt.stored(stored);

        let rest = events(&["b", "x", "b", "b", "c"]);
        let known = doubt.recognise(&rest);
        assert_eq!(known, [Stored, New, Stored, New, Stored]);
        assert_eq!(doubt.recognise(&rest), [New; 5]);
    }

    #[test]
    fn what_is_never_offered_again_is_forgotten_in_the_end() {
        let mut doubt = Doubt::default();
        for round in 0..3 {
            let ids: Vec<String> = (0..2_000).map(|n| format!("{round}-{n}")).collect();
            let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
            let batch = events(&ids);
            doubt.chunks.insert(place(), chunk(0, 0..batch.len()));
            doubt.end(&batch);
            let chunk = doubt.chunks.remove(&place()).unwrap();
            doubt.stored(chunk);
        }
        let known = doubt.recognise(&events(&["0-0", "0-1903", "0-1904", "2-1999"]));
        assert_eq!(known, [New, New, Stored, Stored]);
    }

    #[test]
    fn the_numbers_begin_again_after_the_largest() {
        assert_eq!(chunk(5, 0..3).next_sequence(), 8);
        assert_eq!(chunk(i32::MAX - 2, 0..3).next_sequence(), 0);
        assert_eq!(chunk(i32::MAX, 0..3).next_sequence(), 2);
    }
}
