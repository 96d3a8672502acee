//! What fails while writing.

use super::*;
use crate::journal::disk::Disk;
use crate::journal::model_disk::{Fault, Rng};

#[test]
fn after_a_failed_commit_its_seqs_are_used_again_and_its_records_are_void() {
    // 0: the write fails, 1: the sync does.
    for step in [0, 1] {
        for first in [true, false] {
            let disk = ModelDisk::new(step);
            let (mut log, _) = open(&disk);
            log.probe().unwrap();
            if !first {
                fill(&mut log, 1, 2);
            }
            let next = log.next_seq();
            for _ in 0..3 {
                log.push(|bytes| bytes.extend(b"never accepted"));
            }
            disk.fail_in(step, Fault::Io);
            log.commit().unwrap_err();
            assert_eq!((log.next_seq(), log.group.len()), (next, 0));
            assert_all_but(&log, next, &[]);
            fill(&mut log, 1, 2);
            assert_all_but(&log, next + 2, &[]);
            let (log, damage) = open(&disk);
            assert_eq!(damage, []);
            assert_all_but(&log, next + 2, &[]);
        }
    }
}

#[test]
fn what_a_failed_cut_left_behind_is_passed_over_in_silence() {
    let disk = ModelDisk::new(3);
    let (mut log, _) = open(&disk);
    fill(&mut log, 1, 2);
    let old = disk.bytes(&segment_name(1));
    log.push(|bytes| bytes.extend(b"never accepted"));
    disk.fail_in(1, Fault::Io);
    log.commit().unwrap_err();
    // As if the file could not be cut: whole void records, and half a one.
    let mut left = old.clone();
    let mut void = Vec::new();
    format::push(&mut void, 3, |bytes| bytes.extend(b"never accepted"));
    let salt = log.shared.segments()[0].salt.unwrap();
    format::seal(&mut void, 1, salt);
    left.extend(&void);
    left.extend(&void[..20]);
    disk.change(&segment_name(1), |bytes| *bytes = left);
    fill(&mut log, 1, 2);
    let (log, damage) = open(&disk);
    assert_eq!(damage, []);
    assert_eq!(assert_all_but(&log, 5, &[]), []);
}

#[test]
fn a_full_disk_keeps_what_it_has_and_is_written_again_when_there_is_space() {
    let disk = ModelDisk::new(4);
    let (mut log, _) = open(&disk);
    fill(&mut log, 3, 2);
    disk.set_full(true);
    for _ in 0..3 {
        log.push(|bytes| bytes.extend(b"no place"));
        assert_eq!(log.commit().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(log.probe().unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_all_but(&log, 7, &[]);
    }
    let (mut log, damage) = open(&disk);
    assert_eq!(damage, []);
    log.push(|bytes| bytes.extend(b"no place"));
    log.commit().unwrap_err();
    disk.set_full(false);
    log.probe().unwrap();
    fill(&mut log, 1, 1);
    assert_all_but(&log, 8, &[]);
    disk.cut_power(&mut Rng::new(1));
    assert_all_but(&open(&disk).0, 8, &[]);
}

#[test]
fn probing_again_and_again_leaves_no_files_behind() {
    let disk = ModelDisk::new(5);
    let (mut log, _) = open(&disk);
    fill(&mut log, 1, 1);
    for _ in 0..20 {
        log.push(|_| ());
        disk.fail_in(0, Fault::NoSpace);
        log.commit().unwrap_err();
        log.probe().unwrap();
    }
    assert_eq!(disk.list().unwrap().len(), 2);
    log.probe().unwrap();
    assert_eq!(disk.list().unwrap().len(), 2);
}

#[test]
fn a_record_the_system_only_believes_it_wrote_is_written_again_when_opened() {
    for seed in 0..50 {
        let disk = ModelDisk::new(seed);
        let (mut log, _) = open(&disk);
        fill(&mut log, 1, 1);
        log.push(|bytes| bytes.extend(b"maybe"));
        // The sync, and the attempt to cut the file.
        disk.fail_several_in(1, 2, Fault::Io);
        log.commit().unwrap_err();
        drop(log);
        // Opening may find the record, and then it must be there for good.
        let (log, _) = open(&disk);
        let found = read_all(&log).0;
        assert_eq!(found.len(), 2);
        disk.cut_power(&mut Rng::new(seed));
        assert_eq!(read_all(&open(&disk).0).0, found);
    }
}

#[test]
fn a_full_disk_that_copies_on_write_is_opened_and_doubts_its_last_group() {
    let mut lost = 0;
    for seed in 0..50 {
        let disk = ModelDisk::new(seed);
        disk.copy_on_write();
        let (mut log, _) = open(&disk);
        fill(&mut log, 1, 1);
        log.push(|bytes| bytes.extend(payload(2)));
        disk.fail_several_in(1, 2, Fault::NoSpace);
        log.commit().unwrap_err();
        disk.set_full(true);
        let (mut log, damage) = open(&disk);
        assert_eq!(damage, []);
        assert_all_but(&log, 3, &[]);
        disk.set_full(false);
        fill(&mut log, 1, 1);
        disk.cut_power(&mut Rng::new(seed));
        // It was never accepted. Its seq is not used for another record.
        let (log, damage) = open(&disk);
        assert_eq!((damage, log.next_seq()), (Vec::new(), 4));
        let (records, damage) = read_all(&log);
        if records.len() == 2 {
            lost += 1;
            assert_eq!(
                (damage[0].kind, &damage[0].lost),
                (DamageKind::TornTail, &(2..3))
            );
        }
    }
    assert!(lost > 0, "no seed loses the record: nothing was shown");
}

#[test]
fn a_removal_that_fails_half_way_leaves_no_hole() {
    for (step, again) in (0..6).flat_map(|step| (0..4).map(move |again| (step, again))) {
        for seed in 0..20 {
            let disk = ModelDisk::new(seed);
            let (mut log, _) = open(&disk);
            fill(&mut log, 30, 3);
            let third = log.segments()[2].end;
            disk.fail_in(step, Fault::Io);
            log.remove_below(third).unwrap_err();
            disk.fail_in(again, Fault::Io);
            let _ = log.remove_below(third);
            disk.cut_power(&mut Rng::new(seed));
            let (log, damage) = open(&disk);
            assert_eq!(damage, []);
            assert_all_but(&log, 91, &[]);
        }
    }
}
