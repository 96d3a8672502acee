//! The traits an author implements, and the macros that export them.
//!
//! # The life of a backend
//!
//! The host creates an instance of the component and asks its name. Each
//! instance is single-threaded and has its own memory; the manifest's
//! `limits.instances` says how many there are.
//!
//! 1. With the first batch, `open` makes the value. It reads the settings and
//!    connects. If it fails, every event of that batch is reported retryable with
//!    the error's text, and `open` is called again with the next batch.
//! 2. `publish` is called with one batch at a time, never while an earlier call
//!    runs.
//! 3. After a failure that `usable_after` calls broken, the value is dropped
//!    and the next batch opens a new one. So a backend reconnects without code
//!    of its own.
//! 4. `close` is called at most once, and only on a value that is open. After a
//!    trap or an overrun time limit the instance is gone, without a call.
//!
//! Opening counts towards the time limit of the batch that needed it
//! (`limits.timeout`, 5 seconds unless set): a client's own time-outs should add
//! up to less, so that the host gets an explanation instead of stopping the call.

use crate::{Event, Failure, PublishError};
use std::error::Error;

/// Why a backend could not be opened; any error type converts with `?`.
///
/// Its `Display` text becomes the failure of every event of the batch, and goes
/// to the host's log: it should say what to do next and must not hold secrets.
pub type OpenError = Box<dyn Error>;

/// A queue backend with a blocking client. Exported with [`export!`](crate::export).
pub trait Backend: Sized + 'static {
    /// What the backend calls itself: 1 to 64 characters from `a`-`z`, `0`-`9`,
    /// `.`, `_` and `-`.
    const NAME: &'static str;

    /// Reads the settings and connects to the queue.
    ///
    /// Called in the first batch, and in the next one after a failure (see
    /// [`usable_after`](Self::usable_after)).
    ///
    /// # Errors
    ///
    /// Every event of the batch is then retryable with the error's text.
    fn open() -> Result<Self, OpenError>;

    /// Publishes a batch: 1 to `limits.batch` events, oldest first.
    ///
    /// What is not listed as failed counts as published and is never offered
    /// again, so this returns only after the queue has acknowledged it. Nothing
    /// may be kept to be sent later. With one instance, batches should reach the
    /// queue in the order given.
    ///
    /// # Errors
    ///
    /// The events that were not published, in any order, each index once. An
    /// event whose fate is unknown must be listed as retryable: delivery is at
    /// least once. An empty list means the same as `Ok`.
    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>>;

    /// Whether this value can publish the next batch after these failures; if
    /// not, it is dropped and opened anew.
    ///
    /// Called after each batch with failures. Unless overridden, a value with a
    /// retryable failure is not used again: the connection may be broken, or may
    /// lead to a server that no longer is the right one.
    fn usable_after(&self, failures: &[Failure]) -> bool {
        only_permanent(failures)
    }

    /// Lets go of the connection, after the last batch. There is nothing to
    /// flush: what `publish` did not report as failed is already safe.
    ///
    /// # Errors
    ///
    /// Logged by the host, without other effect.
    fn close(self) -> Result<(), String> {
        Ok(())
    }
}

/// A queue backend with an asynchronous client. Exported with
/// [`export_async!`](crate::export_async).
///
/// Each function has the contract of its namesake in [`Backend`]. The futures
/// are driven by the host, on one thread; they need not be `Send`, and a call
/// the host gives up is dropped together with the value it ran on.
#[expect(
    async_fn_in_trait,
    reason = "an instance has one thread, so no bound on the futures is missing"
)]
pub trait AsyncBackend: Sized + 'static {
    /// See [`Backend::NAME`].
    const NAME: &'static str;

    /// See [`Backend::open`].
    ///
    /// # Errors
    ///
    /// See [`Backend::open`].
    async fn open() -> Result<Self, OpenError>;

    /// See [`Backend::publish`].
    ///
    /// # Errors
    ///
    /// See [`Backend::publish`].
    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>>;

    /// See [`Backend::usable_after`].
    fn usable_after(&self, failures: &[Failure]) -> bool {
        only_permanent(failures)
    }

    /// See [`Backend::close`].
    ///
    /// # Errors
    ///
    /// See [`Backend::close`].
    async fn close(self) -> Result<(), String> {
        Ok(())
    }
}

fn only_permanent(failures: &[Failure]) -> bool {
    failures
        .iter()
        .all(|failure| matches!(failure.error, PublishError::Permanent(_)))
}

/// Makes the crate a component that exports the given [`Backend`].
///
/// Used once, at the top level of a `cdylib` crate.
#[macro_export]
macro_rules! export {
    ($backend:ty) => {
        const _: () = {
            ::std::thread_local! {
                static INSTANCE: $crate::instance::Instance<$backend> =
                    const { $crate::instance::Instance::new() };
            }

            struct Component;

            impl $crate::blocking::exports::backhaul::backend::blocking_backend::Guest for Component {
                fn name() -> ::std::string::String {
                    <$backend as $crate::Backend>::NAME.into()
                }

                fn publish(
                    events: ::std::vec::Vec<$crate::Event>,
                ) -> ::std::result::Result<(), ::std::vec::Vec<$crate::Failure>> {
                    INSTANCE.with(|instance| instance.publish(&events))
                }

                fn close() -> ::std::result::Result<(), ::std::string::String> {
                    INSTANCE.with(|instance| instance.close())
                }
            }

            $crate::blocking::export_world!(Component with_types_in $crate::blocking);
        };
    };
}

/// Makes the crate a component that exports the given [`AsyncBackend`].
///
/// Used once, at the top level of a `cdylib` crate.
#[macro_export]
macro_rules! export_async {
    ($backend:ty) => {
        const _: () = {
            ::std::thread_local! {
                // A future outlives the closure of `with`, a leaked value does not end.
                static INSTANCE: &'static $crate::instance::Instance<$backend> =
                    ::std::boxed::Box::leak(::std::boxed::Box::new(
                        $crate::instance::Instance::new(),
                    ));
            }

            struct Component;

            impl $crate::asynchronous::exports::backhaul::backend::async_backend::Guest
                for Component
            {
                fn name() -> ::std::string::String {
                    <$backend as $crate::AsyncBackend>::NAME.into()
                }

                async fn publish(
                    events: ::std::vec::Vec<$crate::Event>,
                ) -> ::std::result::Result<(), ::std::vec::Vec<$crate::Failure>> {
                    INSTANCE.with(|instance| *instance).publish_async(&events).await
                }

                async fn close() -> ::std::result::Result<(), ::std::string::String> {
                    INSTANCE.with(|instance| *instance).close_async().await
                }
            }

            $crate::asynchronous::export_world!(Component with_types_in $crate::asynchronous);
        };
    };
}
