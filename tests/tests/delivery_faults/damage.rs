//! A journal that is damaged when the host starts: what can be read is
//! delivered, what cannot is counted and told.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use backhaul_tests::books::{Book, journal};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::load::Posted;
use backhaul_tests::oracle::Verdict;
use backhaul_tests::proxy::{Fault, Proxy};
use backhaul_tests::redis_server::RedisServer;

use crate::scene::{STREAM, add_redis_plugin, judge_redis, of, segments, stop, wait_until_settled};

/// How many events wait in the journal that is damaged.
const EVENTS: usize = 2000;

/// A host's journal with events that were not delivered, in order.
struct Scene {
    redis: RedisServer,
    proxy: Proxy,
    workspace: Workspace,
    posted: Posted,
}

impl Scene {
    /// `None` if there is no Redis here.
    fn new() -> Option<Scene> {
        Scene::with(EVENTS, 100)
    }

    /// With so many events with so many bytes each, in segments of 2 MiB.
    fn with(events: usize, bytes: usize) -> Option<Scene> {
        let redis = RedisServer::start()?;
        let proxy = Proxy::to(&redis.address());
        proxy.set(Fault::Refuse);
        let workspace = Workspace::new();
        add_redis_plugin(&workspace, &proxy.address(), "", "");
        let host = workspace.serve_with(&["--journal-size", "16MiB", "--drain", "50ms"]);
        let ids: Vec<String> = (0..events).map(|n| format!("e-{n}")).collect();
        let data = "x".repeat(bytes);
        let in_a_request = (2_000_000 / (bytes + 200)).clamp(1, 100);
        for ids in ids.chunks(in_a_request) {
            let event = |id: &String| {
                format!(
                    r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"t","data":"{data}"}}"#
                )
            };
            let events: Vec<String> = ids.iter().map(event).collect();
            let batched = [("content-type", "application/cloudevents-batch+json")];
            let answer = host.post(&batched, format!("[{}]", events.join(",")));
            assert_eq!(answer.status, 202, "{answer:?}");
        }
        // A host that is stopped has noted what was accepted, so that none of it can
        // be missing without being missed.
        let (status, log) = host.stop();
        assert_eq!(status.code(), Some(0), "{log}");
        Some(Scene {
            redis,
            proxy,
            workspace,
            posted: Posted::accepted(ids),
        })
    }

    /// Starts a host on what there is and waits until it has delivered it.
    fn deliver(&self) -> (Host, Book, Verdict) {
        self.proxy.set(Fault::None);
        let host = self.workspace.serve();
        let books = wait_until_settled(&host);
        let verdict = judge_redis(&self.posted, &self.redis);
        eprintln!("{verdict}");
        assert!(verdict.unexpected.is_empty(), "{verdict}");
        verdict.assert_in_order();
        verdict.assert_duplicates_at_most(0, "nothing had been delivered before");
        let book = of(&books, "redis-streams").clone();
        // Each accepted event is in the stream or counted as unreadable.
        assert_eq!(
            book.accepted as usize,
            self.posted.fates.len(),
            "{}",
            book.raw
        );
        assert_eq!(
            (book.delivered as usize, book.dropped["unreadable"] as usize),
            (verdict.distinct, verdict.lost.len()),
            "{}",
            book.raw
        );
        assert_eq!(
            journal(&host)["unreadable"].as_u64(),
            Some(verdict.lost.len() as u64)
        );
        (host, book, verdict)
    }

    /// The only file of the journal.
    fn segment(&self) -> std::path::PathBuf {
        let segments = segments(&self.workspace);
        assert_eq!(segments.len(), 1, "{segments:?}");
        segments[0].clone()
    }
}

/// Where in a file the event is written whose id is `id`.
fn find(file: &Path, id: &str) -> u64 {
    let bytes = fs::read(file).expect("the segment");
    let at = bytes
        .windows(id.len())
        .position(|part| part == id.as_bytes());
    at.expect("the event is in the segment") as u64
}

fn flip_bit(file: &Path, offset: u64) {
    let file = File::options().read(true).write(true).open(file);
    let file = file.expect("the segment");
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).expect("a byte");
    file.write_all_at(&[byte[0] ^ 0x10], offset)
        .expect("another byte");
}

#[test]
fn a_flipped_bit_costs_its_own_event_and_is_told() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let segment = scene.segment();
    flip_bit(&segment, find(&segment, "e-1000"));
    let (host, _, verdict) = scene.deliver();
    assert_eq!(verdict.lost, ["e-1000"]);
    let name = segment.file_name().expect("a name").to_str().expect("text");
    let log = host.log();
    let line = log
        .lines()
        .find(|line| line.contains("WARN") | line.contains("ERROR") && line.contains(name));
    assert!(line.is_some(), "no line tells of {name}: {log}");
    stop(host);

    // Once is enough: the next host finds nothing new, and remembers.
    let host = scene.workspace.serve();
    let book = of(&wait_until_settled(&host), "redis-streams").clone();
    assert_eq!(book.dropped["unreadable"], 1, "{}", book.raw);
    assert_eq!(host.post_batch("after", 10).status, 202);
    wait_until_settled(&host);
    assert_eq!(scene.redis.len(STREAM), EVENTS - 1 + 10);
    stop(host);
}

#[test]
fn a_tail_that_was_torn_off_costs_what_was_in_it() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let segment = scene.segment();
    let file = File::options()
        .write(true)
        .open(&segment)
        .expect("the file");
    // In the middle of the last event but one.
    file.set_len(find(&segment, "e-1998")).expect("it is cut");
    let (host, _, verdict) = scene.deliver();
    assert_eq!(verdict.lost, ["e-1998", "e-1999"]);
    stop(host);
}

#[test]
fn a_segment_that_is_missing_costs_its_own_events_and_is_told() {
    let Some(scene) = Scene::with(4000, 2000) else {
        return;
    };
    let segments = segments(&scene.workspace);
    assert!(segments.len() >= 3, "{segments:?}");
    fs::remove_file(&segments[1]).expect("a segment");
    let (host, _, verdict) = scene.deliver();
    let lost = verdict.lost.len();
    assert!((500..=1500).contains(&lost), "{verdict}");
    assert!(host.log().contains("missing"), "{}", host.log());
    stop(host);
}

#[test]
fn a_journal_of_a_newer_version_is_refused_and_left_as_it_is() {
    let Some(scene) = Scene::new() else {
        return;
    };
    let segment = scene.segment();
    make_newer(&segment);
    let before = fs::read(&segment).expect("the segment");
    let output = scene.workspace.run(&["serve", "--listen", "127.0.0.1:0"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("newer"), "{error}");
    assert_eq!(fs::read(&segment).expect("the segment"), before);
}

/// Gives a segment the header of a version that is not known yet.
fn make_newer(segment: &Path) {
    let mut bytes = fs::read(segment).expect("the segment");
    // Its two copies: the version behind eight bytes of magic, and a checksum over
    // all before it. Both stay where they are in every version.
    for copy in [0, 4096] {
        let header = &mut bytes[copy..copy + 48];
        header[8..12].copy_from_slice(&2_u32.to_le_bytes());
        let sum = crc32(&header[..44]);
        header[44..].copy_from_slice(&sum.to_le_bytes());
    }
    fs::write(segment, bytes).expect("the segment");
}

/// The checksum of gzip and many others.
fn crc32(bytes: &[u8]) -> u32 {
    let shift = |crc: u32, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg());
    !bytes
        .iter()
        .fold(!0, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), shift))
}

#[test]
fn a_second_host_on_the_same_folder_is_refused_and_the_first_goes_on() {
    let Some(scene) = Scene::new() else {
        return;
    };
    scene.proxy.set(Fault::None);
    let host = scene.workspace.serve();
    let output = scene.workspace.run(&["serve", "--listen", "127.0.0.1:0"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    let folder = scene.workspace.data().to_str().expect("text");
    assert!(
        error.contains(folder) && error.contains("another"),
        "{error}"
    );

    wait_until_settled(&host);
    let verdict = judge_redis(&scene.posted, &scene.redis);
    verdict.assert_nothing_lost();
    verdict.assert_duplicates_at_most(0, "one host delivered");
    stop(host);
}
