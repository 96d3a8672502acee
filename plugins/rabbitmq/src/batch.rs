//! What became of each event of a batch, by what the server says of its message.
//!
//! Messages have tags, counted from 1 since the channel was opened. A server
//! confirms them one by one or all up to a tag, in any order, and returns those
//! no queue gets before it confirms them.

use crate::frames::Broken;
use backhaul_guest::{Event, Failure};

pub(crate) struct Batch<'a> {
    events: &'a [Event],
    first_tag: u64,
    /// Those that were sent, in order of their tags.
    messages: Vec<Message>,
    /// How many messages at the beginning are settled.
    settled: usize,
    failures: Vec<Failure>,
}

struct Message {
    /// Of its event in the batch.
    index: usize,
    fate: Fate,
}

enum Fate {
    Unknown,
    /// No queue gets it; its confirm is still to come.
    Returned(Failure),
    Settled,
}

impl<'a> Batch<'a> {
    /// The first message will have the tag `first_tag`.
    pub(crate) fn new(events: &'a [Event], first_tag: u64) -> Self {
        Self {
            events,
            first_tag,
            messages: Vec::with_capacity(events.len()),
            settled: 0,
            failures: Vec::new(),
        }
    }

    /// The event at `index` is the next message.
    pub(crate) fn sent(&mut self, index: usize) {
        self.messages.push(Message {
            index,
            fate: Fate::Unknown,
        });
    }

    /// An event was not sent, or will not be.
    pub(crate) fn failed(&mut self, failure: Failure) {
        self.failures.push(failure);
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.settled == self.messages.len()
    }

    /// The server has the message with this tag or, with `multiple`, all up to it.
    pub(crate) fn acked(&mut self, tag: u64, multiple: bool) -> Result<(), Broken> {
        self.settle(tag, multiple, |_| None)
    }

    /// The server could not take the message with this tag, or all up to it.
    pub(crate) fn nacked(&mut self, tag: u64, multiple: bool) -> Result<(), Broken> {
        self.settle(tag, multiple, |index| {
            let message = "RabbitMQ did not take it (basic.nack): a queue is full and set to reject, or failed";
            Some(Failure::retryable(index, message))
        })
    }

    /// The first message that is `the_one` came back. With the same event twice
    /// in a batch the order decides: messages come back as they were sent.
    pub(crate) fn returned(
        &mut self,
        the_one: impl Fn(&Event) -> bool,
        failure: impl FnOnce(usize) -> Failure,
    ) -> Result<(), Broken> {
        let events = self.events;
        let message = self.messages[self.settled..].iter_mut().find(|message| {
            matches!(message.fate, Fate::Unknown) && the_one(&events[message.index])
        });
        match message {
            Some(message) => {
                message.fate = Fate::Returned(failure(message.index));
                Ok(())
            }
            None => {
                let message = "it returned a message that is not of this batch";
                Err(Broken::Violation(message.to_owned()))
            }
        }
    }

    /// Gives up for good the messages without a confirm that `are_to_blame`.
    pub(crate) fn give_up(&mut self, are_to_blame: impl Fn(&Event) -> bool, reason: &str) {
        for message in &mut self.messages {
            let event = &self.events[message.index];
            if matches!(message.fate, Fate::Unknown) && are_to_blame(event) {
                message.fate = Fate::Returned(Failure::permanent(message.index, reason));
            }
        }
    }

    /// The failures, once no more will be heard: what has no confirm may be there
    /// or not, and is to be sent again.
    pub(crate) fn into_failures(mut self, no_confirm: &str) -> Vec<Failure> {
        for message in self.messages {
            match message.fate {
                Fate::Settled => {}
                Fate::Returned(failure) => self.failures.push(failure),
                Fate::Unknown => self
                    .failures
                    .push(Failure::retryable(message.index, no_confirm)),
            }
        }
        self.failures
    }

    fn settle(
        &mut self,
        tag: u64,
        multiple: bool,
        failure: impl Fn(usize) -> Option<Failure>,
    ) -> Result<(), Broken> {
        let last = match tag {
            // All there are.
            0 if multiple => self.messages.len().checked_sub(1),
            tag => tag
                .checked_sub(self.first_tag)
                .and_then(|last| usize::try_from(last).ok()),
        };
        let last = last.filter(|last| *last < self.messages.len());
        let first = if multiple { Some(self.settled) } else { last };
        let (Some(first), Some(last)) = (first, last) else {
            let message = format!("it confirmed the message {tag}, which was not sent");
            return Err(Broken::Violation(message));
        };
        for message in self.messages.iter_mut().take(last + 1).skip(first) {
            match std::mem::replace(&mut message.fate, Fate::Settled) {
                Fate::Settled => {}
                Fate::Returned(failure) => self.failures.push(failure),
                Fate::Unknown => self.failures.extend(failure(message.index)),
            }
        }
        let settled = self.messages[self.settled..]
            .iter()
            .take_while(|message| matches!(message.fate, Fate::Settled));
        self.settled += settled.count();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use backhaul_guest::{PublishError, Timestamp};

    fn events(count: usize) -> Vec<Event> {
        let event = |n: usize| Event {
            id: n.to_string(),
            source: "/test".into(),
            event_type: "t".into(),
            subject: None,
            time: Timestamp {
                seconds: 0,
                nanoseconds: 0,
            },
            content_type: None,
            attributes: Vec::new(),
            data: vec![0; n],
        };
        (0..count).map(event).collect()
    }

    /// A batch with tags from 11, in which the event at index 2 was not sent.
    fn batch(events: &[Event]) -> Batch<'_> {
        let mut batch = Batch::new(events, 11);
        for index in (0..events.len()).filter(|index| *index != 2) {
            batch.sent(index);
        }
        batch.failed(Failure::permanent(2, "cannot be a message"));
        batch
    }

    fn outcome(batch: Batch<'_>) -> String {
        let mut failures = batch.into_failures("unknown");
        failures.sort_by_key(|failure| failure.index);
        let texts = failures.iter().map(|failure| match &failure.error {
            PublishError::Retryable(text) => format!("{} again: {text}", failure.index),
            PublishError::Permanent(text) => format!("{} dead: {text}", failure.index),
        });
        texts.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn confirms_of_one_and_of_many_settle_the_right_events() {
        let events = events(6); // The tags 11 to 15 are the events 0, 1, 3, 4, 5.
        let mut batch = batch(&events);
        batch.acked(13, false).unwrap();
        batch.nacked(12, true).unwrap();
        assert!(!batch.is_settled());
        batch.acked(14, true).unwrap();
        let mut rest = outcome(batch);
        assert!(rest.contains("0 again: RabbitMQ did not take it"));
        assert!(rest.contains("\n1 again: RabbitMQ did not take it"));
        rest = rest.split_once("\n2 ").unwrap().1.to_owned();
        assert_eq!(rest, "dead: cannot be a message\n5 again: unknown");
    }

    #[test]
    fn tag_0_with_multiple_is_all_of_them() {
        let events = events(4);
        let mut batch = batch(&events);
        batch.acked(0, true).unwrap();
        assert!(batch.is_settled());
        assert_eq!(outcome(batch), "2 dead: cannot be a message");
    }

    #[test]
    fn a_message_that_comes_back_is_dead_whether_its_confirm_comes_or_not() {
        let events = events(5);
        let mut batch = batch(&events);
        for id in ["1", "4"] {
            let dead = |index| Failure::permanent(index, "no queue");
            batch.returned(|event| event.id == id, dead).unwrap();
        }
        batch.acked(13, true).unwrap();
        let outcome = outcome(batch);
        let expected = "1 dead: no queue\n2 dead: cannot be a message\n4 dead: no queue";
        assert_eq!(outcome, expected);
    }

    #[test]
    fn the_same_event_twice_comes_back_twice() {
        let mut events = events(5);
        events[4].id = "1".into();
        let mut batch = batch(&events);
        for text in ["first", "second"] {
            let dead = |index| Failure::permanent(index, text);
            batch.returned(|event| event.id == "1", dead).unwrap();
        }
        let third = batch.returned(
            |event| event.id == "1",
            |index| Failure::permanent(index, ""),
        );
        assert!(third.is_err());
        batch.acked(14, true).unwrap();
        let outcome = outcome(batch);
        assert!(outcome.contains("1 dead: first") && outcome.contains("4 dead: second"));
    }

    #[test]
    fn a_confirm_of_what_was_not_sent_is_a_violation_and_settles_nothing() {
        let events = events(3);
        for (tag, multiple) in [
            (0, false),
            (10, false),
            (10, true),
            (13, false),
            (u64::MAX, true),
        ] {
            let mut batch = batch(&events);
            assert!(batch.acked(tag, multiple).is_err(), "{tag}");
            assert!(outcome(batch).contains("0 again: unknown"), "{tag}");
        }
    }

    #[test]
    fn what_is_to_blame_for_the_end_of_the_channel_is_given_up_and_the_rest_is_not() {
        let events = events(5);
        let mut batch = batch(&events);
        batch.acked(11, false).unwrap();
        batch.give_up(|event| event.data.len() > 3, "too large");
        let expected =
            "1 again: unknown\n2 dead: cannot be a message\n3 again: unknown\n4 dead: too large";
        assert_eq!(outcome(batch), expected);
    }
}
