//! Delivery: order, batches, retries, and books that balance.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use backhaul::{
    AsyncBackend, CloseError, Delivery, DeliveryOptions, Event, EventBus, Failure, MockBackend,
    PublishError, RetryPolicy,
};

const GRACE: Duration = Duration::from_secs(10);

fn quick() -> DeliveryOptions {
    let retry = RetryPolicy {
        first_delay: Duration::from_millis(1),
        max_delay: Duration::from_millis(5),
        ..RetryPolicy::default()
    };
    DeliveryOptions {
        retry,
        ..DeliveryOptions::default()
    }
}

fn events(count: usize) -> Vec<Event> {
    (0..count)
        .map(|n| Event::builder("t").id(format!("{n}")).build().unwrap())
        .collect()
}

fn ids(events: &[Event]) -> Vec<usize> {
    events
        .iter()
        .map(|event| event.id().parse().unwrap())
        .collect()
}

fn retryable() -> PublishError {
    PublishError::Retryable("away".into())
}

#[tokio::test]
async fn a_slow_backend_does_not_hold_up_an_emit_and_gets_what_waited_in_one_batch() {
    let mock = MockBackend::default();
    let delivery = Delivery::new(mock.clone(), quick());
    let bus = EventBus::with_backend(delivery.clone());
    bus.forward("*".parse().unwrap());
    mock.stall();
    for event in events(300) {
        bus.emit(event).await.unwrap();
    }
    assert_eq!(delivery.stats().pending, 300);
    mock.resume();
    let published = mock.wait_for(300).await;
    assert_eq!(ids(&published), (0..300).collect::<Vec<_>>());
    let sizes: Vec<_> = mock.batches().iter().map(Vec::len).collect();
    assert!(
        sizes.len() <= 4 && sizes.iter().all(|size| *size <= 256),
        "{sizes:?}"
    );
}

#[tokio::test]
async fn order_is_kept_over_retries() {
    let mock = MockBackend::default();
    let delivery = Delivery::new(mock.clone(), quick());
    for _ in 0..20 {
        mock.fail_next(retryable());
    }
    for event in events(50) {
        delivery.publish(&[event]).await.unwrap();
    }
    let published = mock.wait_for(50).await;
    assert_eq!(ids(&published), (0..50).collect::<Vec<_>>());
    delivery.close(GRACE).await.unwrap();
    let stats = delivery.stats();
    assert_eq!(
        (stats.accepted, stats.delivered, stats.pending),
        (50, 50, 0)
    );
    assert!(stats.retries >= 20, "{stats:?}");
}

#[tokio::test]
async fn only_the_failed_events_of_a_batch_are_offered_again() {
    /// Fails every event whose id ends in 3, once.
    #[derive(Default)]
    struct Picky {
        taken: MockBackend,
        refused: std::sync::Mutex<HashSet<String>>,
    }

    impl Picky {
        fn first_sight(&self, event: &Event) -> bool {
            self.refused.lock().unwrap().insert(event.id().to_owned())
        }
    }

    #[async_trait]
    impl AsyncBackend for Picky {
        async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
            let mut failures = Vec::new();
            for (index, event) in events.iter().enumerate() {
                if event.id().ends_with('3') && self.first_sight(event) {
                    failures.push(Failure {
                        index,
                        error: retryable(),
                    });
                    continue;
                }
                self.taken.publish(std::slice::from_ref(event)).await?;
            }
            if failures.is_empty() {
                Ok(())
            } else {
                Err(failures)
            }
        }

        async fn close(&self, _: Duration) -> Result<(), CloseError> {
            Ok(())
        }

        fn name(&self) -> &str {
            "picky"
        }
    }

    let picky = Arc::new(Picky::default());
    let delivery = Delivery::new(picky.clone(), quick());
    delivery.publish(&events(40)).await.unwrap();
    delivery.close(GRACE).await.unwrap();
    let mut taken = ids(&picky.taken.published());
    assert_eq!(taken[36..], [3, 13, 23, 33], "after the others, in order");
    taken.sort_unstable();
    assert_eq!(taken, (0..40).collect::<Vec<_>>(), "each once");
}

#[tokio::test]
async fn what_is_refused_for_good_or_too_often_is_a_dead_letter() {
    let mock = MockBackend::default();
    let mut options = quick();
    options.retry.max_attempts = Some(3);
    let delivery = Delivery::new(mock.clone(), options);
    mock.fail_next(PublishError::Permanent("too large".into()));
    delivery.publish(&events(1)).await.unwrap();
    while delivery.stats().dead == 0 {
        tokio::task::yield_now().await;
    }
    for _ in 0..3 {
        mock.fail_next(retryable());
    }
    delivery.publish(&events(1)).await.unwrap();
    delivery.close(GRACE).await.unwrap();
    let dead = delivery.dead_letters().list();
    let summary: Vec<_> = dead
        .iter()
        .map(|d| (d.error.as_str(), d.attempts))
        .collect();
    assert_eq!(summary, [("too large", 1), ("away", 3)]);
    assert_eq!(delivery.stats().dead, 2);
    assert!(mock.published().is_empty());
}

#[tokio::test]
async fn a_dead_letter_goes_back_into_the_queue_if_there_is_room() {
    let mock = MockBackend::default();
    let options = DeliveryOptions {
        queue: 2,
        ..quick()
    };
    let delivery = Delivery::new(mock.clone(), options);
    let before = jiff::Timestamp::now();
    for _ in 0..2 {
        mock.fail_next(PublishError::Permanent("no".into()));
        delivery.publish(&events(2)).await.unwrap();
        while delivery.stats().pending > 0 {
            tokio::task::yield_now().await;
        }
    }
    let letters = delivery.dead_letters().list();
    assert_eq!(letters.len(), 4);
    for letter in &letters {
        assert_eq!((&*letter.backend, &*letter.error), ("mock", "no"));
        assert!(before <= letter.first_try && letter.first_try == letter.last_try);
    }

    mock.stall();
    let ids: Vec<u64> = letters.iter().map(|letter| letter.id).collect();
    assert_eq!(delivery.retry_dead(&ids), 2, "more do not fit");
    assert_eq!(delivery.retry_dead(&ids), 0);
    assert_eq!(delivery.dead_letters().len(), 2, "the others stay");
    mock.resume();
    mock.wait_for(2).await;
    delivery.close(GRACE).await.unwrap();
    let stats = delivery.stats();
    assert_eq!((stats.accepted, stats.dead, stats.delivered), (6, 4, 2));
    assert_eq!(delivery.retry_dead(&ids), 0, "nor into a closed one");
    assert_eq!(delivery.dead_letters().len(), 2);
}

#[tokio::test]
async fn a_full_queue_is_an_answer_and_places_are_free_again_after_delivery() {
    let mock = MockBackend::default();
    let delivery = Delivery::new(
        mock.clone(),
        DeliveryOptions {
            queue: 10,
            ..quick()
        },
    );
    mock.stall();
    delivery.publish(&events(10)).await.unwrap();
    let failures = delivery.publish(&events(2)).await.unwrap_err();
    assert_eq!(
        failures,
        Failure::all(
            2,
            &PublishError::QueueFull {
                backend: "mock".into(),
                limit: "10 events".into()
            }
        )
    );
    assert_eq!(
        delivery.stats().accepted,
        10,
        "none of a batch that does not fit"
    );
    mock.resume();
    mock.wait_for(10).await;
    while delivery.publish(&events(10)).await.is_err() {
        tokio::task::yield_now().await;
    }
    delivery.close(GRACE).await.unwrap();
    assert_eq!(delivery.stats().delivered, 20);
}

#[tokio::test]
async fn a_backend_that_is_away_is_asked_for_one_event_at_a_time() {
    /// Away until told otherwise; notes how much it is asked at a time.
    #[derive(Default)]
    struct Away {
        back: AtomicBool,
        asked: std::sync::Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl AsyncBackend for Away {
        async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
            self.asked.lock().unwrap().push(events.len());
            match self.back.load(Ordering::SeqCst) {
                true => Ok(()),
                false => Err(Failure::all(events.len(), &retryable())),
            }
        }

        async fn close(&self, _: Duration) -> Result<(), CloseError> {
            Ok(())
        }

        fn name(&self) -> &str {
            "away"
        }
    }

    let away = Arc::new(Away::default());
    let delivery = Delivery::new(away.clone(), quick());
    delivery.publish(&events(100)).await.unwrap();
    while away.asked.lock().unwrap().len() < 5 {
        tokio::task::yield_now().await;
    }
    away.back.store(true, Ordering::SeqCst);
    delivery.close(GRACE).await.unwrap();
    let asked = away.asked.lock().unwrap().clone();
    assert_eq!((asked[0], &asked[1..5]), (100, &[1, 1, 1, 1][..]));
    let asked_again = asked.iter().rev().take(7).rev();
    assert!(
        asked_again.eq(&[1, 2, 4, 8, 16, 32, 37]),
        "and for twice as many each time once it answers: {asked:?}"
    );
}

#[tokio::test]
async fn an_event_that_a_backend_cannot_bear_is_found_and_its_neighbours_are_delivered() {
    /// Fails every batch that has the event 70, after taking what is before it.
    #[derive(Default)]
    struct Chokes {
        taken: std::sync::Mutex<Vec<usize>>,
    }

    #[async_trait]
    impl AsyncBackend for Chokes {
        async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
            let ids = ids(events);
            let poison = ids.iter().position(|id| *id == 70);
            self.taken
                .lock()
                .unwrap()
                .extend(&ids[..poison.unwrap_or(ids.len())]);
            match poison {
                Some(_) => Err(Failure::all(events.len(), &retryable())),
                None => Ok(()),
            }
        }

        async fn close(&self, _: Duration) -> Result<(), CloseError> {
            Ok(())
        }

        fn name(&self) -> &str {
            "chokes"
        }
    }

    let mut options = quick();
    options.retry.max_attempts = Some(5);
    let chokes = Arc::new(Chokes::default());
    let delivery = Delivery::new(chokes.clone(), options);
    delivery.publish(&events(100)).await.unwrap();
    delivery.close(GRACE).await.unwrap();

    let dead = delivery.dead_letters().list();
    assert_eq!(dead.len(), 1, "only the one at fault");
    assert_eq!((dead[0].event.id(), dead[0].attempts), ("70", 5));
    let taken = chokes.taken.lock().unwrap().clone();
    let mut once = taken.clone();
    once.sort_unstable();
    once.dedup();
    assert_eq!(once.len(), 99);
    // A failed batch is halved by starting again from one, so each neighbour is
    // offered a few times, not once for each event before the one at fault.
    assert!(taken.len() < 400, "{} offers for 99 events", taken.len());
}

#[tokio::test]
async fn a_backend_that_panics_is_tried_again() {
    struct PanicsOnce(AtomicUsize);

    #[async_trait]
    impl AsyncBackend for PanicsOnce {
        async fn publish(&self, _: &[Event]) -> Result<(), Vec<Failure>> {
            assert_ne!(
                self.0.fetch_add(1, Ordering::SeqCst),
                0,
                "the first call panics"
            );
            Ok(())
        }

        async fn close(&self, _: Duration) -> Result<(), CloseError> {
            Ok(())
        }

        fn name(&self) -> &str {
            "panics-once"
        }
    }

    let delivery = Delivery::new(PanicsOnce(AtomicUsize::new(0)), quick());
    delivery.publish(&events(5)).await.unwrap();
    delivery.close(GRACE).await.unwrap();
    assert_eq!(delivery.stats().delivered, 5);
}

#[tokio::test]
async fn close_drains_closes_the_backend_and_says_what_is_left() {
    let mock = MockBackend::default();
    let delivery = Delivery::new(mock.clone(), quick());
    mock.stall();
    delivery.publish(&events(7)).await.unwrap();
    let error = delivery.close(Duration::from_millis(50)).await.unwrap_err();
    assert_eq!(error.undelivered, 7);
    assert!(error.reason.contains("`mock`"), "{error}");
    assert!(mock.is_closed());
    let stats = delivery.stats();
    assert_eq!(
        (stats.accepted, stats.dropped.closed, stats.pending),
        (7, 7, 0)
    );
    assert_eq!(
        delivery.publish(&events(1)).await.unwrap_err(),
        Failure::all(1, &PublishError::Closed)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_books_balance_whatever_happens() {
    let mock = MockBackend::default();
    let options = DeliveryOptions {
        workers: 3,
        batch: 7,
        queue: 50,
        ..quick()
    };
    let delivery = Delivery::new(mock.clone(), options);
    let mut emitters = tokio::task::JoinSet::new();
    for n in 0..4 {
        let (delivery, mock) = (delivery.clone(), mock.clone());
        emitters.spawn(async move {
            let mut taken = 0;
            for round in 0..300 {
                match (round + n) % 10 {
                    0 => mock.fail_next(retryable()),
                    5 => mock.fail_next(PublishError::Permanent("no".into())),
                    _ => {}
                }
                if delivery.publish(&events(1 + round % 3)).await.is_ok() {
                    taken += 1 + round % 3;
                }
                let stats = delivery.stats();
                assert_eq!(
                    stats.accepted,
                    stats.delivered + stats.dead + stats.dropped.total() + stats.pending
                );
                tokio::task::yield_now().await;
            }
            taken
        });
    }
    let taken: usize = emitters.join_all().await.into_iter().sum();
    delivery.close(GRACE).await.unwrap();
    let stats = delivery.stats();
    assert_eq!(
        (
            stats.accepted as usize,
            stats.pending,
            stats.dropped.total()
        ),
        (taken, 0, 0)
    );
    assert_eq!(stats.delivered as usize, mock.published().len());
    assert_eq!(stats.delivered + stats.dead, stats.accepted);
}
