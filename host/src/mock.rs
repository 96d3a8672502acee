//! A backend for users' own tests: it records, and fails or stalls when told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::event::Event;

/// A backend that records what is published to it.
///
/// Cloning is cheap, and the clones are one backend: give one to the bus and
/// ask the other.
///
/// ```
/// use backhaul::{Event, EventBus, MockBackend};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let mock = MockBackend::default();
/// let bus = EventBus::with_backend(mock.clone());
/// bus.forward("after:*".parse().unwrap());
///
/// bus.emit(Event::new("after:signup", r#"{"user":1}"#).unwrap()).await.unwrap();
///
/// assert_eq!(mock.published()[0].event_type(), "after:signup");
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct MockBackend(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: Mutex<State>,
    /// How many events have been recorded; for those who wait.
    recorded: watch::Sender<usize>,
    stalled: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct State {
    batches: Vec<Vec<Event>>,
    failing: VecDeque<PublishError>,
    closed: bool,
}

impl MockBackend {
    /// The events that were taken, in order.
    pub fn published(&self) -> Vec<Event> {
        self.state().batches.concat()
    }

    /// The same, batch by batch.
    pub fn batches(&self) -> Vec<Vec<Event>> {
        self.state().batches.clone()
    }

    /// Has the next call of `publish` that is not spoken for fail, for all its
    /// events, with `error`.
    pub fn fail_next(&self, error: PublishError) {
        self.state().failing.push_back(error);
    }

    /// Has every `publish` wait until [`resume`](Self::resume).
    pub fn stall(&self) {
        self.0.stalled.send_replace(true);
    }

    /// Lets the waiting `publish` calls go on.
    pub fn resume(&self) {
        self.0.stalled.send_replace(false);
    }

    /// Whether the bus has closed the backend.
    pub fn is_closed(&self) -> bool {
        self.state().closed
    }

    /// Waits until `count` events were taken, and returns all there are.
    pub async fn wait_for(&self, count: usize) -> Vec<Event> {
        let mut recorded = self.0.recorded.subscribe();
        recorded
            .wait_for(|n| *n >= count)
            .await
            .expect("the sender is in self");
        self.published()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MockBackend {
    /// A mock that records and takes everything.
    fn default() -> MockBackend {
        MockBackend(Arc::new(Inner {
            state: Mutex::default(),
            recorded: watch::Sender::new(0),
            stalled: watch::Sender::new(false),
        }))
    }
}

#[async_trait]
impl AsyncBackend for MockBackend {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let mut stalled = self.0.stalled.subscribe();
        stalled
            .wait_for(|stalled| !stalled)
            .await
            .expect("the sender is in self");
        let mut state = self.state();
        if let Some(error) = state.failing.pop_front() {
            return Err(Failure::all(events.len(), &error));
        }
        state.batches.push(events.to_vec());
        self.0.recorded.send_modify(|count| *count += events.len());
        Ok(())
    }

    async fn close(&self, _grace: Duration) -> Result<(), CloseError> {
        self.state().closed = true;
        Ok(())
    }

    fn name(&self) -> &str {
        "mock"
    }
}
