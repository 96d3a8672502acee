//! What could not be read: each stretch is told once, and each event counted once.

use std::collections::{BTreeMap, HashSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::log::Damage;
use super::{Inner, lock};

/// The damage met since the start. Several come by the same: opening, and each
/// feed.
#[derive(Debug, Default)]
pub(super) struct DamageReport(Mutex<Met>);

#[derive(Debug, Default)]
struct Met {
    stretches: HashSet<(PathBuf, u64)>,
    /// The numbers of the events, as ranges that do not touch: end by start.
    lost: BTreeMap<u64, u64>,
    unreadable: u64,
}

impl DamageReport {
    /// How many events could not be read.
    pub(super) fn unreadable(&self) -> u64 {
        lock(&self.0).unreadable
    }

    /// Tells of events at the end of the log of which nothing is left, and counts
    /// them: somebody had settled later ones, or been told of them.
    pub(super) fn note_end(&self, folder: &Path, lost: Range<u64>) {
        tracing::error!(
            folder = %folder.display(),
            "the events {} to {} of the journal are gone: some of its files were removed or cut",
            lost.start,
            lost.end - 1
        );
        lock(&self.0).lose(lost);
    }
}

impl Met {
    /// Counts events that are lost; returns how many of them are new.
    fn lose(&mut self, mut range: Range<u64>) -> u64 {
        if range.is_empty() {
            return 0;
        }
        let mut known = 0;
        let touching = self.lost.range(..=range.end).rev();
        let touching = touching.take_while(|(_, end)| **end >= range.start);
        let touching: Vec<(u64, u64)> = touching.map(|(start, end)| (*start, *end)).collect();
        let all = range.clone();
        for (start, end) in touching {
            known += end.min(all.end).saturating_sub(start.max(all.start));
            range.start = range.start.min(start);
            range.end = range.end.max(end);
            self.lost.remove(&start);
        }
        self.lost.insert(range.start, range.end);
        let new = (all.end - all.start) - known;
        self.unreadable += new;
        new
    }
}

impl Inner {
    /// Tells of damage, and counts what was lost by it: stretches of the log, and
    /// whole records that are no events, by their numbers.
    pub(super) fn note_damage(&self, damage: &[Damage], malformed: &[u64]) {
        let mut met = lock(&self.damage.0);
        for damage in damage {
            let is_new = met.stretches.insert((damage.file.clone(), damage.offset));
            let lost = met.lose(damage.lost.clone());
            // A stretch all of which was told of before has another end now.
            if is_new && (lost > 0 || damage.lost.is_empty()) {
                tracing::error!("{damage}");
            }
        }
        for seq in malformed {
            met.lose(*seq..*seq + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_lost_once_however_often_that_is_said() {
        let mut met = Met::default();
        for (range, new) in [
            (10..20, 10),
            (10..20, 0),
            (15..25, 5),
            (30..40, 10),
            (24..31, 5),
            (1..100, 69),
            (5..5, 0),
            (100..101, 1),
        ] {
            assert_eq!(met.lose(range.clone()), new, "{range:?}");
        }
        assert_eq!(met.unreadable, 100);
        assert_eq!(met.lost, BTreeMap::from([(1, 101)]));
    }
}
