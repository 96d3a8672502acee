//! The journal on a disk that loses its power, against what was promised.

mod dead;
mod mended;
mod power;

use std::fs::File;
use std::time::Duration;

use jiff::Timestamp;

use super::model_disk::ModelDisk;
use super::*;
use crate::dead_letters::{DeadFilter, DeadPage};
use crate::delivery::{Burial, DeliveryCounts, Entry, Outcome};

/// A journal on model disks.
struct World {
    positions: ModelDisk,
    events: ModelDisk,
    dead: ModelDisk,
    options: JournalOptions,
    journal: Option<Journal>,
    /// The number of the last event that was offered; its data begins with it.
    last: u64,
}

const BACKENDS: [&str; 2] = ["one", "two"];

impl World {
    fn new(seed: u64) -> World {
        let mut world = World {
            positions: ModelDisk::new(seed),
            events: ModelDisk::new(seed + 1),
            dead: ModelDisk::new(seed + 2),
            options: JournalOptions {
                size: 1 << 20,
                retain_size: 0,
                ..JournalOptions::default()
            },
            journal: None,
            last: 0,
        };
        world.open();
        world
    }

    fn open(&mut self) {
        let lock = File::open("/dev/null").unwrap();
        let journal = Journal::open_on(
            Path::new("/journal"),
            Disks {
                positions: Arc::new(self.positions.clone()),
                events: Arc::new(self.events.clone()),
                dead: Arc::new(self.dead.clone()),
            },
            lock,
            self.options,
        );
        self.journal = Some(journal.unwrap());
    }

    fn journal(&self) -> &Journal {
        self.journal.as_ref().unwrap()
    }

    fn feed(&self, name: &str) -> JournalFeed {
        let backend = self.journal().enter(name, StartAt::Now, &[]).unwrap();
        JournalFeed::new(self.journal().clone(), backend)
    }

    fn counts(&self, name: &str) -> DeliveryCounts {
        let backends = lock(&self.journal().inner().backends);
        backends.of_name(name).unwrap().books.counts()
    }

    fn letters(&self) -> DeadPage {
        let all = DeadFilter::default();
        self.journal().dead_letters(&all, 0, usize::MAX).unwrap()
    }

    /// Emits an event to some backends; returns its number.
    async fn emit(&mut self, to: &[&'static str], size: usize) -> Result<u64, PublishError> {
        self.last += 1;
        let id = self.last;
        let mut data = id.to_be_bytes().to_vec();
        data.resize(8 + size, 0);
        let ids: Vec<BackendId> = to
            .iter()
            .map(|name| self.journal().backend_id(name).unwrap())
            .collect();
        let event = Event::new("t", data).unwrap();
        self.journal().append(vec![(event, ids.into())]).await?;
        Ok(id)
    }
}

fn id(entry: &Entry) -> u64 {
    id_of(&entry.event)
}

fn id_of(event: &Event) -> u64 {
    u64::from_be_bytes(event.data()[..8].try_into().unwrap())
}

fn ids(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(id).collect()
}

fn seqs(entries: &[Entry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.seq).collect()
}

/// Dead letters of these.
fn burials(entries: &[Entry]) -> Vec<Burial> {
    let burial = |entry: &Entry| Burial {
        seq: entry.seq,
        event: entry.event.clone(),
        error: "no".to_owned(),
        attempts: 3,
        first_try: entry.accepted,
        last_try: Timestamp::now(),
    };
    entries.iter().map(burial).collect()
}

/// Emits `events` and has all of them be dead letters of `one`.
async fn bury(world: &mut World, events: usize, size: usize) -> JournalFeed {
    let one = world.feed("one");
    for _ in 0..events {
        world.emit(&["one"], size).await.unwrap();
    }
    let mut left = events;
    while left > 0 {
        let entries = next(&one, left).await;
        one.bury(&burials(&entries)).await.unwrap();
        one.settle(&seqs(&entries), Outcome::Dead);
        left -= entries.len();
    }
    one
}

/// The next events, which must be there.
async fn next(feed: &JournalFeed, events: usize) -> Vec<Entry> {
    let next = feed.next(events, 1 << 20);
    let next = tokio::time::timeout(Duration::from_secs(10), next).await;
    next.expect("there are events for it")
}

/// Whether there is nothing to hand out.
async fn has_nothing(feed: &JournalFeed) -> bool {
    let next = feed.next(1, 1 << 20);
    let next = tokio::time::timeout(Duration::from_millis(50), next).await;
    next.is_err()
}

#[tokio::test]
async fn what_is_accepted_is_handed_out_in_order_to_each_backend_it_is_for() {
    let mut world = World::new(1);
    let (one, two) = (world.feed("one"), world.feed("two"));
    for n in 0..10 {
        let to = if n % 2 == 0 { &BACKENDS[..] } else { &["one"] };
        world.emit(to, 0).await.unwrap();
    }
    assert_eq!(ids(&next(&one, 100).await), (1..=10).collect::<Vec<_>>());
    assert_eq!(ids(&next(&two, 3).await), [1, 3, 5]);
    assert_eq!(ids(&next(&two, 3).await), [7, 9]);
    assert_eq!(world.counts("one").accepted, 10);
    assert_eq!(world.counts("two").accepted, 5);
    assert!(has_nothing(&two).await);
}

#[tokio::test]
async fn a_backend_goes_on_behind_what_it_has_settled() {
    let mut world = World::new(2);
    let one = world.feed("one");
    for _ in 0..10 {
        world.emit(&["one"], 0).await.unwrap();
    }
    let handed = seqs(&next(&one, 8).await);
    one.settle(&handed[..3], Outcome::Delivered);
    one.settle(&handed[5..6], Outcome::Dead);
    for _ in 0..2 {
        drop(world.journal.take());
        world.open();
        let one = world.feed("one");
        assert_eq!(ids(&next(&one, 100).await), [4, 5, 7, 8, 9, 10]);
        let counts = world.counts("one");
        assert_eq!((counts.accepted, counts.delivered, counts.dead), (10, 3, 1));
    }
}

#[tokio::test]
async fn a_feed_that_is_released_leaves_its_place_to_the_next() {
    let mut world = World::new(3);
    let one = world.feed("one");
    for _ in 0..4 {
        world.emit(&["one"], 0).await.unwrap();
    }
    let handed = seqs(&next(&one, 3).await);
    one.settle(&handed[1..2], Outcome::Delivered);
    let later = world.feed("one");
    assert!(has_nothing(&later).await, "while another is in use");
    one.release().await;
    assert_eq!(ids(&next(&later, 100).await), [1, 3, 4]);
    one.settle(&handed[..1], Outcome::Delivered);
    later.settle(&seqs(&[]), Outcome::Delivered);
    assert!(world.counts("one").pending() <= 3);
}

#[tokio::test]
async fn what_is_not_in_memory_any_more_is_read_from_disk() {
    let mut world = World::new(4);
    world.options.size = 256 << 20;
    drop(world.journal.take());
    world.open();
    let one = world.feed("one");
    // More than is kept in memory.
    for _ in 0..50 {
        world.emit(&["one"], 1 << 20).await.unwrap();
    }
    assert!(lock(&world.journal().inner().recent).first() > 10);
    let mut read = Vec::new();
    while read.len() < 50 {
        read.extend(ids(&next(&one, 7).await));
    }
    assert_eq!(read, (1..=50).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_full_journal_says_who_fills_it_and_takes_events_when_there_is_room() {
    let mut world = World::new(5);
    let (one, two) = (world.feed("one"), world.feed("two"));
    let full = loop {
        if let Err(error) = world.emit(&BACKENDS, 20_000).await {
            break error.to_string();
        }
        let seqs = seqs(&next(&one, 10).await);
        one.settle(&seqs, Outcome::Delivered);
    };
    assert!(
        full.contains("`journal` is full (1 MiB; backend `two` has"),
        "{full}"
    );
    assert_eq!(world.journal().status().state, JournalState::Full);
    while world.counts("two").pending() > 0 {
        let seqs = seqs(&next(&two, 10).await);
        two.settle(&seqs, Outcome::Delivered);
    }
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while world.emit(&BACKENDS, 20_000).await.is_err() {
        assert!(std::time::Instant::now() < until, "there is room");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.journal().status().state, JournalState::Ok);
}

#[tokio::test]
async fn a_disk_that_is_full_refuses_and_goes_on_when_it_is_not() {
    let mut world = World::new(6);
    let one = world.feed("one");
    world.emit(&["one"], 0).await.unwrap();
    world.events.set_full(true);
    let error = world.emit(&["one"], 0).await.unwrap_err();
    assert!(
        matches!(&error, PublishError::Retryable(reason) if reason.contains("no space")),
        "{error}"
    );
    assert_eq!(world.journal().status().state, JournalState::Failing);
    world.events.set_full(false);
    // By itself, although nobody emits.
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while world.journal().status().state == JournalState::Failing {
        assert!(std::time::Instant::now() < until, "it goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.emit(&["one"], 0).await.unwrap();
    assert_eq!(ids(&next(&one, 100).await), [1]);
    assert_eq!(ids(&next(&one, 100).await), [3], "2 was refused");
}

#[tokio::test]
async fn a_name_that_cannot_be_a_files_is_refused() {
    let world = World::new(13);
    for name in ["", "../x", "a/b", "a\0", &"x".repeat(201)] {
        let entered = world.journal().enter(name, StartAt::Now, &[]);
        assert!(entered.is_err(), "{name:?}");
    }
    for name in ["..", "a b", "ä", &"x".repeat(200)] {
        let entered = world.journal().enter(name, StartAt::Now, &[]);
        assert!(entered.is_ok(), "{name:?}");
    }
}

#[tokio::test]
async fn a_journal_opens_on_a_full_disk() {
    let mut world = World::new(12);
    drop(bury(&mut world, 3, 100).await);
    world.emit(&["one"], 0).await.unwrap();
    drop(world.journal.take());
    for disk in [&world.positions, &world.events, &world.dead] {
        disk.set_full(true);
    }
    world.open();
    assert_eq!(ids(&next(&world.feed("one"), 100).await), [4]);
    assert_eq!(world.letters().total, 3);
}

#[tokio::test]
async fn a_new_backend_begins_now_or_with_the_oldest_event_of_its_types() {
    let mut world = World::new(7);
    let one = world.feed("one");
    for _ in 0..5 {
        world.emit(&["one"], 0).await.unwrap();
    }
    let now = world.feed("two");
    let types = ["t".parse().unwrap()];
    let journal = world.journal().clone();
    let with_history = |name: &str, events: &[Pattern]| {
        let backend = journal.enter(name, StartAt::Oldest, events).unwrap();
        JournalFeed::new(journal.clone(), backend)
    };
    let oldest = with_history("oldest", &types);
    let others = with_history("others", &["x".parse().unwrap()]);
    assert_eq!(ids(&next(&oldest, 3).await), [1, 2, 3]);
    let id = world
        .emit(&["one", "two", "oldest", "others"], 0)
        .await
        .unwrap();
    assert_eq!(ids(&next(&oldest, 100).await), [4, 5, id]);
    assert_eq!(ids(&next(&now, 100).await), [id]);
    assert_eq!(ids(&next(&others, 100).await), [id]);
    // From then on, what is not for it is not given to it.
    world.emit(&["one"], 0).await.unwrap();
    assert!(has_nothing(&oldest).await);
    assert_eq!(world.counts("oldest").accepted, 6);
    assert_eq!(next(&one, 100).await.len(), 7);

    oldest.settle(&[1, 2], Outcome::Delivered);
    drop((oldest, now, others, one, journal));
    drop(world.journal.take());
    world.open();
    let oldest = world.feed("oldest");
    assert_eq!(ids(&next(&oldest, 100).await), [3, 4, 5, id]);
    let counts = world.counts("oldest");
    assert_eq!((counts.accepted, counts.delivered), (6, 2));
}

#[tokio::test]
async fn what_a_backend_will_never_take_can_be_forgotten() {
    let mut world = World::new(8);
    let feed = world.feed("one");
    for _ in 0..5 {
        world.emit(&["one"], 0).await.unwrap();
    }
    assert_eq!(ids(&next(&feed, 2).await), [1, 2]);
    let in_use = ForgetError::InUse("one".to_owned());
    assert_eq!(world.journal().forget("one"), Err(in_use));
    assert_eq!(world.counts("one").pending(), 5);
    feed.release().await;
    assert_eq!(world.journal().forget("one"), Ok(5));
    assert_eq!(world.journal().forget("one"), Ok(0));
    let unknown = ForgetError::Unknown("two".to_owned());
    assert_eq!(world.journal().forget("two"), Err(unknown));
    let id = world.emit(&["one"], 0).await.unwrap();
    assert_eq!(ids(&next(&world.feed("one"), 100).await), [id]);
    let counts = world.counts("one");
    assert_eq!(
        (counts.accepted, counts.dropped_forgotten, counts.pending()),
        (6, 5, 1)
    );
}

#[tokio::test]
async fn damage_costs_the_events_it_hit_and_the_books_say_so() {
    let mut world = World::new(9);
    drop(world.feed("one"));
    for _ in 0..100 {
        world.emit(&["one"], 100).await.unwrap();
    }
    drop(world.journal.take());
    let segment = world.events.names(".log").remove(0);
    let middle = world.events.bytes(&segment).len() as u64 / 2;
    world.events.flip_bit(&segment, middle, 3);
    world.open();
    let one = world.feed("one");
    let handed = next(&one, 1000).await;
    assert_eq!(handed.len(), 99);
    one.settle(&seqs(&handed), Outcome::Delivered);
    let counts = world.counts("one");
    assert_eq!(
        (
            counts.delivered,
            counts.dropped_unreadable,
            counts.pending()
        ),
        (99, 1, 0)
    );
    assert_eq!(world.journal().status().unreadable, 1);
}

#[tokio::test]
async fn events_that_are_gone_do_not_give_their_numbers_to_new_ones() {
    let mut world = World::new(10);
    let one = world.feed("one");
    for _ in 0..10 {
        world.emit(&["one"], 0).await.unwrap();
    }
    let handed = seqs(&next(&one, 8).await);
    one.settle(&handed, Outcome::Delivered);
    drop(one);
    drop(world.journal.take());
    for segment in world.events.names(".log") {
        world.events.remove_file(&segment);
    }
    world.open();
    let one = world.feed("one");
    let id = world.emit(&["one"], 0).await.unwrap();
    let handed = next(&one, 100).await;
    assert_eq!(ids(&handed), [id]);
    one.settle(&seqs(&handed), Outcome::Delivered);
    let counts = world.counts("one");
    assert_eq!(
        (counts.accepted, counts.delivered, counts.dropped_unreadable),
        (11, 9, 2)
    );
}

#[tokio::test]
async fn a_lost_position_means_duplicates_and_a_lost_list_means_nothing() {
    let mut world = World::new(11);
    let (one, two) = (world.feed("one"), world.feed("two"));
    for _ in 0..5 {
        world.emit(&BACKENDS, 0).await.unwrap();
    }
    for feed in [one, two] {
        let handed = seqs(&next(&feed, 3).await);
        feed.settle(&handed, Outcome::Delivered);
    }
    drop(world.journal.take());
    world.positions.remove_file("one.position");
    world.open();
    let one = world.feed("one");
    assert_eq!(ids(&next(&one, 100).await), [1, 2, 3, 4, 5]);
    assert_eq!(ids(&next(&world.feed("two"), 100).await), [4, 5]);
    let id = world.emit(&["one"], 0).await.unwrap();
    assert_eq!(ids(&next(&one, 100).await), [id]);

    drop(one);
    drop(world.journal.take());
    world.positions.remove_file("backends.json");
    world.open();
    assert_eq!(ids(&next(&world.feed("two"), 100).await), [4, 5]);
    let three = world.feed("three");
    let id = world.emit(&["three"], 0).await.unwrap();
    assert_eq!(ids(&next(&three, 100).await), [id]);
    let of_two = ids(&next(&world.feed("two"), 100).await);
    assert_eq!(of_two, [4, 5], "numbers are not given twice");
}

#[tokio::test]
async fn what_is_delivered_and_old_is_gone_from_the_disk_though_nobody_emits() {
    let mut world = World::new(14);
    drop(world.journal.take());
    world.options.retain_age = Duration::ZERO;
    world.options.retain_size = 1 << 20;
    world.open();
    let one = world.feed("one");
    for _ in 0..3 {
        world.emit(&["one"], 1000).await.unwrap();
    }
    let entries = next(&one, 10).await;
    one.settle(&seqs(&entries), Outcome::Delivered);
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let full = world.journal().status().size;
    while world.journal().status().size >= full {
        assert!(std::time::Instant::now() < until, "it is removed");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let segments = world.events.names(".log");
    assert_eq!(segments.len(), 1, "one that is empty");
    world.emit(&["one"], 0).await.unwrap();
    assert_eq!(ids(&next(&one, 10).await), [4]);
}

#[tokio::test]
async fn what_is_larger_than_the_journal_is_told_so() {
    let mut world = World::new(15);
    drop(world.feed("one"));
    let error = world.emit(&["one"], 2 << 20).await.unwrap_err();
    assert!(
        matches!(error, PublishError::BatchTooLarge { .. }),
        "{error}"
    );
    world.emit(&["one"], 0).await.unwrap();
}
