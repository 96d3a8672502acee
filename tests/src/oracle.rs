//! The oracle: what arrived, read where it arrived, judged by what was posted.
//!
//! Events are recognised by their ids, `NAME-NUMBER`: what has one name was
//! posted one after the other, with growing numbers.

use std::collections::HashMap;
use std::path::Path;

use crate::load::{Fate, Posted};

/// What there is to say of the events that arrived.
#[derive(Debug, Default)]
pub struct Verdict {
    /// How many arrived, each time counted.
    pub arrived: usize,
    /// How many different ones.
    pub distinct: usize,
    /// Those of an unknown fate that arrived.
    pub unknown_arrived: usize,
    /// Accepted, and not there.
    pub lost: Vec<String>,
    /// Not posted, or refused, and there nevertheless.
    pub unexpected: Vec<String>,
    /// Arrived, for the first time, after a later one of the same name had.
    pub out_of_order: Vec<String>,
    /// The lengths of the stretches that arrived again.
    pub repeats: Vec<usize>,
    /// Where a repeated stretch did not repeat what had arrived before it: an
    /// event that came instead of its next one.
    pub broken_repeats: Vec<String>,
}

/// Judges events that arrived in this order.
pub fn judge(posted: &Posted, arrived: &[String]) -> Verdict {
    let mut verdict = Verdict {
        arrived: arrived.len(),
        ..Verdict::default()
    };
    // The first arrivals, and where each stands among them.
    let mut order: Vec<&str> = Vec::new();
    let mut place: HashMap<&str, usize> = HashMap::new();
    let mut latest: HashMap<&str, u64> = HashMap::new();
    // The place that comes next, if what arrives is not a new repetition.
    let mut next = 0;
    for id in arrived {
        if let Some(&at) = place.get(id.as_str()) {
            match verdict.repeats.last_mut() {
                Some(length) if at == next && next < order.len() => *length += 1,
                _ => verdict.repeats.push(1),
            }
            if at > next {
                verdict.broken_repeats.push(id.clone());
            }
            next = at + 1;
            continue;
        }
        if next < order.len() {
            verdict.broken_repeats.push(id.clone());
        }
        place.insert(id, order.len());
        order.push(id);
        next = order.len();
        match posted.fates.get(id) {
            None | Some(Fate::Refused) => verdict.unexpected.push(id.clone()),
            Some(Fate::Unknown) => verdict.unknown_arrived += 1,
            Some(Fate::Accepted) => {}
        }
        let (name, number) = parts(id);
        let latest = latest.entry(name).or_insert(number);
        if number < *latest {
            verdict.out_of_order.push(id.clone());
        }
        *latest = number.max(*latest);
    }
    verdict.distinct = order.len();
    let lost = posted
        .fates
        .iter()
        .filter(|(id, fate)| **fate == Fate::Accepted && !place.contains_key(id.as_str()));
    verdict.lost = lost.map(|(id, _)| id.clone()).collect();
    verdict.lost.sort_unstable();
    verdict
}

impl Verdict {
    /// How many arrived that had arrived before.
    pub fn duplicates(&self) -> usize {
        self.arrived - self.distinct
    }

    /// The longest stretch that arrived again.
    pub fn longest_repeat(&self) -> usize {
        self.repeats.iter().copied().max().unwrap_or(0)
    }

    /// Everything accepted is there, and nothing that was refused.
    pub fn assert_nothing_lost(&self) {
        assert!(self.lost.is_empty(), "{} lost: {self}", self.lost.len());
        assert!(
            self.unexpected.is_empty(),
            "refused, and delivered nevertheless: {self}"
        );
    }

    /// Each event arrived after those that were accepted before it.
    pub fn assert_in_order(&self) {
        assert!(self.out_of_order.is_empty(), "out of order: {self}");
    }

    /// What arrived again is a stretch of what had arrived, up to its end.
    pub fn assert_repeats_only_repeat(&self) {
        assert!(
            self.broken_repeats.is_empty(),
            "a repetition that jumps: {self}"
        );
    }

    /// At most so many arrived again; `why` says why so many may.
    pub fn assert_duplicates_at_most(&self, most: usize, why: &str) {
        assert!(
            self.duplicates() <= most,
            "more than {most} duplicates ({why}): {self}"
        );
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let some = |ids: &[String]| ids.iter().take(10).cloned().collect::<Vec<_>>().join(" ");
        write!(
            f,
            "{} arrived, {} of them again (in {} stretches of at most {}), {} that nobody knew of; \
             {} lost [{}], {} unexpected [{}], {} out of order [{}], {} jumps [{}]",
            self.arrived,
            self.duplicates(),
            self.repeats.len(),
            self.longest_repeat(),
            self.unknown_arrived,
            self.lost.len(),
            some(&self.lost),
            self.unexpected.len(),
            some(&self.unexpected),
            self.out_of_order.len(),
            some(&self.out_of_order),
            self.broken_repeats.len(),
            some(&self.broken_repeats),
        )
    }
}

/// Name and number of an id; an id without a number is a name.
fn parts(id: &str) -> (&str, u64) {
    let (name, number) = id.rsplit_once('-').unwrap_or((id, "0"));
    (name, number.parse().unwrap_or(0))
}

/// The ids in a file of CloudEvents, one a line, as the `file` plugin writes it.
/// A line that a crash has left unfinished is passed over.
pub fn ids_in_file(path: &Path) -> Vec<String> {
    let text = std::fs::read(path).unwrap_or_default();
    let events = text
        .split(|&byte| byte == b'\n')
        .filter_map(|line| serde_json::from_slice::<serde_json::Value>(line).ok());
    events
        .filter_map(|event| event["id"].as_str().map(str::to_owned))
        .collect()
}

/// The last word of each line of a file, as the guests of the tests write it.
pub fn ids_in_record(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let ids = text.lines().filter_map(|line| line.rsplit(' ').next());
    ids.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn posted() -> Posted {
        let mut posted = Posted::accepted((0..6).map(|n| format!("a-{n}")));
        posted.fates.insert("r-0".to_owned(), Fate::Refused);
        posted.fates.insert("u-0".to_owned(), Fate::Unknown);
        posted
    }

    fn judged(arrived: &str) -> Verdict {
        let arrived: Vec<String> = arrived.split(' ').map(str::to_owned).collect();
        judge(&posted(), &arrived)
    }

    #[test]
    fn what_is_lost_refused_or_nobodys_is_found() {
        let verdict = judged("a-0 a-1 a-2 a-4 a-5 u-0 r-0 x-0");
        assert_eq!(verdict.lost, ["a-3"]);
        assert_eq!(verdict.unexpected, ["r-0", "x-0"]);
        assert_eq!((verdict.unknown_arrived, verdict.duplicates()), (1, 0));
    }

    #[test]
    fn stretches_that_repeat_are_told_from_those_that_jump() {
        let verdict = judged("a-0 a-1 a-2 a-1 a-2 a-3 a-4 a-2 a-3 a-2 a-3 a-4 a-5");
        verdict.assert_nothing_lost();
        verdict.assert_in_order();
        verdict.assert_repeats_only_repeat();
        assert_eq!((verdict.repeats, verdict.arrived), (vec![2, 2, 3], 13));
        // Leaves out a-2 the second time; and goes on before the stretch is whole.
        assert_eq!(
            judged("a-0 a-1 a-2 a-3 a-1 a-3 a-4 a-5").broken_repeats,
            ["a-3"]
        );
        assert_eq!(
            judged("a-0 a-1 a-2 a-3 a-1 a-4 a-5").broken_repeats,
            ["a-4"]
        );
    }

    #[test]
    fn an_event_behind_a_later_one_is_out_of_order() {
        let verdict = judged("a-0 a-2 a-1 a-3 a-4 a-5");
        assert_eq!(verdict.out_of_order, ["a-1"]);
        verdict.assert_nothing_lost();
    }
}
