//! The log on a real file system.

use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::journal::disk::Folder;

#[test]
fn a_folder_is_made_for_its_owner_alone_and_keeps_a_log() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a/journal");
    for round in 0..3 {
        let disk = Arc::new(Folder::open(&path).unwrap());
        let (mut log, damage) = Log::open(
            disk,
            LogOptions {
                segment_bytes: SEGMENT,
            },
        )
        .unwrap();
        assert_eq!(damage, []);
        assert_all_but(&log, 1 + round * 60, &[]);
        fill(&mut log, 20, 3);
        let segment = log.segments().pop().unwrap();
        assert!(segment.last_write.elapsed().unwrap().as_secs() < 600);
    }
    let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    assert_eq!(mode(&path.join(segment_name(1))), 0o600);
}

#[test]
fn readers_follow_a_writer_that_rolls_and_removes() {
    const RECORDS: u64 = 3000;
    let dir = tempfile::tempdir().unwrap();
    let disk = Arc::new(Folder::open(dir.path()).unwrap());
    let (mut log, _) = Log::open(
        disk,
        LogOptions {
            segment_bytes: 20_000,
        },
    )
    .unwrap();
    let (committed, until) = std::sync::mpsc::channel::<u64>();
    let mut reader = log.reader();
    let read = std::thread::spawn(move || {
        let mut next = 1;
        for until in until {
            while next < until {
                let mut expected = next;
                let mut each = |seq, bytes: &[u8]| {
                    assert_eq!((seq, bytes), (expected, &payload(seq)[..]));
                    expected += 1;
                    true
                };
                let chunk = reader.read(next, until, 5000, &mut each).unwrap();
                assert_eq!(chunk.damage, []);
                assert_eq!(chunk.next, expected);
                next = chunk.next;
            }
        }
        next
    });
    while log.next_seq() <= RECORDS {
        fill(&mut log, 1, 10);
        committed.send(log.next_seq()).unwrap();
        let behind = log.next_seq().saturating_sub(RECORDS);
        log.remove_below(behind).unwrap();
    }
    drop(committed);
    assert_eq!(read.join().unwrap(), log.next_seq());
}
