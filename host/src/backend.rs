//! The contract of a backend: publish, close, name.
//!
//! Everything that takes events from the bus implements [`AsyncBackend`]: the
//! worker pool, a plugin, the plugins folder, a [`Delivery`](crate::Delivery)
//! around any of them, and a user's own type. The bus knows no other word.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::event::Event;
use crate::handler::Handlers;

/// What takes events from the bus.
///
/// A backend is shared by all tasks that emit; its methods take `&self`.
#[async_trait]
pub trait AsyncBackend: Send + Sync + 'static {
    /// Takes a batch of events, oldest first; the batch is not empty.
    ///
    /// Called by the bus with what was emitted, from any task, many calls at a
    /// time. `Ok` takes responsibility for every event. `Err` lists those that
    /// were not taken, each index at most once; the others were. Whoever calls
    /// may offer a failed event again, with the same id, so a backend may see
    /// an event twice but must never lose one it did not list.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the caller does not know which events were
    /// taken and may offer all of them again.
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>>;

    /// Finishes what was taken, within `grace`, and lets go of everything.
    ///
    /// Called by the bus once, when it takes no more emits. An emit that was
    /// under way may still call `publish`: it is finished or refused.
    ///
    /// # Errors
    ///
    /// Says how many events could not be finished in time. They are lost to
    /// this backend.
    async fn close(&self, grace: Duration) -> Result<(), CloseError>;

    /// What the backend is called in logs and errors, for instance `redis`.
    fn name(&self) -> &str;

    /// Gives the backend the async handlers subscribed at the bus.
    ///
    /// Called by the bus once, before the first `publish`. A backend that runs
    /// handlers in this process keeps them (the worker pool does); one that
    /// carries events away has no use for them, which is the default.
    fn attach(&self, handlers: Handlers) {
        drop(handlers);
    }
}

#[async_trait]
impl<B: AsyncBackend + ?Sized> AsyncBackend for Arc<B> {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        (**self).publish(events).await
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        (**self).close(grace).await
    }

    fn name(&self) -> &str {
        (**self).name()
    }

    fn attach(&self, handlers: Handlers) {
        (**self).attach(handlers);
    }
}

/// One event of a batch that a backend did not take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Position in the batch, counted from 0.
    pub index: usize,
    /// Why.
    pub error: PublishError,
}

impl Failure {
    /// The failure of every event of a batch of `len`, for one reason.
    pub fn all(len: usize, error: &PublishError) -> Vec<Failure> {
        (0..len)
            .map(|index| Failure {
                index,
                error: error.clone(),
            })
            .collect()
    }
}

/// Why an event was not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// May work later: the server is away or busy.
    #[error("{0}")]
    Retryable(String),

    /// Will never work with this event as it is.
    #[error("{0}")]
    Permanent(String),

    /// The queue in front of the backend, or the journal, has no room now.
    #[error("the queue of backend `{backend}` is full ({limit}); emit again later")]
    QueueFull {
        /// Whose queue it is; `journal` for that of all.
        backend: Arc<str>,
        /// How much it holds at most, and if known, who takes it up.
        limit: String,
    },

    /// The batch is larger than the whole queue in front of the backend.
    #[error(
        "a batch of {events} events never fits the queue of backend `{backend}` ({limit}); \
         emit smaller batches"
    )]
    BatchTooLarge {
        /// Whose queue it is.
        backend: Arc<str>,
        /// How many events the batch has.
        events: usize,
        /// How much the queue holds at most.
        limit: String,
    },

    /// The backend was closed.
    #[error("the backend is closed")]
    Closed,
}

impl PublishError {
    /// Whether offering the event again can help.
    pub fn is_retryable(&self) -> bool {
        matches!(
            self,
            PublishError::Retryable(_) | PublishError::QueueFull { .. }
        )
    }
}

/// What a backend could not finish before it closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not delivered: {undelivered} event(s), because {reason}")]
pub struct CloseError {
    /// How many events had been taken and were not delivered.
    pub undelivered: usize,
    /// Why not, to be read after "because".
    pub reason: String,
}
