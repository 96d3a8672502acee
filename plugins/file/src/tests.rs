//! The file and those before it, on this machine's own file system.

use super::*;
use flate2::read::GzDecoder;
use std::num::NonZeroUsize;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

fn settings(folder: &TempDir) -> Settings {
    Settings {
        path: folder.path().join("e.ndjson"),
        ..Settings::default()
    }
}

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

/// The names in a folder, sorted.
fn names(folder: &TempDir) -> Vec<String> {
    let entries = std::fs::read_dir(folder.path()).unwrap();
    let name = |entry: Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
    let mut names: Vec<String> = entries.map(name).collect();
    names.sort();
    names
}

fn unzipped(path: &Path) -> String {
    let mut text = String::new();
    let mut decoder = GzDecoder::new(File::open(path).unwrap());
    decoder.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_file_that_would_grow_too_large_is_closed_under_a_name_of_its_time() {
    let folder = TempDir::new().unwrap();
    let mut file = LineFile::open_with(Settings {
        max_size: Some(10),
        sync: true,
        ..settings(&folder)
    })
    .unwrap();
    for (second, lines) in [
        (0, "12345\n"),
        (1, "678\n"),
        (2, "9\n"),
        (2, "abcdefghij\n"),
        (2, "k\n"),
    ] {
        file.append(lines.as_bytes(), at(second)).unwrap();
    }
    let names = names(&folder);
    assert_eq!(
        names,
        [
            "e.ndjson",
            "e.ndjson.1970-01-01T00-00-02.000Z",
            "e.ndjson.1970-01-01T00-00-02.001Z",
            "e.ndjson.1970-01-01T00-00-02.002Z",
        ]
    );
    let texts: Vec<_> = names
        .iter()
        .map(|name| std::fs::read_to_string(folder.path().join(name)).unwrap())
        .collect();
    assert_eq!(texts, ["k\n", "12345\n678\n", "9\n", "abcdefghij\n"]);
}

#[test]
fn a_file_ends_with_its_period_also_over_a_start() {
    let folder = TempDir::new().unwrap();
    let settings = || Settings {
        max_age: Some(Duration::from_secs(60)),
        ..settings(&folder)
    };
    let mut file = LineFile::open_with(settings()).unwrap();
    file.append(b"1\n", at(0)).unwrap();
    file.append(b"2\n", at(59)).unwrap();
    assert_eq!(names(&folder).len(), 1);
    file.append(b"3\n", at(60)).unwrap();
    assert_eq!(names(&folder).len(), 2);

    let file = File::options()
        .append(true)
        .open(folder.path().join("e.ndjson"))
        .unwrap();
    file.set_modified(at(100)).unwrap();
    let mut file = LineFile::open_with(settings()).unwrap();
    file.append(b"4\n", at(119)).unwrap();
    assert_eq!(names(&folder).len(), 2);
    file.append(b"5\n", at(120)).unwrap();
    assert_eq!(names(&folder).len(), 3);
}

#[test]
fn the_oldest_are_removed_and_files_of_other_names_are_not() {
    let folder = TempDir::new().unwrap();
    let others = [
        "e.ndjson.bak",
        "e.ndjson.2020-01-01",
        "e.ndjson.1970-01-01T00:00:00.000Z",
        "other",
    ];
    for other in others {
        std::fs::write(folder.path().join(other), "").unwrap();
    }
    let mut file = LineFile::open_with(Settings {
        max_size: Some(1),
        keep: NonZeroUsize::new(2),
        gzip: true,
        ..settings(&folder)
    })
    .unwrap();
    for second in 0..6 {
        file.append(b"line\n", at(second)).unwrap();
        file.compress(1);
    }
    let names = names(&folder);
    for other in others {
        assert!(names.contains(&other.to_owned()), "{names:?}");
    }
    let ours = names.iter().filter(|name| name.ends_with(".gz"));
    assert_eq!(ours.count(), 2, "{names:?}");
    assert_eq!(names.len(), others.len() + 3, "{names:?}");
}

#[test]
fn compression_goes_on_in_pieces_and_begins_anew_after_a_crash() {
    let folder = TempDir::new().unwrap();
    let settings = || Settings {
        max_size: Some(1),
        gzip: true,
        ..settings(&folder)
    };
    let large = "line of some length\n".repeat(200_000);
    let mut file = LineFile::open_with(settings()).unwrap();
    file.append(large.as_bytes(), at(0)).unwrap();
    file.append(b"next\n", at(1)).unwrap();
    file.compress(1);
    let rotated = folder.path().join("e.ndjson.1970-01-01T00-00-01.000Z");
    assert!(rotated.exists(), "4 MB take more than one call");
    drop(file);

    // What a crash can leave: half a compressed file, half a line.
    std::fs::write(folder.path().join("e.ndjson"), "next\nhal").unwrap();
    let mut file = LineFile::open_with(settings()).unwrap();
    for _ in 0..10 {
        file.compress(1);
    }
    assert_eq!(
        names(&folder),
        ["e.ndjson", "e.ndjson.1970-01-01T00-00-01.000Z.gz"]
    );
    assert!(unzipped(&rotated.with_extension("000Z.gz")) == large);
    let rest = std::fs::read_to_string(folder.path().join("e.ndjson")).unwrap();
    assert_eq!(rest, "next\nhal\n");
}

#[test]
fn what_was_compressed_in_part_goes_with_its_file() {
    let folder = TempDir::new().unwrap();
    let settings = || Settings {
        max_size: Some(1),
        keep: NonZeroUsize::new(1),
        gzip: true,
        ..settings(&folder)
    };
    let large = "line of some length\n".repeat(200_000);
    let mut file = LineFile::open_with(settings()).unwrap();
    file.append(large.as_bytes(), at(0)).unwrap();
    file.append(b"next\n", at(1)).unwrap();
    file.compress(1);
    assert!(names(&folder).iter().any(|name| name.ends_with(".part")));
    drop(file);

    let mut file = LineFile::open_with(settings()).unwrap();
    file.append(b"next\n", at(2)).unwrap();
    file.compress(1);
    assert_eq!(
        names(&folder),
        ["e.ndjson", "e.ndjson.1970-01-01T00-00-02.000Z.gz"]
    );
}

#[test]
fn a_rotation_cut_short_loses_nothing() {
    let folder = TempDir::new().unwrap();
    let settings = || Settings {
        max_size: Some(1),
        gzip: true,
        ..settings(&folder)
    };
    let rotated = folder.path().join("e.ndjson.1970-01-01T00-00-01.000Z");
    // After the rename, before there is a new file.
    std::fs::write(&rotated, "1\n").unwrap();
    let mut file = LineFile::open_with(settings()).unwrap();
    file.append(b"2\n", at(0)).unwrap();
    file.compress(1);
    assert_eq!(unzipped(&rotated.with_extension("000Z.gz")), "1\n");

    // After the compressed file has its name, before the other is removed.
    std::fs::write(&rotated, "1\n").unwrap();
    file.compress(1);
    assert!(!rotated.exists());
    assert_eq!(unzipped(&rotated.with_extension("000Z.gz")), "1\n");
    file.append(b"3\n", at(0)).unwrap();
    let next = folder.path().join("e.ndjson.1970-01-01T00-00-01.001Z");
    assert_eq!(std::fs::read_to_string(next).unwrap(), "2\n");
}
