//! The log on a disk that is a model, so that what a test breaks is exact.
//!
//! - `damage`: what is done to the bytes, and what is still read.
//! - `failure`: what fails while writing.
//! - `folder`: the same on a real file system.
//! - `model`: random histories against a simple model.

mod damage;
mod failure;
mod folder;
mod model;

use std::sync::Arc;

use super::*;
use crate::journal::model_disk::ModelDisk;

/// Small segments, so that a test has several.
const SEGMENT: u64 = RECORDS + 2000;

fn open(disk: &ModelDisk) -> (Log, Vec<Damage>) {
    Log::open(
        Arc::new(disk.clone()),
        LogOptions {
            segment_bytes: SEGMENT,
        },
    )
    .unwrap()
}

/// A payload that no other record has.
fn payload(seq: u64) -> Vec<u8> {
    let mut bytes = format!("event {seq} ").into_bytes();
    bytes.resize(100 + (seq % 7) as usize * 13, seq as u8);
    bytes
}

/// Commits `groups` of `records` each.
fn fill(log: &mut Log, groups: usize, records: usize) {
    for _ in 0..groups {
        for _ in 0..records {
            let seq = log.next_seq() + u64::from(log.count);
            assert_eq!(log.push(|bytes| bytes.extend(payload(seq))), seq);
        }
        log.commit().unwrap();
    }
}

/// All that can be read, and what is said of the rest.
fn read_all(log: &Log) -> (Vec<(u64, Vec<u8>)>, Vec<Damage>) {
    let mut reader = log.reader();
    let mut records = Vec::new();
    let mut damage = Vec::new();
    let mut next = log.oldest_seq();
    while next < log.next_seq() {
        let mut each = |seq, bytes: &[u8]| {
            records.push((seq, bytes.to_vec()));
            true
        };
        let chunk = reader.read(next, u64::MAX, 1000, &mut each).unwrap();
        assert!(chunk.next > next, "reading stands still at {next}");
        next = chunk.next;
        damage.extend(chunk.damage);
    }
    assert_eq!(next, log.next_seq());
    (records, damage)
}

/// Asserts that exactly the seqs up to `end`, without `lost`, are read as they
/// were written, and that just `lost` is said to be.
fn assert_all_but(log: &Log, end: u64, lost: &[u64]) -> Vec<Damage> {
    let (records, damage) = read_all(log);
    let seqs: Vec<u64> = records.iter().map(|(seq, _)| *seq).collect();
    let wanted: Vec<u64> = (log.oldest_seq()..end)
        .filter(|seq| !lost.contains(seq))
        .collect();
    assert_eq!(seqs, wanted);
    for (seq, bytes) in records {
        assert_eq!(bytes, payload(seq), "record {seq}");
    }
    let said: Vec<u64> = damage.iter().flat_map(|d| d.lost.clone()).collect();
    assert_eq!(said, lost);
    damage
}

/// Where the record `seq` begins, and how long it is with its frame.
fn place_of(disk: &ModelDisk, seq: u64) -> (String, u64, u64) {
    for name in disk.names(".log").into_iter().rev() {
        let first = segment::first_of(&name).unwrap();
        if first <= seq {
            let before: u64 = (first..seq).map(length).sum();
            return (name, RECORDS + before, length(seq));
        }
    }
    unreachable!("no segment holds {seq}")
}

fn length(seq: u64) -> u64 {
    (format::FRAME + payload(seq).len()) as u64
}

#[test]
fn what_is_committed_is_read_in_order_also_after_a_restart() {
    let disk = ModelDisk::new(1);
    let (mut log, damage) = open(&disk);
    assert_eq!(
        (damage, log.next_seq(), log.oldest_seq()),
        (Vec::new(), 1, 1)
    );
    fill(&mut log, 30, 3);
    assert_eq!(assert_all_but(&log, 91, &[]), []);
    let segments = log.segments();
    assert!(segments.len() > 3, "{segments:?}");
    assert!(segments.windows(2).all(|two| two[0].end == two[1].first));
    assert_eq!((segments[0].first, segments.last().unwrap().end), (1, 91));
    assert_eq!(log.size(), segments.iter().map(|s| s.bytes).sum::<u64>());

    let (mut log, damage) = open(&disk);
    assert_eq!((damage, log.next_seq()), (Vec::new(), 91));
    fill(&mut log, 1, 2);
    assert_eq!(assert_all_but(&log, 93, &[]), []);
}

#[test]
fn a_reader_begins_anywhere_stops_when_told_and_sees_what_comes_later() {
    let disk = ModelDisk::new(1);
    let (mut log, _) = open(&disk);
    fill(&mut log, 20, 2);
    let mut reader = log.reader();
    let mut seen = Vec::new();
    let chunk = reader
        .read(17, 30, usize::MAX, &mut |seq, _| {
            seen.push(seq);
            seq < 20
        })
        .unwrap();
    assert_eq!((seen, chunk.next), (vec![17, 18, 19, 20], 21));
    let mut seen = Vec::new();
    let mut each = |seq: u64, _: &[u8]| {
        seen.push(seq);
        true
    };
    assert_eq!(reader.read(21, 30, usize::MAX, &mut each).unwrap().next, 30);
    assert_eq!(reader.read(30, 99, 1, &mut each).unwrap().next, 31);
    assert_eq!(reader.read(41, 99, 1, &mut each).unwrap().next, 41);
    fill(&mut log, 1, 1);
    assert_eq!(reader.read(41, 99, 1, &mut each).unwrap().next, 42);
    assert_eq!(
        reader
            .clone()
            .read(3, 5, usize::MAX, &mut each)
            .unwrap()
            .next,
        5
    );
    assert_eq!(seen, [(21..31).collect(), vec![41, 3, 4]].concat());
}

#[test]
fn a_reader_remembers_nothing_of_a_write_that_was_not_finished() {
    let disk = ModelDisk::new(1);
    let (mut log, _) = open(&disk);
    fill(&mut log, 1, 2);
    let mut reader = log.reader();
    // What a reader may see of the file while the next group is being written.
    disk.change(&segment_name(1), |bytes| bytes.extend([0; 50]));
    let mut each = |_, _: &[u8]| true;
    assert_eq!(reader.read(1, 3, usize::MAX, &mut each).unwrap().next, 3);
    fill(&mut log, 1, 2);
    let chunk = reader.read(3, 5, usize::MAX, &mut each).unwrap();
    assert_eq!((chunk.next, chunk.damage), (5, Vec::new()));
}

#[test]
fn a_record_may_be_empty_and_may_be_larger_than_the_buffer() {
    let disk = ModelDisk::new(1);
    let (mut log, _) = open(&disk);
    log.push(|_| ());
    log.push(|bytes| bytes.resize(bytes.len() + (1 << 20), 7));
    log.push(|_| ());
    log.commit().unwrap();
    let lens: Vec<usize> = read_all(&log)
        .0
        .iter()
        .map(|(_, bytes)| bytes.len())
        .collect();
    assert_eq!(lens, [0, 1 << 20, 0]);
    assert_eq!(open(&disk).0.next_seq(), 4);
}

#[test]
fn a_record_that_is_too_long_is_refused_and_harms_nothing() {
    let disk = ModelDisk::new(1);
    let (mut log, _) = open(&disk);
    fill(&mut log, 1, 1);
    log.push(|bytes| bytes.resize(bytes.len() + MAX_RECORD + 1, 7));
    assert_eq!(
        log.commit().unwrap_err().kind(),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(log.group.len(), 0);
    fill(&mut log, 1, 1);
    assert_all_but(&log, 3, &[]);
}

#[test]
fn segments_are_removed_whole_oldest_first_and_never_the_last() {
    let disk = ModelDisk::new(1);
    let (mut log, _) = open(&disk);
    fill(&mut log, 20, 3);
    let segments = log.segments();
    assert_eq!(log.remove_below(segments[0].end - 1).unwrap(), 0);
    assert_eq!(
        log.remove_below(segments[1].end).unwrap(),
        segments[0].bytes + segments[1].bytes
    );
    assert_eq!(log.oldest_seq(), segments[2].first);
    assert_all_but(&log, 61, &[]);
    // A reader that is behind goes on with what there is.
    let mut first = 0;
    log.reader()
        .read(1, 61, 1, &mut |seq, _| {
            first = seq;
            true
        })
        .unwrap();
    assert_eq!(first, segments[2].first);

    log.remove_below(u64::MAX).unwrap();
    assert_eq!(log.segments().len(), 1);
    let (log, damage) = open(&disk);
    assert_eq!((damage, log.next_seq()), (Vec::new(), 61));
}
