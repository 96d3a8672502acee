//! The newest events, in memory: a backend that keeps up never reads the disk.

use std::collections::VecDeque;

use super::record::Record;

/// How many bytes of events are kept at most.
const CAPACITY: usize = 32 << 20;

/// The end of the log, as far as it is in memory.
#[derive(Debug)]
pub(super) struct Recent {
    records: VecDeque<Record>,
    bytes: usize,
    /// One past the last event that is durable.
    head: u64,
}

impl Recent {
    pub(super) fn new(head: u64) -> Recent {
        Recent {
            records: VecDeque::new(),
            bytes: 0,
            head,
        }
    }

    pub(super) fn head(&self) -> u64 {
        self.head
    }

    /// The oldest event that is here; the head if there is none.
    pub(super) fn first(&self) -> u64 {
        self.head - self.records.len() as u64
    }

    /// Adds what has become durable.
    pub(super) fn push(&mut self, record: Record) {
        self.bytes += record.event.weight();
        self.records.push_back(record);
        self.head += 1;
        while self.bytes > CAPACITY {
            self.pop();
        }
    }

    /// Lets go of what is below `seq`.
    pub(super) fn forget_below(&mut self, seq: u64) {
        while self.first() < seq.min(self.head) {
            self.pop();
        }
    }

    /// From `seq` on, which must not be below the first.
    pub(super) fn from(&self, seq: u64) -> impl Iterator<Item = (u64, &Record)> {
        let skip = (seq - self.first()) as usize;
        let records = self.records.range(skip.min(self.records.len())..);
        (seq..).zip(records)
    }

    fn pop(&mut self) {
        if let Some(record) = self.records.pop_front() {
            self.bytes -= record.event.weight();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::Event;

    fn record(size: usize) -> Record {
        Record {
            event: Event::new("t", vec![0; size]).unwrap(),
            targets: [].into(),
            accepted: jiff::Timestamp::now(),
        }
    }

    #[test]
    fn events_keep_their_numbers_while_the_oldest_go() {
        let mut recent = Recent::new(7);
        assert_eq!((recent.first(), recent.head()), (7, 7));
        for _ in 0..5 {
            recent.push(record(0));
        }
        recent.forget_below(9);
        assert_eq!((recent.first(), recent.head()), (9, 12));
        let seqs: Vec<u64> = recent.from(10).map(|(seq, _)| seq).collect();
        assert_eq!(seqs, [10, 11]);
        assert_eq!(recent.from(12).count(), 0);
        recent.forget_below(100);
        assert_eq!((recent.first(), recent.head()), (12, 12));
    }

    #[test]
    fn memory_is_bounded() {
        let mut recent = Recent::new(1);
        for _ in 0..5 {
            recent.push(record(CAPACITY / 3));
        }
        assert!(recent.bytes <= CAPACITY);
        assert_eq!(recent.head(), 6);
    }
}
