//! The event bus: who is told of an event, and in what order.
//!
//! The bus runs sync handlers itself and hands events to one [`AsyncBackend`],
//! which it knows by nothing but that trait. It holds no queue and starts no
//! task.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::event::Event;
use crate::handler::{Handler, HandlerError, Handlers, SubscriptionId};
use crate::pattern::{Pattern, PatternError};
use crate::worker_pool::WorkerPool;

/// The event bus. Cloning is cheap, and the clones are one bus, usable from
/// any number of tasks.
#[derive(Clone)]
pub struct EventBus(Arc<Inner>);

struct Inner {
    handlers: Handlers,
    backend: Box<dyn AsyncBackend>,
    closed: AtomicBool,
}

impl EventBus {
    /// A bus with the built-in worker pool: 10 workers, a queue of 1000.
    pub fn new() -> EventBus {
        EventBus::with_backend(WorkerPool::default())
    }

    /// A bus whose async events go to `backend`.
    ///
    /// `emit` then waits for the backend's `publish`. Put a
    /// [`Delivery`](crate::Delivery) around a backend that talks to a server,
    /// and emit only waits for a place in its queue.
    pub fn with_backend(backend: impl AsyncBackend) -> EventBus {
        let handlers = Handlers::default();
        backend.attach(handlers.clone());
        EventBus(Arc::new(Inner {
            handlers,
            backend: Box::new(backend),
            closed: AtomicBool::new(false),
        }))
    }

    /// Has `handler` called for events whose type matches `pattern`
    /// (`after:signup`, `after:*`, `*`), from the next emit on.
    ///
    /// # Errors
    ///
    /// If `pattern` is empty, over 1,024 bytes, or holds control characters.
    pub fn subscribe(
        &self,
        pattern: &str,
        handler: impl Into<Handler>,
    ) -> Result<SubscriptionId, PatternError> {
        Ok(self.0.handlers.subscribe(pattern.parse()?, handler.into()))
    }

    /// Ends a subscription; `false` if it had ended before. A call that is
    /// under way, or waits in the worker pool, still happens.
    pub fn unsubscribe(&self, id: SubscriptionId) -> bool {
        self.0.handlers.unsubscribe(id)
    }

    /// Has events whose type matches `pattern` go to the backend although no
    /// async handler is subscribed for them.
    pub fn forward(&self, pattern: Pattern) {
        self.0.handlers.forward(pattern);
    }

    /// Whether a handler, sync or async, is subscribed for `event_type`.
    pub fn has_handlers(&self, event_type: &str) -> bool {
        self.0.handlers.any(event_type)
    }

    /// What the backend is called.
    pub fn backend_name(&self) -> &str {
        self.0.backend.name()
    }

    /// Emits one event.
    ///
    /// The sync handlers run first, here, in order of priority; the first error
    /// stops the emit. Then, if an async handler or [`forward`](Self::forward)
    /// wants the type, the event goes to the backend.
    ///
    /// # Errors
    ///
    /// If a sync handler refused the event, or the backend did not take it. In
    /// both cases the event is not with the backend.
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, the event may or may not have been taken.
    pub async fn emit(&self, event: Event) -> Result<(), EmitError> {
        self.emit_batch(std::slice::from_ref(&event)).await
    }

    /// Emits several events as one batch: first the sync handlers of all of
    /// them, then, if none refused, all go to the backend in one call.
    ///
    /// # Errors
    ///
    /// If a sync handler refused one, none is with the backend. If the backend
    /// failed, [`EmitError::Backend`] lists the events that it did not take;
    /// the backends with a queue take all or none.
    ///
    /// # Cancellation
    ///
    /// As [`emit`](Self::emit).
    pub async fn emit_batch(&self, events: &[Event]) -> Result<(), EmitError> {
        self.check_open()?;
        for (index, event) in events.iter().enumerate() {
            run(
                self.0.handlers.sync_handlers(event.event_type()),
                index,
                event,
            )
            .await?;
        }
        let goes = |event: &Event| self.0.handlers.go_to_backend(event.event_type());
        // Nearly always all events of a batch go the same way: copy only if not.
        match events.iter().filter(|event| goes(event)).count() {
            0 => Ok(()),
            n if n == events.len() => self.publish(events, |index| index).await,
            _ => {
                let going = events.iter().enumerate().filter(|(_, event)| goes(event));
                let (indices, going): (Vec<_>, Vec<_>) = going.map(|(i, e)| (i, e.clone())).unzip();
                self.publish(&going, |index| indices.get(index).copied().unwrap_or(index))
                    .await
            }
        }
    }

    /// Runs every handler of the event now, async ones included, in order of
    /// priority. Nothing goes to the backend.
    ///
    /// # Errors
    ///
    /// The first handler's error, which stops the emit.
    pub async fn emit_sync(&self, event: Event) -> Result<(), EmitError> {
        self.check_open()?;
        run(self.0.handlers.all_handlers(event.event_type()), 0, &event).await
    }

    /// Takes no more events and lets the backend finish what it has, within
    /// `grace`. The second and later calls do nothing.
    ///
    /// # Errors
    ///
    /// Says how many events could not be finished in time.
    pub async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        if self.0.closed.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        self.0.backend.close(grace).await
    }

    fn check_open(&self) -> Result<(), EmitError> {
        match self.0.closed.load(Ordering::SeqCst) {
            false => Ok(()),
            true => Err(EmitError::Closed),
        }
    }

    /// Publishes `events`; `position` says where one stood in the emitted batch.
    async fn publish(
        &self,
        events: &[Event],
        position: impl Fn(usize) -> usize,
    ) -> Result<(), EmitError> {
        let Err(mut failures) = self.0.backend.publish(events).await else {
            return Ok(());
        };
        match failures.first().map(|failure| &failure.error) {
            None => Ok(()),
            Some(PublishError::Closed) => Err(EmitError::Closed),
            Some(PublishError::QueueFull { backend, limit }) if failures.len() == events.len() => {
                Err(EmitError::QueueFull {
                    backend: backend.clone(),
                    limit: limit.clone(),
                })
            }
            Some(_) => {
                failures
                    .iter_mut()
                    .for_each(|failure| failure.index = position(failure.index));
                Err(EmitError::Backend {
                    backend: self.backend_name().to_owned(),
                    failures,
                })
            }
        }
    }
}

async fn run(handlers: Vec<Handler>, index: usize, event: &Event) -> Result<(), EmitError> {
    for handler in handlers {
        handler
            .call(event.clone())
            .await
            .map_err(|source| EmitError::Refused {
                index,
                event_type: event.event_type().to_owned(),
                source,
            })?;
    }
    Ok(())
}

impl Default for EventBus {
    fn default() -> EventBus {
        EventBus::new()
    }
}

impl std::fmt::Debug for EventBus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventBus")
            .field("handlers", &self.0.handlers)
            .field("backend", &self.backend_name())
            .field("closed", &self.0.closed)
            .finish()
    }
}

/// Why an emit failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// A handler that ran inside the emit returned an error or panicked.
    #[error("a handler refused the `{event_type}` event: {source}")]
    Refused {
        /// Which event of the batch, counted from 0.
        index: usize,
        /// Its type.
        event_type: String,
        /// The handler's error.
        source: HandlerError,
    },

    /// The backend's queue has no room now; none of the events was taken.
    #[error("the queue of backend `{backend}` is full ({limit}); emit again later")]
    QueueFull {
        /// Whose queue it is; of several, the first that had no room.
        backend: Arc<str>,
        /// How much it holds at most, and if known, who takes it up.
        limit: String,
    },

    /// The backend did not take the events listed; it took the others.
    #[error("backend `{backend}` did not take {} of the events, the first because: {}",
        failures.len(), failures[0].error)]
    Backend {
        /// The backend's name.
        backend: String,
        /// Which events, by position in the batch, and why; not empty.
        failures: Vec<Failure>,
    },

    /// The bus was closed.
    #[error("the bus is closed")]
    Closed,
}
