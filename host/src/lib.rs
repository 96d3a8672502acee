//! Backhaul hauls an application's events to whatever queue sits behind it.
//!
//! ```
//! use backhaul::{Event, EventBus, Handler};
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bus = EventBus::new(); // 10 workers, a queue of 1000, nothing to configure
//!
//! let welcome = |event: Event| async move {
//!     println!("welcome, {}", event.subject().unwrap_or("stranger"));
//!     Ok::<_, std::io::Error>(())
//! };
//! bus.subscribe("after:signup", Handler::new(welcome).with_async())?;
//!
//! bus.emit(Event::builder("after:signup").subject("ada").json(&1)?.build()?).await?;
//! bus.close(std::time::Duration::from_secs(5)).await?;
//! # Ok(()) }
//! ```
//!
//! # Layout
//!
//! The bus, usable by itself (`default-features = false`):
//!
//! - `event`, `pattern`: what is carried, and how types are matched.
//! - `bus`, `handler`: who is told, and in what order.
//! - `backend`: the trait of everything that takes events.
//! - `worker_pool`, `mock`: the built-in backends.
//! - `delivery`, `retry`, `dead_letters`: batches and further tries around any
//!   backend, and what was given up.
//! - `journal`: accepted events on disk until every backend they are for has
//!   settled them; [`Journal::delivery`] is a delivery that reads from it.
//!
//! On top of it, each behind the Cargo feature of its name:
//!
//! - [`wasm`]: a backend that is a sandboxed WASI component.
//! - [`plugins`]: a folder of such components with their manifests.
//! - [`http`]: CloudEvents over HTTP, into a bus.
//! - `verify`: the conformance suite of backends, for the program.
//! - `cli`: the `backhaul` program.
//!
//! The arrows point one way: `cli` and `http` use the bus; `plugins` uses
//! `wasm`, `journal` and `delivery`; `journal` uses `delivery`; all use `backend`.
//! Nothing here points up.
//!
//! What "accepted" promises with and without a journal stands in
//! `docs/delivery.md`.

mod backend;
mod bus;
#[cfg(feature = "cli")]
pub mod cli;
mod dead_letters;
mod delivery;
mod event;
mod handler;
#[cfg(feature = "http")]
pub mod http;
mod journal;
mod mock;
mod pattern;
#[cfg(feature = "plugins")]
pub mod plugins;
mod retry;
#[cfg(feature = "verify")]
mod verify;
#[cfg(feature = "wasm")]
pub mod wasm;
mod worker_pool;

pub use backend::{AsyncBackend, CloseError, Failure, PublishError};
pub use bus::{EmitError, EventBus};
pub use dead_letters::{DeadFilter, DeadLetter, DeadLetters, DeadPage};
pub use delivery::{
    BreakerState, Delivery, DeliveryOptions, DeliveryStats, Dropped, LatencySnapshot,
};
pub use event::{DEFAULT_SOURCE, Event, EventBuilder, EventError, MAX_ATTRIBUTES};
pub use handler::{Handler, HandlerError, Handlers, SubscriptionId};
pub use journal::{
    ForgetError, Journal, JournalError, JournalOptions, JournalState, JournalStatus, KnownBackend,
    StartAt,
};
pub use mock::MockBackend;
pub use pattern::{Pattern, PatternError};
pub use retry::RetryPolicy;
pub use worker_pool::{DEFAULT_QUEUE, DEFAULT_WORKERS, WorkerPool};
