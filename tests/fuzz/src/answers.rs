//! What a component answers, by its bindings: names, failures, errors, output,
//! and ends of every kind, with a delivery around it whose books must balance.
//!
//! Input: parts, with the byte 0x1e between them. The first says how events are
//! batched and tried; then the name of the component, the orders for its
//! `close`, and for each event the orders that are its data. The orders are
//! those of the guest `answer_as_told`.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use backhaul::wasm::{Component, EnvGrant, WasmBackend};
use backhaul::{
    AsyncBackend, CloseError, Delivery, DeliveryOptions, Event, Failure, PublishError, RetryPolicy,
};

use crate::sandbox;

const SEPARATOR: u8 = 0x1e;

/// Each may cost the time limit of some calls.
const MAX_EVENTS: usize = 5;

pub(crate) fn run(input: &[u8]) {
    let mut parts = input.split(|byte| *byte == SEPARATOR);
    let mut part = || parts.next().unwrap_or_default();
    let (options, name, close) = (part(), part(), part());
    let events: Vec<Event> = parts
        .take(MAX_EVENTS)
        .map(|data| Event::new("t", data.to_vec()).expect("an event"))
        .collect();
    let variables = vec![
        EnvGrant::plain("NAME", hexadecimal(name)),
        EnvGrant::plain("CLOSE", hexadecimal(close)),
    ];
    // With three tries, each event is in a dozen publishes at the very most, and
    // each may be a start and a call.
    sandbox::run(12 * 3 * MAX_EVENTS as u32, async {
        let Some(backend) = sandbox::start(component().await, variables).await else {
            return;
        };
        assert_eq!(backend.name().as_bytes(), name);
        deliver(backend, options, &events).await;
    });
}

async fn deliver(backend: WasmBackend, options: &[u8], events: &[Event]) {
    let option = |at: usize| usize::from(options.get(at).copied().unwrap_or(0));
    let watched = Watched::new(backend);
    let seen = watched.seen.clone();
    let options = DeliveryOptions {
        batch: 1 + option(0) % MAX_EVENTS,
        retry: RetryPolicy {
            first_delay: Duration::from_millis(1),
            max_delay: Duration::from_millis(2),
            ..RetryPolicy::attempts(1 + option(1) as u32 % 3)
        },
        ..DeliveryOptions::default()
    };
    let delivery = Delivery::new(watched, options);
    delivery.publish(events).await.expect("room for a few");
    balanced(&delivery);
    // Long enough for every call to run into its limit.
    let closed = delivery.close(Duration::from_secs(12)).await;
    assert!(closed.is_ok(), "{closed:?}");
    let stats = balanced(&delivery);
    assert_eq!((stats.accepted, stats.pending), (events.len() as u64, 0));

    let seen = seen.lock().expect("not poisoned");
    let delivered = seen.values().filter(|fate| **fate == Fate::Taken).count();
    assert_eq!(stats.delivered, delivered as u64, "{stats:?}");
    let letters = delivery.dead_letters().list();
    assert_eq!(stats.dead, letters.len() as u64);
    for letter in letters {
        crate::shown::check("the error of a dead letter", &letter.error, 2048);
        assert!(seen[letter.event.id()] != Fate::Taken, "{:?}", letter.event);
    }
}

fn balanced(delivery: &Delivery) -> backhaul::DeliveryStats {
    let stats = delivery.stats();
    let settled = stats.delivered + stats.dead + stats.dropped.total();
    assert_eq!(stats.accepted, settled + stats.pending, "{stats:?}");
    stats
}

/// What the component last said of an event.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Taken,
    Failed,
    Refused,
}

/// The backend, with a look at what goes through it.
struct Watched {
    backend: WasmBackend,
    seen: Arc<Mutex<HashMap<String, Fate>>>,
}

impl Watched {
    fn new(backend: WasmBackend) -> Watched {
        let seen = Arc::default();
        Watched { backend, seen }
    }
}

#[async_trait]
impl AsyncBackend for Watched {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        // Waiting before the next instance is started finds nothing.
        self.backend.forgive();
        let result = self.backend.publish(events).await;
        sandbox::check_published(events, &result);
        let mut seen = self.seen.lock().expect("not poisoned");
        for event in events {
            let before = seen.insert(event.id().to_owned(), Fate::Taken);
            assert!(
                matches!(before, None | Some(Fate::Failed)),
                "{event:?} was settled and is offered again"
            );
        }
        for failure in result.as_ref().err().into_iter().flatten() {
            let fate = match failure.error {
                PublishError::Retryable(_) => Fate::Failed,
                _ => Fate::Refused,
            };
            seen.insert(events[failure.index].id().to_owned(), fate);
        }
        result
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        self.backend.close(grace).await
    }

    fn name(&self) -> &str {
        self.backend.name()
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn component() -> Component {
    static COMPONENT: OnceLock<Component> = OnceLock::new();
    match COMPONENT.get() {
        Some(component) => component.clone(),
        None => {
            let loaded = sandbox::load(sandbox::built("test-guests/answer_as_told")).await;
            COMPONENT.get_or_init(|| loaded).clone()
        }
    }
}
