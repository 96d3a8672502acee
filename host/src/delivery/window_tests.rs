use futures_util::FutureExt;
use jiff::Timestamp;

use super::*;
use crate::backend::PublishError;
use crate::event::Event;

const WHOLE: Mode = Mode::Whole;

fn events(count: usize) -> Vec<Event> {
    (0..count)
        .map(|n| Event::new(format!("t{n}"), vec![0; 1000]).unwrap())
        .collect()
}

/// Events whose types are `names`, and whose subjects are the first letters.
fn keyed(names: &[&str]) -> Vec<Event> {
    let event = |name: &&str| {
        let event = Event::builder(name.to_string());
        match name.starts_with('-') {
            true => event.build().unwrap(),
            false => event.subject(&name[..1]).build().unwrap(),
        }
    };
    names.iter().map(event).collect()
}

fn full(capacity: usize) -> PublishError {
    PublishError::QueueFull {
        backend: "test".into(),
        limit: format!("{capacity} events"),
    }
}

fn push(window: &Window, events: Vec<Event>) -> Result<(), PublishError> {
    let reservation = window.reserve(&events)?;
    window.push(reservation, events);
    Ok(())
}

/// What can be taken now, if anything.
fn take_now(window: &Window, events: usize, bytes: usize, mode: Mode) -> Option<Batch> {
    let limits = Limits {
        events,
        bytes,
        mode,
    };
    window.take(|_| Some(limits)).now_or_never().flatten()
}

fn types(batch: Option<Batch>) -> Vec<String> {
    let batch = batch.expect("something to take");
    let types = batch.events.iter().map(|e| e.event_type().to_owned());
    types.collect()
}

/// Notes that all of a batch is delivered.
fn finish(window: &Window, mut batch: Batch) {
    let mut settled = Settled::default();
    let mode = batch.mode;
    for item in batch.drain(batch.len()) {
        settled.add(&item);
    }
    window.settle(settled, Some(mode));
}

#[test]
fn events_come_out_in_order_and_in_batches_of_what_is_there() {
    let window = Window::new("test", 10, 1 << 20);
    push(&window, events(5)).unwrap();
    let first = take_now(&window, 3, usize::MAX, WHOLE).unwrap();
    finish(&window, first);
    assert_eq!(types(take_now(&window, 3, usize::MAX, WHOLE)), ["t3", "t4"]);
}

#[test]
fn nobody_takes_anything_while_another_keeps_the_order_of_all() {
    let window = Window::new("test", 10, 1 << 20);
    push(&window, events(5)).unwrap();
    let first = take_now(&window, 2, usize::MAX, WHOLE).unwrap();
    assert!(take_now(&window, 2, usize::MAX, WHOLE).is_none());
    assert!(take_now(&window, 2, usize::MAX, Mode::ByKey).is_none());
    finish(&window, first);
    let second = take_now(&window, 2, usize::MAX, Mode::ByKey).unwrap();
    assert!(take_now(&window, 2, usize::MAX, WHOLE).is_none());
    finish(&window, second);
    assert_eq!(types(take_now(&window, 2, usize::MAX, WHOLE)), ["t4"]);
}

#[test]
fn a_worker_takes_the_oldest_events_whose_key_no_other_worker_holds() {
    let window = Window::new("test", 20, 1 << 20);
    push(
        &window,
        keyed(&["a1", "b1", "a2", "-1", "b2", "c1", "-2", "a3"]),
    )
    .unwrap();
    let by_key = |events| take_now(&window, events, usize::MAX, Mode::ByKey);
    let first = by_key(2).unwrap();
    assert_eq!(first.events[1].event_type(), "b1");
    let second = by_key(2).unwrap();
    assert_eq!(second.events[0].event_type(), "-1");
    assert_eq!(second.events[1].event_type(), "c1");
    assert_eq!(types(by_key(9)), ["-2"]);
    assert!(by_key(9).is_none(), "the rest waits for the first worker");
    finish(&window, first);
    assert_eq!(
        types(by_key(9)),
        ["a2", "b2", "a3"],
        "one may hold many of a key"
    );
}

#[test]
fn a_key_is_free_when_the_last_of_its_events_is_settled() {
    let window = Window::new("test", 20, 1 << 20);
    push(&window, keyed(&["a1", "a2", "a3"])).unwrap();
    let by_key = |events| take_now(&window, events, usize::MAX, Mode::ByKey);
    let mut first = by_key(2).unwrap();
    for left in [1, 0] {
        assert!(by_key(9).is_none());
        let mut settled = Settled::default();
        settled.add(&first.drain(1).next().unwrap());
        window.settle(settled, (left == 0).then_some(Mode::ByKey));
    }
    assert_eq!(types(by_key(9)), ["a3"]);
    assert_eq!(
        window.state().keys.len(),
        1,
        "and no key is kept for nothing"
    );
}

#[tokio::test]
async fn a_worker_that_waits_for_a_key_is_woken_when_it_is_free() {
    let window = Window::new("test", 20, 1 << 20);
    push(&window, keyed(&["a1", "a2"])).unwrap();
    let first = take_now(&window, 1, usize::MAX, Mode::ByKey).unwrap();
    let limits = Limits {
        events: 9,
        bytes: usize::MAX,
        mode: Mode::ByKey,
    };
    let mut waits = std::pin::pin!(window.take(|_| Some(limits)));
    assert!(waits.as_mut().now_or_never().is_none());
    finish(&window, first);
    assert_eq!(types(waits.await), ["a2"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_put_aside_comes_back_when_it_is_due_or_when_order_is_wanted() {
    let window = Window::new("test", 20, 1 << 20);
    push(&window, events(3)).unwrap();
    let aside = |count| {
        let mut batch = take_now(&window, count, usize::MAX, Mode::Any).unwrap();
        let due = Instant::now() + std::time::Duration::from_secs(9);
        let items = batch.drain(count).map(|item| (due, item)).collect();
        window.put_aside(items);
        window.settle(Settled::default(), Some(Mode::Any));
    };
    aside(2);
    assert_eq!(window.len(), 3, "it keeps its place");
    let third = take_now(&window, 9, usize::MAX, Mode::Any).unwrap();
    assert_eq!(third.events[0].event_type(), "t2");
    let began = Instant::now();
    let limits = Limits {
        events: 1,
        bytes: usize::MAX,
        mode: Mode::Any,
    };
    assert!(window.take(|_| Some(limits)).await.is_some());
    assert_eq!(began.elapsed().as_secs(), 9);

    finish(&window, third);
    push(&window, events(2)).unwrap();
    aside(3);
    window.close();
    assert_eq!(
        window.state().aside.len(),
        0,
        "at the end nothing is waited for"
    );
    let rest = take_now(&window, 9, usize::MAX, Mode::Any).unwrap();
    let seqs: Vec<_> = rest.about.iter().map(|about| about.seq).collect();
    assert!(seqs.is_sorted() && seqs.len() == 3, "{seqs:?}");
}

#[test]
fn a_batch_is_bounded_in_bytes_but_never_empty() {
    for mode in [WHOLE, Mode::ByKey] {
        let window = Window::new("test", 10, 1 << 20);
        push(&window, events(5)).unwrap();
        let first = take_now(&window, 10, 3500, mode).unwrap();
        assert_eq!(first.len(), 2);
        finish(&window, first);
        assert_eq!(take_now(&window, 10, 1, mode).unwrap().len(), 1);
    }
}

#[test]
fn a_place_is_free_again_only_when_the_event_is_settled() {
    let window = Window::new("test", 2, 1 << 20);
    push(&window, events(2)).unwrap();
    let batch = take_now(&window, 2, usize::MAX, WHOLE).unwrap();
    assert_eq!(push(&window, events(1)), Err(full(2)));
    finish(&window, batch);
    drop(window.reserve(&events(2)).unwrap());
    assert!(
        push(&window, events(2)).is_ok(),
        "a dropped reservation is free again"
    );
}

#[test]
fn bytes_are_bounded_too_and_what_never_fits_is_refused_for_good() {
    let window = Window::new("test", 100, 5000);
    push(&window, events(3)).unwrap();
    assert_eq!(push(&window, events(2)), Err(full(100)));
    assert!(matches!(
        push(&window, events(9)),
        Err(PublishError::BatchTooLarge { .. })
    ));
}

#[tokio::test]
async fn who_reads_ahead_waits_for_room() {
    let window = Window::new("test", 3, 1 << 20);
    assert_eq!(window.room().await, (3, 1 << 20));
    let items = |range: std::ops::Range<u64>| {
        range.map(|n| Item::new(Event::new("t", "").unwrap(), n, Timestamp::now()))
    };
    window.fill(items(1..4));
    let mut room = std::pin::pin!(window.room());
    assert!(room.as_mut().now_or_never().is_none());
    let batch = take_now(&window, 2, usize::MAX, WHOLE).unwrap();
    assert!(room.as_mut().now_or_never().is_none());
    finish(&window, batch);
    assert_eq!(room.await.0, 2);
}

#[tokio::test]
async fn a_closed_window_ends_only_after_open_reservations() {
    let window = Window::new("test", 10, 1 << 20);
    let batch = events(1);
    let reservation = window.reserve(&batch).unwrap();
    window.close();
    assert_eq!(push(&window, events(1)), Err(PublishError::Closed));
    let limits = Limits {
        events: 1,
        bytes: usize::MAX,
        mode: WHOLE,
    };
    let mut end = std::pin::pin!(window.take(|_| Some(limits)));
    assert!(end.as_mut().now_or_never().is_none());
    window.push(reservation, batch);
    let last = end.await.unwrap();
    assert_eq!(last.len(), 1);
    finish(&window, last);
    assert!(window.take(|_| Some(limits)).await.is_none());
}
