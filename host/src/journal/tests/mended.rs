//! What once went wrong, case by case.

use super::super::model_disk::{Fault, Rng};
use super::*;

/// Emits what may be refused until the writer has made room.
async fn emit_soon(world: &mut World, size: usize) {
    let until = std::time::Instant::now() + Duration::from_secs(10);
    while world.emit(&["one"], size).await.is_err() {
        assert!(std::time::Instant::now() < until, "there is room");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn wait_upkeep() {
    tokio::time::sleep(Duration::from_millis(1500)).await;
}

async fn damaged_then_restart(seed: u64) -> World {
    let mut world = World::new(seed);
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
    let handed = next(&one, 80).await;
    one.settle(&seqs(&handed), Outcome::Delivered);
    drop(one);
    drop(world.journal.take());
    world.open();
    world
}

#[tokio::test]
async fn what_is_settled_makes_room_for_a_large_event() {
    let mut world = World::new(101);
    let one = world.feed("one");
    world.emit(&["one"], 600_000).await.unwrap();
    let e = next(&one, 10).await;
    one.settle(&seqs(&e), Outcome::Delivered);
    assert_eq!(world.counts("one").pending(), 0);
    emit_soon(&mut world, 600_000).await;
    drop(one);
    let one = world.feed("one");
    let entries = next(&one, 10).await;
    one.settle(&seqs(&entries), Outcome::Delivered);
    drop(one);
    drop(world.journal.take());
    world.open();
    emit_soon(&mut world, 600_000).await;
}

#[tokio::test]
async fn a_backend_that_never_met_its_first_event_holds_nothing_when_it_is_away() {
    let mut world = World::new(102);
    let one = world.feed("one");
    let rare = world
        .journal()
        .enter("rare", StartAt::Oldest, &["rare".parse().unwrap()])
        .unwrap();
    let feed = JournalFeed::new(world.journal().clone(), rare);
    assert!(has_nothing(&feed).await);
    feed.release().await;
    drop(feed);
    for n in 0..200 {
        let e = world.emit(&["one"], 20_000).await;
        if e.is_err() {
            tokio::time::sleep(Duration::from_millis(2500)).await;
            let again = world.emit(&["one"], 20_000).await;
            panic!(
                "at {n}: {e:?} then {again:?}; pending of rare {} of one {}",
                world.counts("rare").pending(),
                world.counts("one").pending()
            );
        }
        let e = next(&one, 10).await;
        one.settle(&seqs(&e), Outcome::Delivered);
    }
}

#[tokio::test]
async fn damage_that_was_met_is_written_off_after_a_restart_too() {
    let world = damaged_then_restart(103).await;
    let one = world.feed("one");
    let handed = next(&one, 1000).await;
    one.settle(&seqs(&handed), Outcome::Delivered);
    let counts = world.counts("one");
    assert_eq!(
        (
            counts.accepted,
            counts.delivered,
            counts.dropped_unreadable,
            counts.pending()
        ),
        (100, 99, 1, 0)
    );
}

#[tokio::test]
async fn a_retry_of_nothing_says_nothing_of_the_disk() {
    let mut world = World::new(105);
    let _one = world.feed("one");
    world.emit(&["one"], 0).await.unwrap();
    world.events.set_full(true);
    world.emit(&["one"], 0).await.unwrap_err();
    assert_eq!(world.journal().status().state, JournalState::Failing);
    world
        .journal()
        .retry_dead(&DeadFilter::default())
        .await
        .unwrap();
    assert_eq!(world.journal().status().state, JournalState::Failing);
}

#[tokio::test]
async fn a_letter_of_the_history_is_counted_once() {
    let mut world = World::new(106);
    let one = world.feed("one");
    for _ in 0..3 {
        world.emit(&["one"], 0).await.unwrap();
    }
    drop(one);
    let b = world
        .journal()
        .enter("old", StartAt::Oldest, &["t".parse().unwrap()])
        .unwrap();
    let old = JournalFeed::new(world.journal().clone(), b);
    let handed = next(&old, 1).await;
    // Killed between: keep the position file as it is now.
    let before = world.positions.bytes("old.position");
    old.bury(&burials(&handed)).await.unwrap();
    drop(old);
    drop(world.journal.take());
    world
        .positions
        .change("old.position", |bytes| *bytes = before);
    world.open();
    let old = world.feed("old");
    let handed = next(&old, 100).await;
    assert_eq!(ids(&handed), [2, 3]);
    old.settle(&seqs(&handed), Outcome::Delivered);
    let counts = world.counts("old");
    assert_eq!(
        (
            counts.accepted,
            counts.delivered,
            counts.dead,
            counts.pending()
        ),
        (3, 2, 1, 0)
    );
}

#[tokio::test]
async fn nothing_is_removed_whose_settlement_is_not_on_disk() {
    let mut world = World::new(110);
    let one = world.feed("one");
    for _ in 0..5 {
        world.emit(&["one"], 10).await.unwrap();
    }
    wait_upkeep().await;
    world.positions.fail_several_in(0, u64::MAX, Fault::Io);
    for _ in 0..60 {
        if world.emit(&["one"], 20_000).await.is_err() {
            break;
        }
        let e = next(&one, 10).await;
        one.settle(&seqs(&e), Outcome::Delivered);
    }
    wait_upkeep().await;
    let st = world.journal().status();
    assert_eq!(st.state, JournalState::Failing);
    drop(one);
    drop(world.journal.take());
    world.positions.heal();
    world.open();
    let one = world.feed("one");
    while !has_nothing(&one).await {
        let e = next(&one, 100).await;
        one.settle(&seqs(&e), Outcome::Delivered);
    }
    assert!(
        st.oldest <= 6,
        "records went whose settlement was not on disk"
    );
}

#[tokio::test]
async fn a_whole_record_that_is_no_event_is_counted() {
    let mut world = World::new(111);
    let one = world.feed("one");
    world.emit(&["one"], 10).await.unwrap();
    drop(one);
    drop(world.journal.take());
    {
        let (mut log, _) = Log::open(
            Arc::new(world.events.clone()),
            LogOptions {
                segment_bytes: 1 << 17,
            },
        )
        .unwrap();
        log.push(|to| {
            to.push(2);
            to.extend([0; 40]);
        });
        log.commit().unwrap();
    }
    world.open();
    world.emit(&["one"], 10).await.unwrap();
    let one = world.feed("one");
    let handed = next(&one, 1).await;
    one.settle(&seqs(&handed), Outcome::Delivered);
    let handed = next(&one, 1).await;
    one.settle(&seqs(&handed), Outcome::Delivered);
    assert_eq!(
        world.journal().status().unreadable,
        1,
        "it is silently skipped"
    );
}

#[tokio::test]
async fn a_position_that_was_synced_outlives_a_power_cut() {
    let mut lost = 0;
    for seed in 0..80u64 {
        let mut world = World::new(1000 + seed);
        let one = world.feed("one");
        for _ in 0..2000 {
            world.emit(&["one"], 10).await.unwrap();
        }
        let handed = seqs(&next(&one, 2000).await);
        // Every second one is settled: that takes some sectors to say.
        let odd: Vec<u64> = handed.iter().skip(1).copied().step_by(2).collect();
        one.settle(&odd[..990], Outcome::Delivered);
        world.journal().inner().sync_all_positions().unwrap();
        // All of these within a second.
        for s in &odd[990..] {
            one.settle(&[*s], Outcome::Delivered);
        }
        let mut rng = Rng::new(seed + 1);
        for disk in [&world.positions, &world.events, &world.dead] {
            disk.cut_power(&mut rng);
        }
        drop(one);
        drop(world.journal.take());
        for disk in [&world.positions, &world.events, &world.dead] {
            disk.heal();
        }
        world.open();
        if world.counts("one").delivered < 990 {
            lost += 1;
        }
    }
    assert_eq!(lost, 0);
    let _ = Fault::Io;
}

#[tokio::test]
async fn a_flipped_bit_in_the_list_of_backends_loses_nothing() {
    let mut world = World::new(116);
    drop(world.feed("one"));
    let two = world.feed("two");
    let a = world.emit(&["one"], 10).await.unwrap();
    drop(two);
    drop(world.journal.take());
    world.positions.change("backends.json", |b| {
        let at = b.windows(5).position(|w| w == b"\"one\"").unwrap();
        b[at + 3] ^= 1; // "one" -> "ond"
    });
    world.open();
    let two = world.feed("two");
    // `one` takes what it has, and is away for a moment.
    let one = world.feed("one");
    let h = next(&one, 10).await;
    one.settle(&seqs(&h), Outcome::Delivered);
    assert_eq!(ids(&h), [a]);
    one.release().await;
    drop(one);
    let first = world.emit(&["one"], 10).await.unwrap();
    wait_upkeep().await;
    let one = world.feed("one");
    let handed = tokio::time::timeout(Duration::from_secs(1), next(&one, 10)).await;
    drop(two);
    assert_eq!(
        handed.map(|h| ids(&h)).unwrap_or_default(),
        [first],
        "an accepted event is gone"
    );
}

#[test]
fn backends_that_are_entered_at_once_are_all_known() {
    for round in 0..200 {
        let world = World::new(109 + round);
        let journal = world.journal().clone();
        std::thread::scope(|s| {
            for n in 0..8 {
                let journal = &journal;
                s.spawn(move || journal.enter(&format!("b{n}"), StartAt::Now, &[]).unwrap());
            }
        });
        let by_id = journal.inner().by_id.load();
        for n in 0..8 {
            let id = journal.backend_id(&format!("b{n}")).unwrap();
            assert!(
                by_id.get(usize::from(id.0)).is_some_and(|b| b.is_some()),
                "round {round}: b{n} is not known by its number"
            );
        }
    }
}

#[tokio::test]
async fn one_event_that_stays_costs_no_other_a_second_delivery() {
    let mut world = World::new(107);
    world.options.size = 1 << 30;
    drop(world.journal.take());
    world.open();
    let one = world.feed("one");
    let targets: Targets = [world.journal().backend_id("one").unwrap()].into();
    let mut stays = None;
    for round in 0..100 {
        let event = |n: u64| Event::new("t", (round * 1000 + n).to_be_bytes().to_vec()).unwrap();
        let records = (0..1000).map(|n| (event(n), targets.clone()));
        world.journal().append(records.collect()).await.unwrap();
        let mut left = 1000;
        while left > 0 {
            let mut seqs = seqs(&next(&one, 250).await);
            left -= seqs.len();
            if stays.is_none() {
                stays = Some(seqs.remove(0));
            }
            one.settle(&seqs, Outcome::Delivered);
        }
    }
    for _ in 0..2 {
        drop(world.journal.take());
        world.open();
        let one = world.feed("one");
        let again = next(&one, 10_000).await;
        assert_eq!(seqs(&again), [stays.unwrap()]);
        assert!(has_nothing(&one).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn letters_under_way_are_waited_for_by_the_next_feed() {
    let world = World::new(117);
    let journal = world.journal().clone();
    struct Never;
    #[async_trait::async_trait]
    impl AsyncBackend for Never {
        async fn publish(&self, events: &[Event]) -> Result<(), Vec<crate::backend::Failure>> {
            Err(crate::backend::Failure::all(
                events.len(),
                &PublishError::Permanent("never".into()),
            ))
        }
        async fn close(&self, _: Duration) -> Result<(), crate::backend::CloseError> {
            Ok(())
        }
        fn name(&self) -> &str {
            "one"
        }
    }
    let d = journal
        .delivery(Never, DeliveryOptions::default(), StartAt::Now, &[])
        .unwrap();
    let targets: Targets = [journal.backend_id("one").unwrap()].into();
    // The dead letters' disk is slow: somebody else has the store.
    let (store, held) = std::sync::mpsc::channel::<()>();
    let holder = journal.clone();
    let holding = std::thread::spawn(move || {
        let _store = lock(&holder.inner().dead.store);
        let _ = held.recv();
    });
    journal
        .append(vec![(
            Event::new("t", 7u64.to_be_bytes().to_vec()).unwrap(),
            targets,
        )])
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let closing = tokio::spawn(async move { d.close(Duration::from_millis(300)).await });
    tokio::time::sleep(Duration::from_millis(800)).await;
    drop(store);
    holding.join().unwrap();
    closing.await.unwrap().unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    let one = world.feed("one");
    let handed = tokio::time::timeout(Duration::from_secs(1), next(&one, 10))
        .await
        .map(|h| ids(&h))
        .unwrap_or_default();
    assert!(
        handed.is_empty() || world.letters().total == 0,
        "a dead letter, and pending as well"
    );
}
