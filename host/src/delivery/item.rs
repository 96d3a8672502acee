//! An event inside a delivery, with what is known of it, and batches of them.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;

use jiff::Timestamp;

use super::feed::Entry;
use crate::event::Event;

/// An event that is not settled.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) event: Event,
    pub(super) about: About,
}

/// What is known of an event beside itself.
#[derive(Debug)]
pub(super) struct About {
    /// Its place in the order: the feed's number, or one of the window's.
    pub(super) seq: u64,
    pub(super) accepted: Timestamp,
    /// Set while it is in a batch that was taken by key.
    pub(super) key: Option<Key>,
    /// None before it was offered once. Most events never need it.
    pub(super) tried: Option<Box<Tried>>,
}

/// What is known of an event that was offered and not taken.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tried {
    pub(super) first: Timestamp,
    /// How often it has failed, not counting failures of a whole batch: those
    /// are the backend's, not the event's.
    pub(super) attempts: u32,
}

/// Stands for the key of an event. Two keys may, rarely, have the same: then
/// their events wait for each other without need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Key(NonZeroU64);

/// Makes keys; each delivery its own, so that nobody can have keys meet.
#[derive(Debug, Default)]
pub(super) struct Keys(RandomState);

/// Events a worker holds, the oldest first.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Event>,
    /// Of each event.
    pub(super) about: Vec<About>,
    pub(super) mode: Mode,
}

/// How events are taken from the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// The oldest, while nobody else holds any: order over all.
    Whole,
    /// The oldest whose key nobody else holds: order by key.
    ByKey,
    /// The oldest there are: no order.
    Any,
}

impl Item {
    pub(super) fn new(event: Event, seq: u64, accepted: Timestamp) -> Item {
        let about = About {
            seq,
            accepted,
            key: None,
            tried: None,
        };
        Item { event, about }
    }
}

impl From<Entry> for Item {
    fn from(entry: Entry) -> Item {
        Item::new(entry.event, entry.seq, entry.accepted)
    }
}

impl About {
    /// How often the event has failed by itself.
    pub(super) fn attempts(&self) -> u32 {
        self.tried.as_ref().map_or(0, |tried| tried.attempts)
    }
}

impl Keys {
    /// The key that `event` is ordered by, if by any: CloudEvents'
    /// `partitionkey`, else its subject.
    pub(super) fn of(&self, event: &Event) -> Option<Key> {
        let attributes = event.attributes().iter();
        let mut named = attributes.filter(|(name, _)| name == "partitionkey");
        let key = match named.next() {
            Some((_, key)) => Some(key.as_str()),
            None => event.subject(),
        };
        let hash = self.0.hash_one(key?);
        Some(Key(NonZeroU64::new(hash).unwrap_or(NonZeroU64::MIN)))
    }
}

impl Batch {
    pub(super) fn with_capacity(capacity: usize, mode: Mode) -> Batch {
        Batch {
            events: Vec::with_capacity(capacity),
            about: Vec::with_capacity(capacity),
            mode,
        }
    }

    pub(super) fn push(&mut self, item: Item) {
        self.events.push(item.event);
        self.about.push(item.about);
    }

    pub(super) fn len(&self) -> usize {
        self.events.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Takes the first `count` out, in order.
    pub(super) fn drain(&mut self, count: usize) -> impl Iterator<Item = Item> {
        let events = self.events.drain(..count);
        let about = self.about.drain(..count);
        events
            .zip(about)
            .map(|(event, about)| Item { event, about })
    }

    /// Puts events back at the front, in order.
    pub(super) fn put_back(&mut self, items: Vec<Item>) {
        let (events, about): (Vec<_>, Vec<_>) = items
            .into_iter()
            .map(|item| (item.event, item.about))
            .unzip();
        self.events.splice(..0, events);
        self.about.splice(..0, about);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_the_partition_key_or_else_the_subject() {
        let keys = Keys::default();
        let key = |subject: Option<&str>, partition: Option<&str>| {
            let mut event = Event::builder("t").attribute("traceparent", "x");
            if let Some(subject) = subject {
                event = event.subject(subject);
            }
            if let Some(partition) = partition {
                event = event.attribute("partitionkey", partition);
            }
            keys.of(&event.build().unwrap())
        };
        assert_eq!(key(None, None), None);
        assert!(key(Some("a"), None).is_some());
        assert_ne!(key(Some("a"), None), key(Some("b"), None));
        assert_eq!(key(Some("a"), Some("p")), key(Some("b"), Some("p")));
        assert_eq!(key(Some("p"), None), key(None, Some("p")));
    }
}
