//! The bounded queue in front of a backend.
//!
//! Bounded twice, by events and by bytes, because a queue of large events is
//! unbounded memory by another name. Room is reserved before events are
//! pushed, and given back when they are settled, not when they are taken: an
//! event that is being retried still occupies its place.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::backend::PublishError;
use crate::event::Event;

pub(super) struct Queue {
    /// Named in errors.
    backend: Arc<str>,
    capacity: usize,
    capacity_bytes: usize,
    state: Mutex<State>,
    /// Told when there is something to take, or the queue was closed.
    ready: Notify,
    /// Told when the queue is closed.
    closing: Notify,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Event>,
    /// Events that have a place: reserved, waiting, or taken and not settled.
    occupied: usize,
    occupied_bytes: usize,
    /// Reservations that are neither used nor dropped yet.
    reserved: usize,
    closed: bool,
}

/// Room in the queue of a [`Delivery`](super::Delivery).
#[must_use]
pub(crate) struct Reservation<'a> {
    queue: &'a Queue,
    events: usize,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(backend: &str, capacity: usize, capacity_bytes: usize) -> Queue {
        Queue {
            backend: backend.into(),
            capacity,
            capacity_bytes,
            state: Mutex::default(),
            ready: Notify::new(),
            closing: Notify::new(),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.state().waiting.len()
    }

    pub(super) fn reserve(&self, events: &[Event]) -> Result<Reservation<'_>, PublishError> {
        let bytes = weight(events);
        if events.len() > self.capacity || bytes > self.capacity_bytes {
            return Err(PublishError::BatchTooLarge {
                backend: self.backend.clone(),
                events: events.len(),
                limit: format!("{} events, {} bytes", self.capacity, self.capacity_bytes),
            });
        }
        let mut state = self.state();
        if state.closed {
            return Err(PublishError::Closed);
        }
        if events.len() > self.capacity - state.occupied
            || bytes > self.capacity_bytes - state.occupied_bytes
        {
            return Err(PublishError::QueueFull {
                backend: self.backend.clone(),
                capacity: self.capacity,
            });
        }
        state.occupied += events.len();
        state.occupied_bytes += bytes;
        state.reserved += 1;
        Ok(Reservation {
            queue: self,
            events: events.len(),
            bytes,
        })
    }

    /// Puts `events` where `reservation` holds room for them.
    pub(super) fn push(&self, mut reservation: Reservation<'_>, events: Vec<Event>) {
        debug_assert!(std::ptr::eq(self, reservation.queue) && reservation.events == events.len());
        self.state().waiting.extend(events);
        // The room now belongs to the events; dropping the rest of the
        // reservation wakes a worker.
        (reservation.events, reservation.bytes) = (0, 0);
    }

    /// Waits for events and takes the oldest: as many, and as many bytes, as
    /// `limits` says, but one at least. Takes what is there without waiting for
    /// more. `None` when the queue was closed and is empty, or `limits` says
    /// `None`; it is asked again after each [`wake`](Self::wake).
    pub(super) async fn take(
        &self,
        limits: impl Fn() -> Option<(usize, usize)>,
    ) -> Option<Vec<Event>> {
        loop {
            let Some((max, max_bytes)) = limits() else {
                // What woke this one may have been meant for any.
                self.ready.notify_one();
                return None;
            };
            {
                let mut state = self.state();
                if !state.waiting.is_empty() {
                    let mut bytes = 0;
                    let fits = |event: &&Event| {
                        bytes += event.weight();
                        bytes <= max_bytes
                    };
                    let count = state
                        .waiting
                        .iter()
                        .take(max)
                        .take_while(fits)
                        .count()
                        .max(1);
                    let taken = state.waiting.drain(..count).collect();
                    if !state.waiting.is_empty() {
                        self.ready.notify_one();
                    }
                    return Some(taken);
                }
                if state.closed && state.reserved == 0 {
                    // The other workers wait for the same.
                    self.ready.notify_one();
                    return None;
                }
            }
            self.ready.notified().await;
        }
    }

    /// Gives back the room of `events`, which are delivered or dead.
    pub(super) fn settle(&self, events: usize, bytes: usize) {
        let mut state = self.state();
        state.occupied -= events;
        state.occupied_bytes -= bytes;
    }

    /// Has everyone who waits in [`take`](Self::take) look again.
    pub(super) fn wake(&self) {
        self.ready.notify_waiters();
    }

    /// Takes no more reservations; what has one may still be pushed.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.ready.notify_one();
        self.closing.notify_waiters();
    }

    /// Waits until the queue is closed; for ever if it is already.
    pub(super) async fn closing(&self) {
        self.closing.notified().await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock can leave the state half changed.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.reserved -= 1;
        state.occupied -= self.events;
        state.occupied_bytes -= self.bytes;
        drop(state);
        self.queue.ready.notify_one();
    }
}

fn weight(events: &[Event]) -> usize {
    events.iter().map(Event::weight).sum()
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn events(count: usize) -> Vec<Event> {
        (0..count)
            .map(|n| Event::new(format!("t{n}"), vec![0; 1000]).unwrap())
            .collect()
    }

    fn full(capacity: usize) -> PublishError {
        PublishError::QueueFull {
            backend: "test".into(),
            capacity,
        }
    }

    fn push(queue: &Queue, events: Vec<Event>) -> Result<(), PublishError> {
        let reservation = queue.reserve(&events)?;
        queue.push(reservation, events);
        Ok(())
    }

    #[tokio::test]
    async fn events_come_out_in_order_and_in_batches_of_what_is_there() {
        let queue = Queue::new("test", 10, 1 << 20);
        push(&queue, events(5)).unwrap();
        let types = |events: Vec<Event>| {
            events
                .iter()
                .map(|e| e.event_type().to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            types(queue.take(|| Some((3, usize::MAX))).await.unwrap()),
            ["t0", "t1", "t2"]
        );
        assert_eq!(
            types(queue.take(|| Some((3, usize::MAX))).await.unwrap()),
            ["t3", "t4"]
        );
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_bytes_but_never_empty() {
        let queue = Queue::new("test", 10, 1 << 20);
        push(&queue, events(5)).unwrap();
        assert_eq!(queue.take(|| Some((10, 3500))).await.unwrap().len(), 2);
        assert_eq!(queue.take(|| Some((10, 1))).await.unwrap().len(), 1);
    }

    #[test]
    fn a_place_is_free_again_only_when_the_event_is_settled() {
        let queue = Queue::new("test", 2, 1 << 20);
        let batch = events(2);
        let bytes = weight(&batch);
        push(&queue, batch).unwrap();
        assert_eq!(push(&queue, events(1)), Err(full(2)));
        queue.settle(2, bytes);
        drop(queue.reserve(&events(2)).unwrap());
        assert!(
            push(&queue, events(2)).is_ok(),
            "a dropped reservation is free again"
        );
    }

    #[test]
    fn bytes_are_bounded_too_and_what_never_fits_is_refused_for_good() {
        let queue = Queue::new("test", 100, 5000);
        push(&queue, events(3)).unwrap();
        assert_eq!(push(&queue, events(2)), Err(full(100)));
        assert!(matches!(
            push(&queue, events(9)),
            Err(PublishError::BatchTooLarge { .. })
        ));
    }

    #[tokio::test]
    async fn a_closed_queue_ends_only_after_open_reservations() {
        let queue = Queue::new("test", 10, 1 << 20);
        let batch = events(1);
        let reservation = queue.reserve(&batch).unwrap();
        queue.close();
        assert_eq!(push(&queue, events(1)), Err(PublishError::Closed));
        let mut end = std::pin::pin!(queue.take(|| Some((1, usize::MAX))));
        assert!(end.as_mut().now_or_never().is_none());
        queue.push(reservation, batch);
        assert_eq!(end.await.unwrap().len(), 1);
        assert!(queue.take(|| Some((1, usize::MAX))).await.is_none());
    }
}
