//! Which entries make a call, and which calls wait for others.
//!
//! A call has one target, at most ten entries, and a bound of bytes. Calls are in
//! *lanes*: those of one lane are made one after the other, lanes side by side.
//! Without an order to keep each call is a lane. With one, all messages of a group
//! are in one lane, in their order.

use crate::entry::Entry;
use std::collections::HashMap;

/// The most entries of a call, for SQS and SNS alike.
const MAX_ENTRIES: usize = 10;

/// Entries that are sent together.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) entries: Vec<Entry>,
    bytes: usize,
}

/// Calls that are made one after the other.
pub(crate) type Lane = Vec<Call>;

/// What calls are bounded by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Of all entries of a call.
    pub(crate) max_bytes: usize,
    /// Calls side by side.
    pub(crate) concurrency: usize,
    /// Whether a call has one message of a group at most. The service may refuse one
    /// entry of a call and take those after it; with this, none of them is of its group.
    pub(crate) strict: bool,
}

impl Call {
    fn takes(&self, entry: &Entry, limits: &Limits) -> bool {
        self.entries.len() < MAX_ENTRIES && self.bytes + entry.bytes <= limits.max_bytes
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.bytes;
        self.entries.push(entry);
    }
}

/// The lanes for the entries of a batch, those with the oldest first.
pub(crate) fn lanes(entries: Vec<Entry>, limits: &Limits) -> Vec<Lane> {
    let mut targets: Vec<Vec<Entry>> = Vec::new();
    let mut places = HashMap::new();
    for entry in entries {
        let place = *places.entry(entry.target.clone()).or_insert(targets.len());
        if place == targets.len() {
            targets.push(Vec::new());
        }
        targets[place].push(entry);
    }
    let lanes = targets.into_iter().flat_map(|entries| {
        if entries[0].fifo.is_some() {
            ordered(entries, limits)
        } else {
            unordered(entries, limits)
        }
    });
    lanes.collect()
}

fn unordered(entries: Vec<Entry>, limits: &Limits) -> Vec<Lane> {
    let mut calls = vec![Call::default()];
    for entry in entries {
        if !calls[calls.len() - 1].takes(&entry, limits) {
            calls.push(Call::default());
        }
        let last = calls.len() - 1;
        calls[last].push(entry);
    }
    calls.into_iter().map(|call| vec![call]).collect()
}

/// Entries of a FIFO target, of one group or several.
fn ordered(entries: Vec<Entry>, limits: &Limits) -> Vec<Lane> {
    // Groups by number, as they first appear.
    let mut groups = HashMap::new();
    for entry in &entries {
        let next = groups.len();
        groups.entry(group(entry).to_owned()).or_insert(next);
    }
    // Not more lanes than have full calls, where each needs several groups for one.
    let most = if limits.strict {
        groups.len().div_ceil(MAX_ENTRIES)
    } else {
        groups.len()
    };
    let count = most.clamp(1, limits.concurrency);
    let mut lanes: Vec<Lane> = std::iter::repeat_with(Lane::new).take(count).collect();
    // The first call a group's next entry may be in.
    let mut earliest = vec![0; groups.len()];
    for entry in entries {
        let group = groups[group(&entry)];
        let lane = &mut lanes[group % count];
        let fits = |call: &Call| call.takes(&entry, limits);
        let place = (earliest[group]..lane.len()).find(|place| fits(&lane[*place]));
        let place = place.unwrap_or_else(|| {
            lane.push(Call::default());
            lane.len() - 1
        });
        lane[place].push(entry);
        earliest[group] = place + usize::from(limits.strict);
    }
    lanes
}

fn group(entry: &Entry) -> &str {
    entry.fifo.as_ref().map_or("", |fifo| &fifo.group)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::Fifo;

    const LIMITS: Limits = Limits {
        max_bytes: 1000,
        concurrency: 4,
        strict: true,
    };

    fn entry(index: usize, target: &str, group: Option<&str>, bytes: usize) -> Entry {
        Entry {
            index,
            target: target.into(),
            id: index.to_string(),
            body: String::new(),
            attributes: Vec::new(),
            fifo: group.map(|group| Fifo {
                group: group.into(),
                deduplication_id: index.to_string(),
            }),
            subject: None,
            bytes,
        }
    }

    fn indexes(lanes: Vec<Lane>) -> Vec<Vec<Vec<usize>>> {
        let call = |call: Call| call.entries.iter().map(|entry| entry.index).collect();
        let lane = |lane: Lane| lane.into_iter().map(call).collect();
        lanes.into_iter().map(lane).collect()
    }

    /// Entries of these groups, one character each, in a FIFO target.
    fn of_groups(groups: &str) -> Vec<Entry> {
        let groups = groups.chars().enumerate();
        let entry = |(index, group): (usize, char)| entry(index, "q", Some(&group.to_string()), 1);
        groups.map(entry).collect()
    }

    #[test]
    fn a_call_has_ten_entries_at_most_and_each_is_a_lane_where_nothing_is_ordered() {
        let entries = (0..23).map(|index| entry(index, "q", None, 1)).collect();
        let lanes = indexes(lanes(entries, &LIMITS));
        let expected: [Vec<usize>; 3] = [(0..10).collect(), (10..20).collect(), (20..23).collect()];
        assert_eq!(lanes, expected.map(|call| vec![call]));
    }

    #[test]
    fn a_call_has_no_more_bytes_than_the_service_takes() {
        let sizes = [400, 600, 1, 999, 1000, 500];
        let entries = sizes.iter().enumerate();
        let entries = entries.map(|(index, size)| entry(index, "q", None, *size));
        let lanes = indexes(lanes(entries.collect(), &LIMITS));
        let calls: Vec<Vec<usize>> = lanes.into_iter().flatten().collect();
        assert_eq!(calls, [vec![0, 1], vec![2, 3], vec![4], vec![5]]);
    }

    #[test]
    fn a_call_has_one_target() {
        let targets = ["a", "b", "a", "c", "b"].iter().enumerate();
        let entries = targets.map(|(index, target)| entry(index, target, None, 1));
        let lanes = indexes(lanes(entries.collect(), &LIMITS));
        assert_eq!(lanes, [vec![vec![0, 2]], vec![vec![1, 4]], vec![vec![3]]]);
    }

    #[test]
    fn strictly_a_call_has_one_message_of_a_group() {
        assert_eq!(indexes(lanes(of_groups("aaa"), &LIMITS)), [[[0], [1], [2]]]);
        assert_eq!(
            indexes(lanes(of_groups("abacbc"), &LIMITS)),
            [vec![vec![0, 1, 3], vec![2, 4, 5]]]
        );
    }

    #[test]
    fn not_strictly_it_has_several_in_their_order() {
        let limits = Limits {
            strict: false,
            ..LIMITS
        };
        let full = indexes(lanes(of_groups("aaaaaaaaaaaa"), &limits));
        assert_eq!(full, [vec![(0..10).collect::<Vec<_>>(), vec![10, 11]]]);
        let groups = indexes(lanes(of_groups("abab"), &limits));
        assert_eq!(groups, [[[0, 2]], [[1, 3]]]);
    }

    #[test]
    fn a_group_is_in_one_lane_and_in_order_whatever_comes() {
        for strict in [true, false] {
            let limits = Limits { strict, ..LIMITS };
            let group = |index: usize| ((index * index) % 37).to_string();
            let size = |index: usize| 1 + (index * 7919) % 400;
            let entries = (0..500).map(|index| entry(index, "q", Some(&group(index)), size(index)));
            let lanes = indexes(lanes(entries.collect(), &limits));
            assert!(lanes.len() <= 4);
            let mut seen: HashMap<String, (usize, usize)> = HashMap::new();
            let mut count = 0;
            for (number, lane) in lanes.iter().enumerate() {
                for call in lane {
                    assert!(
                        call.len() <= 10 && call.iter().map(|i| size(*i)).sum::<usize>() <= 1000
                    );
                    for index in call {
                        if let Some((lane, before)) = seen.insert(group(*index), (number, *index)) {
                            assert!(lane == number && before < *index, "{index}");
                        }
                        count += 1;
                    }
                    let groups: std::collections::HashSet<_> =
                        call.iter().map(|i| group(*i)).collect();
                    assert!(!strict || groups.len() == call.len());
                }
            }
            assert_eq!(count, 500);
        }
    }
}
