//! Deliveries with a feed, case by case. What holds whatever happens is in
//! `model`.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};

use super::test_feed::TestFeed;
use super::{BreakerState, Delivery, DeliveryOptions};
use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::event::Event;
use crate::mock::MockBackend;
use crate::retry::RetryPolicy;

const GRACE: Duration = Duration::from_secs(10);

fn quick() -> DeliveryOptions {
    DeliveryOptions {
        retry: RetryPolicy {
            first_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(5),
            ..RetryPolicy::default()
        },
        ..DeliveryOptions::default()
    }
}

fn events(range: std::ops::Range<usize>) -> Vec<Event> {
    let event = |n: usize| Event::builder("t").id(n.to_string()).build().unwrap();
    range.map(event).collect()
}

fn ids(events: &[Event]) -> Vec<usize> {
    let id = |event: &Event| event.id().parse().unwrap();
    events.iter().map(id).collect()
}

fn away() -> PublishError {
    PublishError::Retryable("away".into())
}

fn feed_with(count: usize) -> Arc<TestFeed> {
    let feed = Arc::new(TestFeed::default());
    feed.accept(events(0..count), Timestamp::now());
    feed
}

/// Fails as the function says, which is asked about each event.
struct Judge<F> {
    fails: F,
    taken: MockBackend,
    offers: Mutex<Vec<Vec<usize>>>,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl<F: Fn(usize) -> Option<PublishError> + Send + Sync + 'static> Judge<F> {
    fn new(fails: F) -> Arc<Judge<F>> {
        Arc::new(Judge {
            fails,
            taken: MockBackend::default(),
            offers: Mutex::default(),
            at_once: AtomicUsize::new(0),
            most_at_once: AtomicUsize::new(0),
        })
    }
}

#[async_trait]
impl<F: Fn(usize) -> Option<PublishError> + Send + Sync + 'static> AsyncBackend for Judge<F> {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        self.offers.lock().unwrap().push(ids(events));
        let at_once = self.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(1)).await;
        let mut failures = Vec::new();
        for (index, event) in events.iter().enumerate() {
            match (self.fails)(event.id().parse().unwrap()) {
                Some(error) => failures.push(Failure { index, error }),
                None => self.taken.publish(std::slice::from_ref(event)).await?,
            }
        }
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match failures.is_empty() {
            true => Ok(()),
            false => Err(failures),
        }
    }

    async fn close(&self, _: Duration) -> Result<(), CloseError> {
        Ok(())
    }

    fn name(&self) -> &str {
        "judge"
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_feed_has_is_delivered_without_an_emit_and_in_order() {
    let (feed, mock) = (feed_with(1000), MockBackend::default());
    let options = DeliveryOptions {
        queue: 100,
        ..quick()
    };
    let delivery = Delivery::fed(mock.clone(), options, feed.clone());
    feed.all_settled().await;
    delivery.publish(&events(1000..1010)).await.unwrap();
    feed.all_settled().await;
    assert_eq!(ids(&mock.published()), (0..1010).collect::<Vec<_>>());
    let stats = delivery.stats();
    assert_eq!((stats.accepted, stats.delivered), (1010, 1010));
    assert_eq!(delivery.latency().count, 1010);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_in_memory_than_the_window_holds() {
    let (feed, mock) = (feed_with(100), MockBackend::default());
    mock.stall();
    let options = DeliveryOptions {
        queue: 10,
        batch: 4,
        ..quick()
    };
    let delivery = Delivery::fed(mock.clone(), options, feed.clone());
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((feed.store().handed_out, delivery.queue_len()), (10, 6));
    assert_eq!(delivery.stats().pending, 100);
    mock.resume();
    feed.all_settled().await;
}

#[tokio::test(start_paused = true)]
async fn what_was_not_read_yet_is_delivered_before_the_end_if_there_is_time() {
    let feed = feed_with(100);
    let backend = Arc::new(MockBackend::default());
    let options = DeliveryOptions {
        queue: 2,
        batch: 1,
        ..quick()
    };
    let delivery = Delivery::fed(backend.clone(), options, feed.clone());
    delivery.close(GRACE).await.unwrap();
    assert_eq!(ids(&backend.published()), (0..100).collect::<Vec<_>>());
    assert_eq!(delivery.stats().pending, 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_left_at_the_end_stays_with_the_feed_and_is_no_error() {
    let (feed, mock) = (feed_with(20), MockBackend::default());
    let options = DeliveryOptions {
        batch: 5,
        ..quick()
    };
    mock.stall();
    let delivery = Delivery::fed(mock.clone(), options, feed.clone());
    assert_eq!(delivery.close(Duration::from_millis(50)).await, Ok(()));
    assert!(mock.is_closed());
    let stats = delivery.stats();
    assert_eq!((stats.pending, stats.dropped.total()), (20, 0));
    let refused = delivery.publish(&events(0..1)).await.unwrap_err();
    assert_eq!(refused, Failure::all(1, &PublishError::Closed));
    drop(delivery);

    feed.crash();
    mock.resume();
    let delivery = Delivery::fed(mock.clone(), options, feed.clone());
    tokio::task::yield_now().await;
    assert_eq!(
        delivery.close(GRACE).await,
        Ok(()),
        "what is in memory is delivered first"
    );
    assert_eq!(ids(&mock.published()), (0..20).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_backend_that_was_closed_is_the_end_of_no_event() {
    let feed = feed_with(5);
    let closed = Arc::new(AtomicUsize::new(10));
    let left = closed.clone();
    let judge = Judge::new(move |_| {
        let closed = left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
        closed.is_ok().then_some(PublishError::Closed)
    });
    let mut options = quick();
    options.retry.max_attempts = Some(1);
    options.retry.max_age = Some(Duration::ZERO);
    let delivery = Delivery::fed(judge.clone(), options, feed.clone());
    feed.all_settled().await;
    let stats = delivery.stats();
    assert_eq!((stats.delivered, stats.dead), (5, 0));
    assert!(stats.retries > 0);
}

#[tokio::test(start_paused = true)]
async fn a_dead_letter_is_settled_only_when_it_is_kept() {
    let feed = feed_with(3);
    feed.store().disk_full = 4;
    let judge = Judge::new(|id| (id == 1).then_some(PublishError::Permanent("no".into())));
    let delivery = Delivery::fed(judge.clone(), quick(), feed.clone());
    while feed.store().disk_full > 0 {
        assert!(feed.store().unsettled.contains_key(&2));
        assert_eq!(delivery.stats().dead, 0);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    feed.all_settled().await;
    let stats = delivery.stats();
    assert_eq!((stats.delivered, stats.dead), (2, 1));
    let letters = feed.store().buried.clone();
    assert_eq!((letters[0].seq, letters[0].attempts), (2, 1));
    assert_eq!(letters[0].error, "no");
    assert_eq!(
        *judge.offers.lock().unwrap(),
        [[0, 1, 2]],
        "it was refused once"
    );
}

#[tokio::test(start_paused = true)]
async fn the_letter_knows_of_every_try() {
    let feed = feed_with(1);
    let mut options = quick();
    options.retry.max_attempts = Some(4);
    let before = Timestamp::now();
    let _delivery = Delivery::fed(Judge::new(|_| Some(away())), options, feed.clone());
    feed.all_settled().await;
    let letter = feed.store().buried[0].clone();
    assert_eq!((letter.attempts, letter.error.as_str()), (4, "away"));
    assert!(before <= letter.first_try && letter.first_try < letter.last_try);
}

#[tokio::test(start_paused = true)]
async fn what_is_too_old_is_tried_once_and_no_more() {
    let feed = Arc::new(TestFeed::default());
    let long_ago = Timestamp::now() - SignedDuration::from_hours(2);
    feed.accept(events(0..4), long_ago);
    feed.accept(events(4..6), Timestamp::now());
    let mut options = quick();
    options.retry.max_age = Some(Duration::from_secs(3600));
    let first = AtomicUsize::new(0);
    let judge = Judge::new(move |id| {
        let again = first.fetch_add(1, Ordering::SeqCst) >= 6;
        (id != 0 && !again).then(away)
    });
    let delivery = Delivery::fed(judge.clone(), options, feed.clone());
    feed.all_settled().await;
    assert_eq!(ids(&judge.taken.published()), [0, 4, 5]);
    let stats = delivery.stats();
    assert_eq!((stats.delivered, stats.dead), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn without_order_an_event_that_fails_holds_up_no_other() {
    let feed = feed_with(100);
    let judge = Judge::new(|id| (id == 3).then(away));
    let options = DeliveryOptions {
        ordered: false,
        batch: 10,
        queue: 20,
        ..quick()
    };
    let delivery = Delivery::fed(judge.clone(), options, feed.clone());
    judge.taken.wait_for(99).await;
    assert_eq!(delivery.stats().pending, 1);
    let before = judge.offers.lock().unwrap().len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let offers = judge.offers.lock().unwrap();
    assert!(offers[before..].iter().all(|offer| offer == &[3]));
    assert!(offers.len() > before + 5, "and it is tried again");
}

#[tokio::test(start_paused = true)]
async fn workers_of_a_backend_that_takes_nothing_take_turns_with_one_event() {
    let feed = feed_with(400);
    let back = Arc::new(AtomicUsize::new(0));
    let is_back = back.clone();
    let judge = Judge::new(move |_| (is_back.load(Ordering::SeqCst) == 0).then(away));
    let options = DeliveryOptions {
        workers: 4,
        batch: 50,
        ..quick()
    };
    let delivery = Delivery::fed(judge.clone(), options, feed.clone());
    while delivery.stats().breaker == BreakerState::Closed {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let stats = delivery.stats();
    assert_eq!(stats.last_error.as_deref(), Some("away"));
    assert!(stats.failing_since.is_some());
    // What was under way when it opened.
    tokio::time::sleep(Duration::from_millis(20)).await;
    let before = judge.offers.lock().unwrap().len();
    judge.most_at_once.store(0, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let offers = judge.offers.lock().unwrap()[before..].to_vec();
    assert!(offers.iter().all(|offer| offer.len() == 1));
    let different: std::collections::BTreeSet<_> = offers.iter().collect();
    assert_eq!(different.len(), 4, "each worker has its turn");
    assert_eq!(judge.most_at_once.load(Ordering::SeqCst), 1);

    back.store(1, Ordering::SeqCst);
    feed.all_settled().await;
    let stats = delivery.stats();
    assert_eq!(
        (stats.breaker, stats.failing_since),
        (BreakerState::Closed, None)
    );
    assert_eq!(stats.delivered, 400);
    assert!(
        judge
            .offers
            .lock()
            .unwrap()
            .iter()
            .any(|offer| offer.len() == 50)
    );
}
