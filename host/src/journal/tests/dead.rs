//! Dead letters: kept over a restart, found, put back, dropped, bounded.

use super::*;

fn of_ids(ids: &[u64]) -> DeadFilter {
    DeadFilter {
        ids: ids.to_vec(),
        ..DeadFilter::default()
    }
}

fn letter_ids(page: &DeadPage) -> Vec<u64> {
    page.letters.iter().map(|letter| letter.id).collect()
}

#[tokio::test]
async fn letters_are_found_by_what_they_are() {
    let mut world = World::new(20);
    drop(bury(&mut world, 5, 0).await);
    drop(world.journal.take());
    world.open();
    let all = world.letters();
    assert_eq!((all.letters.len(), all.total, all.next), (5, 5, None));
    let letter = &all.letters[1];
    assert_eq!(
        (&*letter.backend, &*letter.error, letter.attempts),
        ("one", "no", 3)
    );
    assert_eq!(id_of(&letter.event), 2);
    assert!(letter.first_try <= letter.last_try);
    assert_eq!(world.journal().backends()[0].dead_letters, 5);
    let count = |filter: DeadFilter| {
        let page = world.journal().dead_letters(&filter, 0, 100).unwrap();
        assert_eq!(page.total, page.letters.len() as u64);
        page.total
    };
    let any = DeadFilter::default;
    let with_type = |pattern: &str| Some(pattern.parse().unwrap());
    let backend = |name: &str| Some(name.to_owned());
    assert_eq!(
        count(DeadFilter {
            backend: backend("one"),
            ..any()
        }),
        5
    );
    assert_eq!(
        count(DeadFilter {
            backend: backend("two"),
            ..any()
        }),
        0
    );
    assert_eq!(
        count(DeadFilter {
            event_type: with_type("t"),
            ..any()
        }),
        5
    );
    assert_eq!(
        count(DeadFilter {
            event_type: with_type("x:*"),
            ..any()
        }),
        0
    );
    let last_try = Some(letter.last_try);
    assert!(
        count(DeadFilter {
            before: last_try,
            ..any()
        }) < 5
    );
    assert_eq!(count(of_ids(&letter_ids(&all)[1..3])), 2);
}

#[tokio::test]
async fn pages_follow_one_another() {
    let mut world = World::new(21);
    drop(bury(&mut world, 7, 0).await);
    let (mut after, mut found) = (Some(0), Vec::new());
    while let Some(from) = after {
        let page = world
            .journal()
            .dead_letters(&DeadFilter::default(), from, 3);
        let page = page.unwrap();
        assert_eq!(page.total, 7);
        found.push(page.letters.len());
        after = page.next;
    }
    assert_eq!(found, [3, 3, 1]);
}

#[tokio::test]
async fn a_letter_that_is_retried_is_an_event_again_and_no_letter() {
    let mut world = World::new(22);
    let one = bury(&mut world, 3, 0).await;
    let second = world.letters().letters[1].id;
    let journal = world.journal().clone();
    assert_eq!(journal.retry_dead(&of_ids(&[second])).await.unwrap(), 1);
    assert_eq!(ids(&next(&one, 10).await), [2]);
    assert_eq!(world.letters().total, 2);
    assert_eq!(journal.retry_dead(&of_ids(&[second])).await.unwrap(), 0);
    assert_eq!(journal.retry_dead(&DeadFilter::default()).await.unwrap(), 2);
    assert_eq!(ids(&next(&one, 10).await), [1, 3]);
    let counts = world.counts("one");
    assert_eq!((counts.accepted, counts.dead, counts.pending()), (6, 3, 3));
}

#[tokio::test]
async fn a_letter_that_does_not_fit_into_the_journal_stays_one() {
    let mut world = World::new(23);
    drop(bury(&mut world, 3, 1000).await);
    let two = world.feed("two");
    while world.emit(&["two"], 30_000).await.is_ok() {}
    while world.emit(&["two"], 100).await.is_ok() {}
    let error = world.journal().retry_dead(&DeadFilter::default()).await;
    assert!(
        matches!(error, Err(PublishError::QueueFull { .. })),
        "{error:?}"
    );
    assert_eq!(world.letters().total, 3);
    drop(two);
}

#[tokio::test]
async fn the_room_of_letters_is_bounded_and_comes_back() {
    let mut world = World::new(24);
    let one = world.feed("one");
    let mut kept = 0;
    // A quarter of a mebibyte.
    let (full, left_over) = loop {
        world.emit(&["one"], 10_000).await.unwrap();
        let entries = next(&one, 1).await;
        if let Err(reason) = one.bury(&burials(&entries)).await {
            break (reason, entries);
        }
        one.settle(&seqs(&entries), Outcome::Dead);
        kept += 1;
    };
    assert!((25..30).contains(&kept), "{kept}");
    assert!(
        full.contains("backhaul dead") && full.contains("256 KiB"),
        "{full}"
    );
    // All but one in the middle are dropped, over and over: what is left is kept.
    let letters = letter_ids(&world.letters());
    let last = letters[letters.len() / 2];
    let others: Vec<u64> = letters.into_iter().filter(|id| *id != last).collect();
    world.journal().drop_dead(&of_ids(&others)).await.unwrap();
    one.settle(&seqs(&left_over), Outcome::Delivered);
    for _ in 0..200 {
        world.emit(&["one"], 10_000).await.unwrap();
        let entries = next(&one, 1).await;
        one.bury(&burials(&entries)).await.unwrap();
        one.settle(&seqs(&entries), Outcome::Dead);
        let newest = world.letters().letters.pop().unwrap().id;
        world.journal().drop_dead(&of_ids(&[newest])).await.unwrap();
    }
    assert_eq!(letter_ids(&world.letters()), [last]);
    let on_disk: usize = world
        .dead
        .names(".log")
        .iter()
        .map(|name| world.dead.bytes(name).len())
        .sum();
    assert!(on_disk < 512 << 10, "{on_disk}");
    drop(one);
    drop(world.journal.take());
    world.open();
    assert_eq!(letter_ids(&world.letters()), [last], "under its id");
}

#[tokio::test]
async fn what_a_letter_says_is_settled_although_its_position_is_lost() {
    let mut world = World::new(25);
    let one = bury(&mut world, 3, 0).await;
    world.emit(&["one"], 0).await.unwrap();
    drop(one);
    drop(world.journal.take());
    for position in world.positions.names(".position") {
        world.positions.remove_file(&position);
    }
    world.open();
    assert_eq!(ids(&next(&world.feed("one"), 10).await), [4]);
    let counts = world.counts("one");
    assert_eq!((counts.accepted, counts.dead, counts.pending()), (4, 3, 1));
}

#[tokio::test]
async fn damage_to_the_letters_costs_those_it_hit() {
    let mut world = World::new(26);
    drop(bury(&mut world, 20, 100).await);
    drop(world.journal.take());
    let segment = world.dead.names(".log").remove(0);
    let middle = world.dead.bytes(&segment).len() as u64 / 2;
    world.dead.flip_bit(&segment, middle, 3);
    world.open();
    let left = world.letters().total;
    // They were written together: one group is what a flipped bit can cost.
    assert!(left < 20, "{left}");
    let one = world.feed("one");
    world.emit(&["one"], 0).await.unwrap();
    assert_eq!(
        ids(&next(&one, 10).await),
        [21],
        "and they do not come again"
    );
}
