//! The worker pool: bounded, isolated per handler, drained on close.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backhaul::{
    AsyncBackend, EmitError, Event, EventBus, Handler, HandlerError, RetryPolicy, WorkerPool,
};
use tokio::sync::{Semaphore, mpsc};

const GRACE: Duration = Duration::from_secs(10);

fn event() -> Event {
    Event::new("t", "").unwrap()
}

/// A handler that waits for a permit of `gate`, and counts.
fn gated(gate: &Arc<Semaphore>, done: &Arc<AtomicUsize>) -> Handler {
    let (gate, done) = (gate.clone(), done.clone());
    let handler = move |_: Event| {
        let (gate, done) = (gate.clone(), done.clone());
        async move {
            gate.acquire().await.unwrap().forget();
            done.fetch_add(1, Ordering::SeqCst);
            Ok::<_, HandlerError>(())
        }
    };
    Handler::new(handler).with_async()
}

/// Waits until the workers have taken all they can.
async fn queue_settles_at(pool: &WorkerPool, len: usize) {
    tokio::time::timeout(GRACE, async {
        while pool.queue_len() != len {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("the queue stays at {}, not {len}", pool.queue_len()));
}

#[tokio::test]
async fn zero_configuration_is_ten_workers_and_a_queue_of_a_thousand() {
    let pool = WorkerPool::default();
    let bus = EventBus::with_backend(pool.clone());
    let (gate, done) = (Arc::new(Semaphore::new(0)), Arc::default());
    bus.subscribe("t", gated(&gate, &done)).unwrap();
    assert_eq!((pool.queue_len(), pool.queue_capacity()), (0, 1000));

    for _ in 0..10 {
        bus.emit(event()).await.unwrap();
    }
    queue_settles_at(&pool, 0).await; // all ten are with a worker
    for _ in 0..1000 {
        bus.emit(event()).await.unwrap();
    }
    assert_eq!(pool.queue_len(), 1000);
    let error = bus.emit(event()).await.unwrap_err();
    assert!(
        matches!(&error, EmitError::QueueFull { limit, .. } if limit == "1000 jobs"),
        "{error:?}"
    );

    gate.add_permits(1010);
    bus.close(GRACE).await.unwrap();
    assert_eq!(
        done.load(Ordering::SeqCst),
        1010,
        "what was accepted was done, the refused was not"
    );
}

#[tokio::test]
async fn an_event_is_taken_for_all_its_handlers_or_for_none() {
    let pool = WorkerPool::new(1, 3);
    let bus = EventBus::with_backend(pool.clone());
    let (gate, done) = (Arc::new(Semaphore::new(0)), Arc::default());
    bus.subscribe("t", gated(&gate, &done)).unwrap();
    bus.subscribe("t", gated(&gate, &done)).unwrap();
    bus.emit(event()).await.unwrap();
    queue_settles_at(&pool, 1).await;
    bus.emit(event()).await.unwrap();
    assert!(matches!(
        bus.emit(event()).await,
        Err(EmitError::QueueFull { .. })
    ));
    assert_eq!(pool.queue_len(), 3);
    gate.add_permits(10);
    bus.close(GRACE).await.unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_panicking_handler_harms_no_other() {
    let bus = EventBus::with_backend(WorkerPool::new(1, 100));
    let (gate, done) = (Arc::new(Semaphore::new(100)), Arc::default());
    let panics = |_: Event| async { panic!("boom") as Result<(), HandlerError> };
    bus.subscribe("t", Handler::new(panics).with_async().with_priority(1))
        .unwrap();
    bus.subscribe("t", gated(&gate, &done)).unwrap();
    for _ in 0..20 {
        bus.emit(event()).await.unwrap();
    }
    bus.close(GRACE).await.unwrap();
    assert_eq!(done.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn a_failing_handler_is_tried_as_its_policy_says_then_the_event_is_a_dead_letter() {
    let pool = WorkerPool::default();
    let bus = EventBus::with_backend(pool.clone());
    let tries = Arc::new(AtomicUsize::new(0));
    let failing = {
        let tries = tries.clone();
        move |_: Event| {
            let n = tries.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Err::<(), _>(format!("failed {n} times")) }
        }
    };
    let policy = RetryPolicy {
        first_delay: Duration::from_millis(1),
        ..RetryPolicy::attempts(3)
    };
    bus.subscribe("t", Handler::new(failing).with_async().with_retry(policy))
        .unwrap();
    let event = event();
    bus.emit(event.clone()).await.unwrap();
    bus.close(GRACE).await.unwrap();

    assert_eq!(tries.load(Ordering::SeqCst), 3);
    let dead = pool.dead_letters().drain();
    assert_eq!(dead.len(), 1);
    assert_eq!((dead[0].event.id(), dead[0].attempts), (event.id(), 3));
    assert_eq!(dead[0].error, "failed 3 times");
    assert_eq!(&*dead[0].backend, "worker-pool");
    assert!(dead[0].first_try < dead[0].last_try);
}

#[tokio::test]
async fn a_handler_that_recovers_leaves_no_dead_letter() {
    let pool = WorkerPool::default();
    let bus = EventBus::with_backend(pool.clone());
    let (told, mut hears) = mpsc::unbounded_channel();
    let tries = AtomicUsize::new(0);
    let flaky = move |event: Event| {
        let first = tries.fetch_add(1, Ordering::SeqCst) == 0;
        let told = told.clone();
        async move {
            if first {
                return Err("not yet");
            }
            told.send(event.id().to_owned()).unwrap();
            Ok(())
        }
    };
    let policy = RetryPolicy {
        first_delay: Duration::from_millis(1),
        ..RetryPolicy::default()
    };
    bus.subscribe("t", Handler::new(flaky).with_async().with_retry(policy))
        .unwrap();
    let event = event();
    bus.emit(event.clone()).await.unwrap();
    assert_eq!(
        hears.recv().await.unwrap(),
        event.id(),
        "the id does not change between tries"
    );
    bus.close(GRACE).await.unwrap();
    assert!(pool.dead_letters().list().is_empty());
}

#[tokio::test]
async fn close_says_what_it_could_not_drain_and_takes_nothing_more() {
    let pool = WorkerPool::new(2, 100);
    let bus = EventBus::with_backend(pool.clone());
    let (gate, done) = (Arc::new(Semaphore::new(3)), Arc::default());
    bus.subscribe("t", gated(&gate, &done)).unwrap();
    for _ in 0..10 {
        bus.emit(event()).await.unwrap();
    }
    let error = bus.close(Duration::from_millis(100)).await.unwrap_err();
    assert_eq!(error.undelivered, 7, "{error}");
    assert!(pool.publish(&[event()]).await.is_err());

    gate.add_permits(100);
    tokio::task::yield_now().await;
    assert_eq!(
        done.load(Ordering::SeqCst),
        3,
        "what was given up does not run later"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn events_emitted_while_the_pool_closes_are_done_or_refused() {
    for _ in 0..50 {
        let bus = EventBus::with_backend(WorkerPool::new(4, 10_000));
        let (gate, done) = (Arc::new(Semaphore::new(10_000)), Arc::default());
        bus.subscribe("t", gated(&gate, &done)).unwrap();
        let mut emitters = tokio::task::JoinSet::new();
        for _ in 0..4 {
            let bus = bus.clone();
            emitters.spawn(async move {
                let mut taken = 0;
                while bus.emit(event()).await.is_ok() {
                    taken += 1;
                }
                taken
            });
        }
        tokio::task::yield_now().await;
        bus.close(GRACE).await.unwrap();
        let taken: usize = emitters.join_all().await.into_iter().sum();
        assert_eq!(done.load(Ordering::SeqCst), taken);
    }
}
