//! The requests of one batch: some side by side, none after one that is to be
//! tried again, all within the time the settings give.

use crate::answer::{self, Answer};
use crate::request;
use crate::settings::Settings;
use backhaul_guest::{Event, Failure, PublishError, http};
use futures_util::future::join_all;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// A batch under way, and what became of it.
pub(crate) struct Batch<'a> {
    settings: &'a Settings,
    events: &'a [Event],
    fates: RefCell<Vec<Fate>>,
    /// The next event to be sent.
    next: Cell<usize>,
    /// Index of an event that is to be tried again: those not yet sent wait for it.
    stopped_by: Cell<Option<usize>>,
    /// The longest wait an answer asked for.
    pause: Cell<Option<Duration>>,
}

#[derive(Clone)]
enum Fate {
    Waiting,
    Sent,
    Taken,
    Failed(PublishError),
}

impl<'a> Batch<'a> {
    pub(crate) fn new(settings: &'a Settings, events: &'a [Event]) -> Self {
        Self {
            settings,
            events,
            fates: RefCell::new(vec![Fate::Waiting; events.len()]),
            next: Cell::new(0),
            stopped_by: Cell::new(None),
            pause: Cell::new(None),
        }
    }

    /// Sends what can be sent in the time there is.
    pub(crate) async fn send(&mut self) {
        let senders = (0..self.settings.concurrency.get()).map(|_| self.send_one_by_one());
        // What has no answer when the time is over is told by its fate.
        let _ = http::within(self.settings.timeout, join_all(senders)).await;
    }

    async fn send_one_by_one(&self) {
        while self.stopped_by.get().is_none() {
            let index = self.next.get();
            let Some(event) = self.events.get(index) else {
                return;
            };
            self.next.set(index + 1);
            self.set(index, Fate::Sent);
            match self.post(event).await {
                Ok(()) => self.set(index, Fate::Taken),
                Err(error) => {
                    if matches!(error, PublishError::Retryable(_)) {
                        self.stopped_by.set(Some(index));
                    }
                    self.set(index, Fate::Failed(error));
                }
            }
        }
    }

    async fn post(&self, event: &Event) -> Result<(), PublishError> {
        let request = request::of(self.settings, event).map_err(PublishError::Permanent)?;
        let answer = http::send(request, &self.settings.origin, answer::BOUNDS).await;
        let answer = answer.map_err(PublishError::Retryable)?;
        let Answer { outcome, wait } = answer::judge(self.settings, &answer);
        self.pause.set(self.pause.get().max(wait));
        outcome
    }

    fn set(&self, index: usize, fate: Fate) {
        self.fates.borrow_mut()[index] = fate;
    }

    /// How long the server asked to be left alone.
    pub(crate) fn pause(&self) -> Option<Duration> {
        self.pause.get()
    }

    /// The events that were not published, after [`send`](Self::send).
    pub(crate) fn failures(self) -> Vec<Failure> {
        let timeout = humantime::format_duration(self.settings.timeout);
        let origin = &self.settings.origin;
        let failure = |(index, fate)| match fate {
            Fate::Taken => None,
            Fate::Failed(PublishError::Permanent(text)) => Some(Failure::permanent(index, text)),
            Fate::Failed(PublishError::Retryable(text)) => Some(Failure::retryable(index, text)),
            Fate::Sent => Some(Failure::retryable(
                index,
                format!("{origin} did not answer in time (WEBHOOK_TIMEOUT, {timeout} for a batch)"),
            )),
            Fate::Waiting => Some(Failure::retryable(
                index,
                match self.stopped_by.get() {
                    Some(_) => "not sent: an event before it is to be tried again".to_owned(),
                    None => format!(
                        "not sent: the time for a batch was over (WEBHOOK_TIMEOUT, {timeout}); \
                         a smaller limits.batch or more WEBHOOK_CONCURRENCY helps"
                    ),
                },
            )),
        };
        let fates = self.fates.into_inner();
        fates.into_iter().enumerate().filter_map(failure).collect()
    }
}
