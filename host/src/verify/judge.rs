//! Judges what arrived by what was sent.

use std::collections::{BTreeSet, HashMap};

use jiff::Timestamp;

use super::profile::{Attributes, Order};
use crate::event::Event;

/// How many of a kind are shown.
const SHOWN: usize = 3;

/// How much of a value is shown, in characters.
const MAX_VALUE: usize = 60;

/// What is found wrong, and counted.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Numbers of events that did not arrive.
    pub(super) missing: Vec<usize>,
    /// How many times an event arrived that had arrived.
    pub(super) repeats: usize,
    /// The first event that arrived after one it was sent before.
    pub(super) disorder: Option<String>,
    /// What is another than it was, event by event.
    pub(super) changed: Vec<String>,
    /// How many events are.
    pub(super) changes: usize,
    /// What arrived and was not sent.
    pub(super) unknown: Vec<String>,
}

impl Judgement {
    /// Of `arrived`, in the order it did, by `sent`, in the order it was.
    pub(super) fn of(
        sent: &[Event],
        arrived: &[Event],
        order: Order,
        carried: &Attributes,
    ) -> Judgement {
        let numbers: HashMap<&str, usize> = sent
            .iter()
            .enumerate()
            .map(|(number, event)| (event.id(), number))
            .collect();
        let mut judgement = Judgement::default();
        let mut seen = vec![false; sent.len()];
        let mut last: HashMap<&str, usize> = HashMap::new();
        for event in arrived {
            let Some(&number) = numbers.get(event.id()) else {
                judgement.unknown.push(shown(event.id()));
                continue;
            };
            let changes = differences(&sent[number], event, carried);
            if !changes.is_empty() {
                judgement.changes += 1;
                if judgement.changed.len() < SHOWN {
                    let text = format!("event {number}: {}", changes.join("; "));
                    judgement.changed.push(text);
                }
            }
            if std::mem::replace(&mut seen[number], true) {
                judgement.repeats += 1;
                continue;
            }
            let key = match order {
                Order::None => continue,
                Order::All => "",
                Order::Key => sent[number].subject().unwrap_or_default(),
            };
            if let Some(before) = last.insert(key, number)
                && before > number
                && judgement.disorder.is_none()
            {
                judgement.disorder = Some(format!("event {number} arrived after event {before}"));
            }
        }
        let missing = seen.iter().enumerate().filter(|(_, seen)| !**seen);
        judgement.missing = missing.map(|(number, _)| number).collect();
        judgement
    }

    /// What is wrong, to be read after each other; empty if nothing is. Repeats are
    /// wrong where `exactly_once`.
    pub(super) fn faults(&self, exactly_once: bool) -> Vec<String> {
        let mut faults = Vec::new();
        if !self.missing.is_empty() {
            let first: Vec<String> = self.missing.iter().take(8).map(usize::to_string).collect();
            let more = match self.missing.len() > first.len() {
                true => ", ...",
                false => "",
            };
            faults.push(format!(
                "{} taken and did not arrive (numbers {}{more})",
                counted(self.missing.len(), "event was", "events were"),
                first.join(", "),
            ));
        }
        if let Some(disorder) = &self.disorder {
            faults.push(format!("out of order: {disorder}"));
        }
        if self.changes > 0 {
            faults.push(format!(
                "{} not what was sent: {}",
                counted(self.changes, "event is", "events are"),
                self.changed.join(" | "),
            ));
        }
        if exactly_once && self.repeats > 0 {
            faults.push(format!(
                "{} though no call had failed",
                counted(self.repeats, "event arrived again", "events arrived again"),
            ));
        }
        if !self.unknown.is_empty() {
            let first: BTreeSet<&str> = self.unknown.iter().map(String::as_str).collect();
            let first: Vec<&str> = first.into_iter().take(SHOWN).collect();
            faults.push(format!(
                "{} with an id nobody sent ({})",
                counted(self.unknown.len(), "event arrived", "events arrived"),
                first.join(", "),
            ));
        }
        faults
    }
}

/// `1 event`, `2 events`, with thousands set apart.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    let digits = count.to_string();
    let mut number = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            number.push(',');
        }
        number.push(digit);
    }
    format!("{number} {}", if count == 1 { one } else { many })
}

/// What of an event is not what was sent.
fn differences(sent: &Event, arrived: &Event, carried: &Attributes) -> Vec<String> {
    let mut differences = Vec::new();
    let mut compare = |name: &str, sent: Option<&str>, arrived: Option<&str>| {
        if sent != arrived && carried.has(name) {
            let shown = |value: Option<&str>| value.map_or("nothing".to_owned(), shown);
            differences.push(format!(
                "`{name}` was {} and arrived as {}",
                shown(sent),
                shown(arrived)
            ));
        }
    };
    compare("source", Some(sent.source()), Some(arrived.source()));
    compare("type", Some(sent.event_type()), Some(arrived.event_type()));
    compare("subject", sent.subject(), arrived.subject());
    // What has no content type is JSON, as CloudEvents' JSON format has it.
    if sent.content_type().is_some() || arrived.content_type() != Some("application/json") {
        let (sent, arrived) = (sent.content_type(), arrived.content_type());
        compare("datacontenttype", sent, arrived);
    }
    let time = |time: Timestamp| Some(time.to_string());
    let (sent_at, arrived_at) = (time(sent.time()), time(arrived.time()));
    compare("time", sent_at.as_deref(), arrived_at.as_deref());
    let value = |event: &Event, name: &str| {
        let mut attributes = event.attributes().iter();
        attributes
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.clone())
    };
    for (name, was) in sent.attributes() {
        compare(name, Some(was), value(arrived, name).as_deref());
    }
    for (name, is) in arrived.attributes() {
        if value(sent, name).is_none() {
            compare(name, None, Some(is));
        }
    }
    if sent.data() != arrived.data() {
        differences.push(data_difference(sent.data(), arrived.data()));
    }
    differences
}

fn data_difference(sent: &[u8], arrived: &[u8]) -> String {
    if sent.len() != arrived.len() {
        let (sent, arrived) = (sent.len(), arrived.len());
        return format!("of {sent} bytes of data {arrived} arrived");
    }
    let at = sent
        .iter()
        .zip(arrived)
        .position(|(sent, arrived)| sent != arrived);
    let at = at.unwrap_or_default();
    format!(
        "byte {at} of its data was 0x{:02x} and arrived as 0x{:02x}",
        sent[at], arrived[at]
    )
}

fn shown(value: &str) -> String {
    let start: String = value.chars().take(MAX_VALUE).collect();
    match start.len() < value.len() {
        true => format!("{start:?}... ({} bytes)", value.len()),
        false => format!("{start:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verify::events::Events;

    fn faults(sent: &[Event], arrived: &[Event], order: Order) -> String {
        Judgement::of(sent, arrived, order, &Attributes::All)
            .faults(true)
            .join("\n")
    }

    #[test]
    fn what_is_lost_repeated_or_out_of_order_is_told() {
        let sent = Events::new("r", "c", "t").events(0..20);
        assert_eq!(faults(&sent, &sent, Order::All), "");

        let mut arrived = sent.clone();
        arrived.remove(3);
        arrived.swap(10, 11);
        arrived.push(arrived[0].clone());
        let text = faults(&sent, &arrived, Order::All);
        assert!(
            text.contains("1 event was taken and did not arrive (numbers 3)"),
            "{text}"
        );
        assert!(text.contains("event 11 arrived after event 12"), "{text}");
        assert!(text.contains("1 event arrived again"), "{text}");
        let text = faults(&sent, &arrived, Order::Key);
        assert!(!text.contains("out of order"), "{text}");

        // Events 1 and 9 have the same key.
        let mut arrived = sent.clone();
        arrived.swap(1, 9);
        assert!(faults(&sent, &arrived, Order::Key).contains("event 1 arrived after event 9"));
        assert_eq!(faults(&sent, &arrived, Order::None), "");
    }

    #[test]
    fn what_changed_is_told_by_attribute_and_byte() {
        let events = Events::new("r", "c", "t");
        let sent = events
            .builder(0)
            .attribute("tenant", "a")
            .data(vec![1, 2, 3]);
        let sent = [sent.build().unwrap()];
        let arrived = events.builder(0).subject("x").data(vec![1, 9, 3]);
        let arrived = [arrived.build().unwrap()];
        let text = faults(&sent, &arrived, Order::All);
        assert!(
            text.contains(r#"`subject` was "key-0" and arrived as "x""#),
            "{text}"
        );
        assert!(
            text.contains(r#"`tenant` was "a" and arrived as nothing"#),
            "{text}"
        );
        assert!(
            text.contains("byte 1 of its data was 0x02 and arrived as 0x09"),
            "{text}"
        );
        let carried = Attributes::Some(vec!["type".to_owned()]);
        let judgement = Judgement::of(&sent, &arrived, Order::All, &carried);
        assert!(!judgement.faults(true).join("").contains("subject"));
    }

    #[test]
    fn counts_are_read_easily() {
        assert_eq!(counted(1, "event", "events"), "1 event");
        assert_eq!(
            counted(1_234_567, "event was", "events were"),
            "1,234,567 events were"
        );
        assert_eq!(counted(100, "call", "calls"), "100 calls");
    }
}
