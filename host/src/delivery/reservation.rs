//! Room in a delivery's window, taken before events are given to it: a batch
//! for several deliveries goes to all of them or to none.

use jiff::Timestamp;

use super::window::Window;
use crate::backend::PublishError;
use crate::event::Event;

/// Room in the queue of a [`Delivery`](super::Delivery).
#[must_use]
pub(crate) struct Reservation<'a> {
    window: &'a Window,
    events: usize,
    bytes: usize,
}

impl Window {
    pub(super) fn reserve(&self, events: &[Event]) -> Result<Reservation<'_>, PublishError> {
        let bytes = events.iter().map(Event::weight).sum();
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
                limit: format!("{} events", self.capacity),
            });
        }
        state.occupied += events.len();
        state.occupied_bytes += bytes;
        state.reserved += 1;
        Ok(Reservation {
            window: self,
            events: events.len(),
            bytes,
        })
    }

    /// Puts `events` where `reservation` holds room for them.
    pub(super) fn push(&self, mut reservation: Reservation<'_>, events: Vec<Event>) {
        debug_assert!(std::ptr::eq(self, reservation.window) && reservation.events == events.len());
        let now = Timestamp::now();
        self.state().push(events, now);
        // The room now belongs to the events; dropping the rest of the
        // reservation wakes a worker.
        (reservation.events, reservation.bytes) = (0, 0);
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        let mut state = self.window.state();
        state.reserved -= 1;
        state.occupied -= self.events;
        state.occupied_bytes -= self.bytes;
        drop(state);
        self.window.wake_one();
    }
}
