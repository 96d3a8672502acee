//! The one backend value of an instance: opened with a batch, kept between
//! batches, dropped after a failure. Called by what the export macros write.

use crate::{AsyncBackend, Backend, Event, Failure, OpenError};
use std::cell::Cell;

/// Holds the backend between calls.
pub struct Instance<B> {
    /// Taken out while a call runs, so that a call that is given up half-way
    /// drops it, and its connection in an unknown state with it.
    backend: Cell<Option<B>>,
    /// A second asynchronous call during a first would open a second
    /// connection and break the order of events. The contract rules it out;
    /// if it happens all the same, the second call is turned away.
    busy: Cell<bool>,
}

impl<B> Instance<B> {
    /// An instance whose backend is not open.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            backend: Cell::new(None),
            busy: Cell::new(false),
        }
    }

    fn enter(&self) -> Option<Turn<'_>> {
        (!self.busy.replace(true)).then_some(Turn(&self.busy))
    }
}

impl<B> Default for Instance<B> {
    fn default() -> Self {
        Self::new()
    }
}

impl<B: Backend> Instance<B> {
    /// Publishes a batch, opening the backend first if it is not open.
    ///
    /// # Errors
    ///
    /// The events that were not published.
    pub fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let mut backend = match self.backend.take() {
            Some(backend) => backend,
            None => B::open().map_err(|error| not_open(events, &error))?,
        };
        let failures = backend.publish(events).err().unwrap_or_default();
        if failures.is_empty() || backend.usable_after(&failures) {
            self.backend.set(Some(backend));
        }
        outcome(failures)
    }

    /// Closes the backend if it is open.
    ///
    /// # Errors
    ///
    /// What the backend says.
    pub fn close(&self) -> Result<(), String> {
        self.backend.take().map_or(Ok(()), B::close)
    }
}

impl<B: AsyncBackend> Instance<B> {
    /// Publishes a batch, opening the backend first if it is not open.
    ///
    /// # Errors
    ///
    /// The events that were not published.
    pub async fn publish_async(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let _turn = self.enter().ok_or_else(|| {
            let message = "an earlier call of this instance still runs";
            Failure::all_retryable(0..events.len(), message)
        })?;
        let mut backend = match self.backend.take() {
            Some(backend) => backend,
            None => B::open().await.map_err(|error| not_open(events, &error))?,
        };
        let failures = backend.publish(events).await.err().unwrap_or_default();
        if failures.is_empty() || backend.usable_after(&failures) {
            self.backend.set(Some(backend));
        }
        outcome(failures)
    }

    /// Closes the backend if it is open.
    ///
    /// # Errors
    ///
    /// What the backend says.
    pub async fn close_async(&self) -> Result<(), String> {
        match self.backend.take() {
            Some(backend) => backend.close().await,
            None => Ok(()),
        }
    }
}

/// The right to run a call; given back when dropped, so also when the call is
/// given up.
struct Turn<'a>(&'a Cell<bool>);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

fn not_open(events: &[Event], error: &OpenError) -> Vec<Failure> {
    Failure::all_retryable(0..events.len(), error.to_string())
}

fn outcome(failures: Vec<Failure>) -> Result<(), Vec<Failure>> {
    if failures.is_empty() {
        Ok(())
    } else {
        Err(failures)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PublishError;
    use std::future::{Future, pending};
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    thread_local! {
        static OPENED: Cell<u32> = const { Cell::new(0) };
    }

    struct Scripted;

    impl Backend for Scripted {
        const NAME: &'static str = "scripted";

        fn open() -> Result<Self, OpenError> {
            OPENED.set(OPENED.get() + 1);
            if OPENED.get() == 1 {
                return Err("the queue is away".into());
            }
            Ok(Self)
        }

        /// The first event's data says what becomes of the batch.
        fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
            match events[0].data.as_slice() {
                b"retryable" => Err(vec![Failure::retryable(0, "busy")]),
                b"permanent" => Err(vec![Failure::permanent(0, "too large")]),
                b"empty" => Err(Vec::new()),
                _ => Ok(()),
            }
        }
    }

    fn batch(data: &str) -> [Event; 1] {
        [Event {
            data: data.into(),
            ..crate::event::tests::event()
        }]
    }

    #[test]
    fn a_backend_is_opened_with_the_first_batch_and_again_after_a_retryable_failure() {
        let instance = Instance::<Scripted>::new();
        assert_eq!(OPENED.get(), 0);

        let failures = instance.publish(&batch("fine")).unwrap_err();
        assert!(
            matches!(&failures[0].error, PublishError::Retryable(text) if text == "the queue is away")
        );

        for (data, published, opened) in [
            ("fine", true, 2),
            ("fine", true, 2),
            ("permanent", false, 2),
            ("fine", true, 2),
            ("retryable", false, 2),
            ("fine", true, 3),
            ("empty", true, 3),
        ] {
            assert_eq!(instance.publish(&batch(data)).is_ok(), published, "{data}");
            assert_eq!(OPENED.get(), opened, "{data}");
        }
        assert_eq!(instance.close(), Ok(()));
    }

    /// Never finishes a batch whose data says so.
    struct Stalling;

    impl AsyncBackend for Stalling {
        const NAME: &'static str = "stalling";

        async fn open() -> Result<Self, OpenError> {
            Ok(Self)
        }

        async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
            if events[0].data == b"stall" {
                pending::<()>().await;
            }
            Ok(())
        }
    }

    #[test]
    fn a_second_call_during_a_first_is_turned_away_until_the_first_is_given_up() {
        let instance = Instance::<Stalling>::new();
        let mut context = Context::from_waker(Waker::noop());
        let (stall, fine) = (batch("stall"), batch("fine"));
        {
            let mut first = pin!(instance.publish_async(&stall));
            assert!(first.as_mut().poll(&mut context).is_pending());

            let second = pin!(instance.publish_async(&fine)).poll(&mut context);
            assert!(matches!(second, Poll::Ready(Err(_))));
        }
        let third = pin!(instance.publish_async(&fine)).poll(&mut context);
        assert!(matches!(third, Poll::Ready(Ok(()))));
    }
}
