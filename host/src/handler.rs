//! Handlers: the embedding program's own functions for event types.
//!
//! [`Handler`] is one function and how it is to be run; [`Handlers`] is what is
//! subscribed at a bus, kept so that an emit reads it without a lock.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use serde::de::DeserializeOwned;

use crate::event::Event;
use crate::pattern::Pattern;
use crate::retry::RetryPolicy;

/// The error of a handler: anything that is an error.
pub type HandlerError = Box<dyn std::error::Error + Send + Sync>;

type Function = dyn Fn(Event) -> BoxFuture<'static, Result<(), HandlerError>> + Send + Sync;

/// A function for events, and how it is to be run.
///
/// A handler is *sync* unless [`with_async`](Handler::with_async) makes it
/// *async*. A sync handler runs inside `emit` and can refuse the event with an
/// error. An async handler marks its event types as ones that go to the bus's
/// backend; the worker pool then runs it, another backend carries the event
/// away instead.
///
/// Every function of the right shape converts into a sync handler, so
/// `bus.subscribe("before:login", |event| async move { ... })` works.
#[derive(Clone)]
pub struct Handler {
    function: Arc<Function>,
    is_async: bool,
    priority: i32,
    retry: RetryPolicy,
}

impl Handler {
    /// A sync handler of priority 0, from a function that takes the event.
    pub fn new<F, Fut, E>(function: F) -> Handler
    where
        F: Fn(Event) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError>,
    {
        Handler {
            function: Arc::new(move |event| function(event).map(|r| r.map_err(Into::into)).boxed()),
            is_async: false,
            priority: 0,
            retry: RetryPolicy::attempts(1),
        }
    }

    /// A sync handler of priority 0, from a function that takes the payload,
    /// read from JSON. A payload that does not fit `T` is the handler's error.
    pub fn typed<T, F, Fut, E>(function: F) -> Handler
    where
        T: DeserializeOwned + 'static,
        F: Fn(T) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<HandlerError>,
    {
        Handler::new(move |event: Event| {
            // The payload is parsed here, so that the future is Send whatever T is.
            let called = event.parse().map(&function);
            async move {
                let called = called.map_err(|error| -> HandlerError {
                    format!("the payload does not fit the handler: {error}").into()
                });
                called?.await.map_err(Into::into)
            }
        })
    }

    /// Makes the handler async: its events go to the backend.
    #[must_use]
    pub fn with_async(mut self) -> Handler {
        self.is_async = true;
        self
    }

    /// Sets the priority: of the handlers of one event the higher run first,
    /// equal ones in the order of their subscription. Default 0.
    #[must_use]
    pub fn with_priority(mut self, priority: i32) -> Handler {
        self.priority = priority;
        self
    }

    /// Has the worker pool call the handler again after an error or a panic,
    /// as `policy` says; afterwards the event is a dead letter of the pool
    /// ([`DeadLetter`](crate::DeadLetter): the last error, how many tries there
    /// were, and when the first and the last began).
    /// Without it there is one try. A handler that runs inside an emit is not
    /// retried: its error is the caller's answer.
    #[must_use]
    pub fn with_retry(mut self, policy: RetryPolicy) -> Handler {
        self.retry = policy;
        self
    }

    pub(crate) fn retry(&self) -> &RetryPolicy {
        &self.retry
    }

    /// Runs the handler; a panic is an error like any other.
    pub(crate) async fn call(&self, event: Event) -> Result<(), HandlerError> {
        // A panic may come from the function or from its future. What it leaves
        // half changed is the handler's own.
        let called = AssertUnwindSafe(async { (self.function)(event).await }).catch_unwind();
        called
            .await
            .unwrap_or_else(|panic| Err(panic_message(&*panic).into()))
    }
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("is_async", &self.is_async)
            .field("priority", &self.priority)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

impl<F, Fut, E> From<F> for Handler
where
    F: Fn(Event) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
    E: Into<HandlerError>,
{
    fn from(function: F) -> Handler {
        Handler::new(function)
    }
}

fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("the handler panicked: {}", text.unwrap_or("(no message)"))
}

/// Names one subscription; made by `EventBus::subscribe`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SubscriptionId(u64);

/// The handlers subscribed at a bus. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct Handlers(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    /// Replaced whole on every change, so that an emit reads it without a lock.
    table: ArcSwap<Table>,
    /// Held while the table is replaced.
    changing: Mutex<()>,
    last_id: AtomicU64,
}

#[derive(Clone, Debug, Default)]
struct Table {
    /// Highest priority first, then in order of subscription.
    subscriptions: Vec<Arc<Subscription>>,
    /// Event types that go to the backend without a handler.
    forwarded: Vec<Pattern>,
}

#[derive(Debug)]
struct Subscription {
    id: SubscriptionId,
    pattern: Pattern,
    handler: Handler,
}

impl Handlers {
    pub(crate) fn subscribe(&self, pattern: Pattern, handler: Handler) -> SubscriptionId {
        let id = SubscriptionId(self.0.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        self.change(|table| {
            let priority = handler.priority;
            let at = table
                .subscriptions
                .partition_point(|s| s.handler.priority >= priority);
            table.subscriptions.insert(
                at,
                Arc::new(Subscription {
                    id,
                    pattern,
                    handler,
                }),
            );
        });
        id
    }

    pub(crate) fn unsubscribe(&self, id: SubscriptionId) -> bool {
        self.change(|table| {
            let before = table.subscriptions.len();
            table.subscriptions.retain(|s| s.id != id);
            table.subscriptions.len() < before
        })
    }

    pub(crate) fn forward(&self, pattern: Pattern) {
        self.change(|table| table.forwarded.push(pattern));
    }

    /// Whether a handler, sync or async, is subscribed for `event_type`.
    pub fn any(&self, event_type: &str) -> bool {
        self.0
            .table
            .load()
            .subscriptions
            .iter()
            .any(|s| s.pattern.matches(event_type))
    }

    /// Whether events of `event_type` go to the backend.
    pub(crate) fn go_to_backend(&self, event_type: &str) -> bool {
        let table = self.0.table.load();
        table
            .forwarded
            .iter()
            .any(|pattern| pattern.matches(event_type))
            || table
                .subscriptions
                .iter()
                .any(|s| s.handler.is_async && s.pattern.matches(event_type))
    }

    /// The async handlers for `event_type`, in the order they should run.
    pub fn async_handlers(&self, event_type: &str) -> Vec<Handler> {
        self.matching(event_type, |handler| handler.is_async)
    }

    /// The sync handlers for `event_type`, in the order they run.
    pub(crate) fn sync_handlers(&self, event_type: &str) -> Vec<Handler> {
        self.matching(event_type, |handler| !handler.is_async)
    }

    /// Every handler for `event_type`, in the order they run.
    pub(crate) fn all_handlers(&self, event_type: &str) -> Vec<Handler> {
        self.matching(event_type, |_| true)
    }

    fn matching(&self, event_type: &str, wanted: impl Fn(&Handler) -> bool) -> Vec<Handler> {
        let table = self.0.table.load();
        let matching = table
            .subscriptions
            .iter()
            .filter(|s| wanted(&s.handler) && s.pattern.matches(event_type));
        matching.map(|s| s.handler.clone()).collect()
    }

    fn change<R>(&self, change: impl FnOnce(&mut Table) -> R) -> R {
        // The table is a copy until it is stored: a panic leaves the old one.
        let _changing = self
            .0
            .changing
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let mut table = Table::clone(&self.0.table.load());
        let result = change(&mut table);
        self.0.table.store(Arc::new(table));
        result
    }
}
