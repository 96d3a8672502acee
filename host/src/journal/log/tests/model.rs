//! Random histories against a simple model.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::Index;

use super::super::format::HEADER;
use super::*;
use crate::journal::disk::Disk;
use crate::journal::model_disk::{Fault, Rng};

#[derive(Debug, Clone)]
enum Op {
    Push(usize),
    Commit,
    Probe,
    /// A share of what is kept.
    Remove(Index),
    /// The host is killed; what the system holds stays.
    Restart,
    CutPower(u64),
    FailIn(u64, u64, bool),
    Full(bool),
    Read(Index),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        12 => (0usize..900).prop_map(Op::Push),
        8 => Just(Op::Commit),
        1 => Just(Op::Probe),
        1 => any::<Index>().prop_map(Op::Remove),
        1 => Just(Op::Restart),
        2 => any::<u64>().prop_map(Op::CutPower),
        2 => (0u64..8, 1u64..4, any::<bool>()).prop_map(|(n, count, space)| Op::FailIn(n, count, space)),
        1 => any::<bool>().prop_map(Op::Full),
        2 => any::<Index>().prop_map(Op::Read),
    ]
}

/// What must hold, whatever the disk did.
#[derive(Default)]
struct Model {
    /// Accepted, or found when the log was opened: must be there from then on.
    kept: BTreeMap<u64, Vec<u8>>,
    /// Every payload that was ever pushed under a seq.
    pushed: BTreeMap<u64, BTreeSet<Vec<u8>>>,
    group: Vec<(u64, Vec<u8>)>,
    /// Seqs that may be removed, and those that are for good.
    removable: u64,
    removed: u64,
    unique: u64,
}

impl Model {
    fn push(&mut self, log: &mut Log, len: usize) {
        self.unique += 1;
        let mut bytes = self.unique.to_le_bytes().to_vec();
        bytes.resize(8 + len, self.unique as u8);
        let seq = log.push(|to| to.extend(&bytes));
        assert_eq!(seq, log.next_seq() + self.group.len() as u64);
        self.pushed.entry(seq).or_default().insert(bytes.clone());
        self.group.push((seq, bytes));
    }

    fn commit(&mut self, log: &mut Log) {
        let before = log.next_seq();
        let group = std::mem::take(&mut self.group);
        match log.commit() {
            Ok(seqs) => {
                assert_eq!(seqs, before..before + group.len() as u64);
                for (seq, bytes) in group {
                    assert_eq!(self.kept.insert(seq, bytes), None, "{seq} is used twice");
                }
                assert_eq!(log.next_seq(), seqs.end);
            }
            Err(_) => assert_eq!(log.next_seq(), before),
        }
    }

    fn remove(&mut self, log: &mut Log, share: Index) {
        let seq =
            log.oldest_seq() + share.index(1 + (log.next_seq() - log.oldest_seq()) as usize) as u64;
        self.removable = self.removable.max(seq);
        if log.remove_below(seq).is_ok() {
            self.removed = self.removed.max(log.oldest_seq());
        }
        assert!(log.oldest_seq() <= self.removable.max(1));
    }

    /// Opens the log as the next run of the host does, after as many tries as
    /// the injected failures cost.
    fn open(&mut self, disk: &ModelDisk) -> Log {
        self.group.clear();
        let options = || LogOptions {
            segment_bytes: RECORDS + 3000,
        };
        let opened = Log::open(Arc::new(disk.clone()), options()).or_else(|_| {
            disk.heal();
            Log::open(Arc::new(disk.clone()), options())
        });
        let (log, damage) = opened.unwrap();
        for damage in damage {
            assert_eq!(damage.kind, DamageKind::TornTail, "{damage}");
            assert!(
                self.kept.range(damage.lost.clone()).next().is_none(),
                "{damage}"
            );
        }
        assert!(self.removed <= log.oldest_seq());
        assert!(log.oldest_seq() <= self.removable.max(1));
        self.check(&log);
        log
    }

    fn check(&mut self, log: &Log) {
        let (records, damage) = read_all(log);
        for damage in damage {
            assert_eq!(damage.kind, DamageKind::TornTail, "{damage}");
            assert!(
                self.kept.range(damage.lost.clone()).next().is_none(),
                "{damage}"
            );
        }
        let mut read = BTreeMap::new();
        for (seq, bytes) in records {
            assert!(
                self.pushed[&seq].contains(&bytes),
                "{seq} was never pushed so"
            );
            read.insert(seq, bytes);
        }
        for (seq, bytes) in self.kept.range(log.oldest_seq()..) {
            assert!(
                read.get(seq) == Some(bytes),
                "record {seq} is not what it was"
            );
        }
        // What has been shown once may have been delivered: it may not become
        // something else.
        self.kept.extend(read);
        let last = self.kept.last_key_value().map_or(0, |(seq, _)| *seq);
        assert!(log.next_seq() > last);
    }

    fn read(&self, log: &Log, from: Index) {
        let from =
            log.oldest_seq() + from.index(1 + (log.next_seq() - log.oldest_seq()) as usize) as u64;
        let mut each = |seq, bytes: &[u8]| {
            assert_eq!(self.kept.get(&seq).map(Vec::as_slice), Some(bytes));
            seq % 5 != 0
        };
        log.reader().read(from, u64::MAX, 2000, &mut each).unwrap();
    }
}

fn run(seed: u64, ops: Vec<Op>) {
    let disk = ModelDisk::new(seed);
    let mut model = Model::default();
    let mut log = model.open(&disk);
    for op in ops {
        match op {
            Op::Push(len) => model.push(&mut log, len),
            Op::Commit => model.commit(&mut log),
            Op::Probe => drop(log.probe()),
            Op::Remove(share) => model.remove(&mut log, share),
            Op::Restart => {
                drop(log);
                log = model.open(&disk);
            }
            Op::CutPower(seed) => {
                // In the middle of a commit: the write is made, the sync not.
                if seed % 2 == 0 && !model.group.is_empty() {
                    disk.fail_in(seed / 2 % 3, Fault::Io);
                    model.commit(&mut log);
                }
                drop(log);
                disk.cut_power(&mut Rng::new(seed));
                log = model.open(&disk);
            }
            Op::FailIn(n, count, space) => {
                disk.fail_several_in(n, count, if space { Fault::NoSpace } else { Fault::Io });
            }
            Op::Full(full) => disk.set_full(full),
            Op::Read(from) => model.read(&log, from),
        }
    }
    disk.heal();
    disk.set_full(false);
    log.probe().unwrap();
    model.check(&log);
    model.push(&mut log, 10);
    let accepted = model.kept.len();
    model.commit(&mut log);
    if model.group.is_empty() {
        assert!(
            model.kept.len() > accepted,
            "with the disk whole again, writing works"
        );
    }
    drop(log);
    disk.cut_power(&mut Rng::new(seed));
    model.open(&disk);
    let leftovers: Vec<String> = disk
        .list()
        .unwrap()
        .into_iter()
        .filter(|n| n.ends_with(".new"))
        .collect();
    assert_eq!(leftovers, [""; 0]);
}

/// Seqs with place and length in their segments, by their lengths alone.
fn layout(segments: &[Segment], lens: &[usize]) -> Vec<(u64, String, u64, u64)> {
    let mut places = Vec::new();
    for segment in segments {
        let mut offset = RECORDS;
        for seq in segment.first..segment.end {
            let len = (format::FRAME + lens[seq as usize - 1]) as u64;
            places.push((seq, segment_name(segment.first), offset, len));
            offset += len;
        }
        assert_eq!(offset, segment.bytes);
    }
    places
}

proptest! {
    // A failure prints its input; no files beside the sources.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn accepted_records_outlive_power_cuts_failures_and_full_disks(
        seed in any::<u64>(),
        ops in prop::collection::vec(op(), 1..120),
    ) {
        run(seed, ops);
    }

    #[test]
    fn flipped_bits_cost_the_records_they_are_in_and_no_other(
        groups in prop::collection::vec(prop::collection::vec(0usize..700, 1..6), 1..40),
        flips in prop::collection::vec((any::<Index>(), any::<Index>(), 0u32..8), 1..12),
    ) {
        let disk = ModelDisk::new(1);
        let (mut log, _) = open(&disk);
        for group in &groups {
            for len in group {
                let seq = log.next_seq() + u64::from(log.count);
                log.push(|to| to.resize(to.len() + len, seq as u8));
            }
            log.commit().unwrap();
        }
        let lens: Vec<usize> = groups.concat();
        let end = log.next_seq();
        let places = layout(&log.segments(), &lens);
        drop(log);

        let names = disk.names(".log");
        let mut changed: BTreeMap<(String, u64), u8> = BTreeMap::new();
        for (file, byte, bit) in flips {
            let name = &names[file.index(names.len())];
            let len = disk.bytes(name).len() as u64;
            // The first copy of the header, or behind the second.
            let span = HEADER as u64 + len - RECORDS;
            let at = byte.index(span as usize) as u64;
            let at = if at < HEADER as u64 { at } else { at - HEADER as u64 + RECORDS };
            disk.flip_bit(name, at, bit);
            *changed.entry((name.clone(), at)).or_default() ^= 1 << bit;
        }
        // Flipped twice is not flipped.
        changed.retain(|_, bits| *bits != 0);
        let damaged: BTreeSet<u64> = places
            .iter()
            .filter(|(_, name, offset, len)| {
                changed.keys().any(|(n, at)| n == name && (*offset..offset + len).contains(at))
            })
            .map(|(seq, ..)| *seq)
            .collect();

        let (log, at_open) = open(&disk);
        let whole = (1..end).rev().find(|seq| !damaged.contains(seq)).unwrap_or(0);
        // Whole damaged records at the very end are a torn tail.
        let next = log.next_seq();
        let first_of_last = places.last().map_or(1, |last| segment::first_of(&last.1).unwrap());
        prop_assert_eq!(next, (whole + 1).max(first_of_last));
        let (records, damage) = read_all(&log);
        for (seq, bytes) in &records {
            prop_assert_eq!(bytes, &vec![*seq as u8; lens[*seq as usize - 1]]);
        }
        let read: Vec<u64> = records.iter().map(|(seq, _)| *seq).collect();
        let wanted: Vec<u64> = (1..next).filter(|seq| !damaged.contains(seq)).collect();
        prop_assert_eq!(read, wanted);
        let lost: Vec<u64> = damage.iter().flat_map(|d| d.lost.clone()).collect();
        let wanted: Vec<u64> = damaged.iter().copied().filter(|seq| *seq < next).collect();
        prop_assert_eq!(lost, wanted);
        for damage in at_open {
            for seq in damage.lost {
                prop_assert!(damaged.contains(&seq));
            }
        }
    }
}
