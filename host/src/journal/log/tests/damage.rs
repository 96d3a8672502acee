//! What is done to the bytes, and what is still read.

use std::collections::HashMap;

use super::super::damage::{Aside, MAX_ASIDE};
use super::super::format::{FRAME, HEADER, SECOND_HEADER};
use super::*;

/// A log of 40 records in groups of 4, in several segments, closed.
fn filled() -> ModelDisk {
    let disk = ModelDisk::new(1);
    let (mut log, _) = open(&disk);
    fill(&mut log, 10, 4);
    disk
}

#[test]
fn a_flipped_bit_anywhere_in_a_record_costs_that_record_alone() {
    let clean = filled();
    let (name, offset, len) = place_of(&clean, 6);
    assert!(name < clean.names(".log").pop().unwrap());
    for byte in 0..len {
        let disk = filled();
        disk.flip_bit(&name, offset + byte, (byte % 8) as u32);
        let (log, damage) = open(&disk);
        assert_eq!(damage, [], "sealed segments are not read when opening");
        let damage = assert_all_but(&log, 41, &[6]);
        assert_eq!(
            (damage[0].offset, damage[0].bytes),
            (offset, len),
            "byte {byte}"
        );
        assert_eq!(damage[0].kind, DamageKind::Unreadable);
        let aside = damage[0]
            .aside
            .as_ref()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap();
        let bytes = disk.bytes(&name);
        assert_eq!(
            disk.bytes(aside),
            bytes[offset as usize..(offset + len) as usize]
        );
        // Reported to each reader, copied once.
        assert_all_but(&log, 41, &[6]);
        assert_eq!(disk.names(".damaged").len(), 1);
    }
}

#[test]
fn a_flipped_bit_in_the_last_segment_costs_that_record_alone() {
    for seq in [37, 38, 39] {
        for byte in 0..length(seq) {
            let disk = filled();
            let (name, offset, _) = place_of(&disk, seq);
            disk.flip_bit(&name, offset + byte, 3);
            let (mut log, damage) = open(&disk);
            // In the last group nobody can tell it from a write cut short.
            assert_eq!(damage.len(), 1);
            assert_eq!(
                (damage[0].kind, &damage[0].lost),
                (DamageKind::TornTail, &(seq..seq + 1))
            );
            assert_eq!(
                assert_all_but(&log, 41, &[seq])[0].kind,
                DamageKind::TornTail
            );
            fill(&mut log, 1, 1);
            let (log, damage) = open(&disk);
            assert_eq!(damage, []);
            assert_eq!(
                assert_all_but(&log, 42, &[seq])[0].kind,
                DamageKind::TornTail
            );
        }
    }
}

#[test]
fn a_tail_is_cut_off_wherever_it_was_torn_and_reported_once() {
    let clean = filled();
    let (name, offset, _) = place_of(&clean, 37);
    let whole = clean.bytes(&name);
    for len in offset as usize..whole.len() {
        let disk = filled();
        disk.change(&name, |bytes| bytes.truncate(len));
        let (mut log, damage) = open(&disk);
        let next = log.next_seq();
        let (_, end, _) = place_of(&clean, next);
        assert!(end as usize <= len && next >= 37);
        if len as u64 > end || next > 37 {
            assert_eq!(damage.len(), 1, "cut at {len}");
            assert_eq!(
                (damage[0].kind, damage[0].offset),
                (DamageKind::TornTail, end)
            );
            assert_eq!(damage[0].bytes, len as u64 - end);
            let known = next > 37 || len as u64 - end >= FRAME as u64;
            assert_eq!(damage[0].lost, if known { next..41 } else { next..next });
            assert_eq!(damage[0].aside.is_some(), len as u64 > end);
        } else {
            assert_eq!(damage, []);
        }
        assert_all_but(&log, next, &[]);
        assert_eq!(open(&disk).1, [], "cut at {len}");
        fill(&mut log, 2, 2);
        assert_all_but(&log, next + 4, &[]);
        let (log, damage) = open(&disk);
        assert_eq!(damage, []);
        assert_all_but(&log, next + 4, &[]);
    }
}

#[test]
fn zeros_cost_the_records_they_are_in() {
    let disk = filled();
    let (name, offset, _) = place_of(&disk, 3);
    // From the middle of record 3 into the frame of record 6.
    let end = place_of(&disk, 6).1 + 5;
    disk.change(&name, |bytes| {
        bytes[offset as usize + 50..end as usize].fill(0)
    });
    let (log, _) = open(&disk);
    let damage = assert_all_but(&log, 41, &[3, 4, 5, 6]);
    assert_eq!(damage.len(), 1);
    assert_eq!(
        (damage[0].offset, damage[0].offset + damage[0].bytes),
        (offset, place_of(&disk, 7).1)
    );
}

#[test]
fn missing_segments_are_reported_with_what_was_in_them() {
    for missing in [1..2, 1..3, 2..3] {
        let disk = filled();
        let segments = open(&disk).0.segments();
        for segment in &segments[missing.clone()] {
            disk.remove_file(&segment_name(segment.first));
        }
        let (log, damage) = open(&disk);
        let lost = segments[missing.start].first..segments[missing.end].first;
        assert_eq!(damage.len(), 1);
        assert_eq!(
            (damage[0].kind, &damage[0].lost),
            (DamageKind::MissingSegment, &lost)
        );
        let damage = assert_all_but(&log, 41, &lost.collect::<Vec<_>>());
        assert_eq!(damage[0].kind, DamageKind::MissingSegment);
    }
}

#[test]
fn a_segment_removed_under_a_running_log_is_reported() {
    let disk = filled();
    let (log, _) = open(&disk);
    let segment = &log.segments()[1];
    disk.remove_file(&segment_name(segment.first));
    let damage = assert_all_but(&log, 41, &(segment.first..segment.end).collect::<Vec<_>>());
    assert_eq!(damage[0].kind, DamageKind::MissingSegment);
}

#[test]
fn a_segment_cut_short_lacks_just_the_records_behind_the_cut() {
    let disk = filled();
    let segment = &open(&disk).0.segments()[1];
    let offset = place_of(&disk, segment.first + 1).1;
    for cut in [0, 10, 40] {
        let disk = filled();
        disk.change(&segment_name(segment.first), |bytes| {
            bytes.truncate(offset as usize + cut)
        });
        let (log, _) = open(&disk);
        let damage = assert_all_but(
            &log,
            41,
            &(segment.first + 1..segment.end).collect::<Vec<_>>(),
        );
        assert_eq!(damage[0].kind, DamageKind::Unreadable);
        assert_eq!((damage[0].offset, damage[0].bytes), (offset, cut as u64));
    }
}

#[test]
fn one_of_two_headers_is_enough() {
    for segment in 0..3 {
        for from in [0, SECOND_HEADER as usize] {
            let disk = filled();
            let name = &disk.names(".log")[segment];
            disk.change(name, |bytes| bytes[from..from + HEADER].fill(0));
            let (log, damage) = open(&disk);
            assert_eq!(damage, []);
            assert_all_but(&log, 41, &[]);
        }
    }
}

#[test]
fn a_segment_without_headers_is_lost_and_the_others_are_read() {
    let destroy = |disk: &ModelDisk, name: &str| {
        disk.change(name, |bytes| {
            bytes[..HEADER].fill(0);
            bytes[SECOND_HEADER as usize..RECORDS as usize].fill(0);
        });
    };
    let disk = filled();
    let segment = &open(&disk).0.segments()[1];
    destroy(&disk, &segment_name(segment.first));
    let (log, _) = open(&disk);
    assert_all_but(&log, 41, &(segment.first..segment.end).collect::<Vec<_>>());

    // The last one: how many were in it nobody knows, but the file is kept.
    let disk = filled();
    let segment = open(&disk).0.segments().pop().unwrap();
    let name = segment_name(segment.first);
    destroy(&disk, &name);
    let bytes = disk.bytes(&name);
    let (mut log, damage) = open(&disk);
    assert_eq!(
        (damage[0].kind, damage[0].bytes),
        (DamageKind::Unreadable, segment.bytes)
    );
    let aside = damage[0]
        .aside
        .as_ref()
        .unwrap()
        .file_name()
        .unwrap()
        .to_str()
        .unwrap();
    assert_eq!(disk.bytes(aside), bytes);
    assert_eq!(log.next_seq(), segment.first);
    fill(&mut log, 1, 1);
    assert_all_but(&log, segment.first + 1, &[]);
    assert_eq!(open(&disk).1, []);
}

#[test]
fn a_segment_that_was_only_being_made_is_no_damage() {
    for len in [0, 20, RECORDS as usize] {
        let disk = filled();
        disk.put(&segment_name(41), vec![0; len]);
        disk.put(&format!("{}.new", segment_name(41)), vec![1; len]);
        let (mut log, damage) = open(&disk);
        assert_eq!((damage, log.next_seq()), (Vec::new(), 41));
        fill(&mut log, 1, 1);
        assert_all_but(&log, 42, &[]);
        assert_eq!(disk.names(".new"), [""; 0]);
    }
}

#[test]
fn a_record_inside_a_payload_is_never_taken_for_one() {
    let disk = ModelDisk::new(1);
    let (mut log, _) = open(&disk);
    fill(&mut log, 2, 2);
    let image = disk.bytes(&segment_name(1));
    // With another log's salt, as one who knows the format would make it.
    let other = ModelDisk::new(2);
    fill(&mut open(&other).0, 4, 2);
    let forged = other.bytes(&segment_name(1));
    log.push(|bytes| bytes.extend(&forged[RECORDS as usize..]));
    log.commit().unwrap();
    fill(&mut log, 1, 1);
    disk.flip_bit(&segment_name(1), image.len() as u64 + 20, 0);
    let (log, _) = open(&disk);
    assert_all_but(&log, 7, &[5]);
}

#[test]
fn files_that_are_not_this_version_s_segments_are_refused() {
    let refused = |disk: &ModelDisk| {
        let opened = Log::open(Arc::new(disk.clone()), LogOptions::default());
        opened.err().expect("refused").to_string()
    };
    let disk = filled();
    disk.change(&segment_name(1), |bytes| {
        bytes[8] = 2;
        let crc = crc32fast::hash(&bytes[..44]).to_le_bytes();
        bytes[44..48].copy_from_slice(&crc);
        let header = bytes[..HEADER].to_vec();
        bytes[SECOND_HEADER as usize..RECORDS as usize].copy_from_slice(&header);
    });
    assert_eq!(
        refused(&disk),
        "/model/00000000000000000001.log has version 2 of the journal's format, and this program \
         knows versions up to 1: start the newer program again, or give this one another data folder"
    );

    let disk = filled();
    disk.put(&segment_name(77), b"apple banana ".repeat(1000));
    assert_eq!(
        refused(&disk),
        "/model/00000000000000000077.log is named like a segment of the journal, but is none: \
         move it out of the folder"
    );

    let disk = filled();
    disk.put(&segment_name(77), disk.bytes(&segment_name(1)));
    assert_eq!(
        refused(&disk),
        "/model/00000000000000000077.log is the segment that begins with event 1: it was renamed \
         or copied; give it its name back (00000000000000000001.log), or move it out of the folder"
    );

    // Other files are nobody's business here.
    let disk = filled();
    disk.put("notes.log", vec![1]);
    disk.put("1.log", vec![1]);
    disk.put("position", vec![1]);
    assert_eq!(open(&disk).1, []);
}

#[test]
fn copies_aside_are_bounded() {
    let disk = filled();
    let file = disk.open(&segment_name(1)).unwrap();
    let aside = Aside::new(HashMap::from([("1-1.damaged".to_owned(), MAX_ASIDE - 100)]));
    assert_eq!(aside.keep(&disk, &*file, 1, 0, 101), None);
    assert!(aside.keep(&disk, &*file, 1, 0, 60).is_some());
    assert!(aside.keep(&disk, &*file, 1, 0, 60).is_some());
    assert_eq!(aside.keep(&disk, &*file, 1, 70, 60), None);
    assert_eq!(disk.names(".damaged"), ["00000000000000000001-0.damaged"]);
}

#[test]
fn damage_says_what_where_how_many_and_where_the_bytes_are() {
    let mut damage = Damage {
        file: "/d/1.log".into(),
        offset: 4144,
        bytes: 100,
        lost: 7..10,
        kind: DamageKind::Unreadable,
        aside: Some("/d/1-4144.damaged".into()),
    };
    assert_eq!(
        damage.to_string(),
        "/d/1.log has 100 unreadable bytes at 4144: 3 events are lost, numbers 7 to 9; the bytes \
         were copied to /d/1-4144.damaged"
    );
    damage.kind = DamageKind::TornTail;
    damage.lost = 7..8;
    damage.aside = None;
    assert_eq!(
        damage.to_string(),
        "/d/1.log has 100 bytes at 4144 of a group whose writing was cut short: 1 event is lost, \
         number 7, unless the emitter was never told that it was accepted; the bytes were not \
         copied aside"
    );
    damage.kind = DamageKind::MissingSegment;
    damage.bytes = 0;
    assert_eq!(
        damage.to_string(),
        "/d/1.log is missing: 1 event is lost, number 7"
    );
}
