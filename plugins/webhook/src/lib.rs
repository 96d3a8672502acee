//! Backend `webhook`: posts each event to a URL, in a content mode of CloudEvents
//! over HTTP, signed as standard-webhooks says. Connections are the host's, and
//! kept by it; what this keeps from one batch to the next is how long the server
//! has asked to be left alone.
mod answer;
mod batch;
mod request;
mod settings;
mod signature;

use backhaul_guest::{Backend, Event, Failure, OpenError};
use batch::Batch;
use settings::Settings;
use std::time::Instant;

struct Webhook {
    settings: Settings,
    /// When the time is over that a `Retry-After` asked for.
    paused_until: Option<Instant>,
}

impl Backend for Webhook {
    const NAME: &'static str = "webhook";

    fn open() -> Result<Self, OpenError> {
        Ok(Self {
            settings: Settings::from_env()?,
            paused_until: None,
        })
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let now = Instant::now();
        // Waiting here would hold up the host's shutdown; its own delays do as well.
        if let Some(end) = self.paused_until.filter(|end| *end > now) {
            let seconds = (end - now).as_secs() + 1;
            let message = format!(
                "{} asked to wait; nothing is sent there for {seconds} s (Retry-After)",
                self.settings.origin
            );
            return Err(Failure::all_retryable(0..events.len(), message));
        }
        let mut batch = Batch::new(&self.settings, events);
        wstd::runtime::block_on(batch.send());
        self.paused_until = batch.pause().map(|pause| Instant::now() + pause);
        Err(batch.failures())
    }

    fn usable_after(&self, _: &[Failure]) -> bool {
        true
    }
}

backhaul_guest::export!(Webhook);
