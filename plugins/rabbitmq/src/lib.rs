//! Backend `rabbitmq`: publishes each event to an exchange, with confirms.
//!
//! - `settings`: what comes from the environment.
//! - `frames`: frames over TCP, bounded in size and time.
//! - `session`: login, virtual host, exchange, and what a refusal means.
//! - `message`: an event as a message.
//! - `batch`: which events the server has taken.
//! - `publishing`: a batch sent in one go, and its confirms collected.

mod batch;
mod frames;
mod message;
mod publishing;
#[cfg(test)]
mod scripted;
mod session;
mod settings;

use backhaul_guest::{Backend, Event, Failure, OpenError};
use session::Session;
use settings::Settings;

struct RabbitMq {
    settings: Settings,
    session: Session,
    /// Whether nothing more can come of the session.
    broken: bool,
}

impl Backend for RabbitMq {
    const NAME: &'static str = "rabbitmq";

    fn open() -> Result<Self, OpenError> {
        let settings = Settings::from_env()?;
        let session = Session::open(&settings)?;
        Ok(Self {
            settings,
            session,
            broken: false,
        })
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let Settings {
            heartbeat, timeout, ..
        } = self.settings;
        if !self.session.is_alive(heartbeat, timeout / 4) {
            // Until it is open the old one is all there is.
            self.broken = true;
            self.session = Session::open(&self.settings)
                .map_err(|error| Failure::all_retryable(0..events.len(), error))?;
        }
        let (failures, broken) = publishing::publish(&self.settings, &mut self.session, events);
        self.broken = broken;
        Err(failures)
    }

    /// A message that was not taken says nothing about the connection.
    fn usable_after(&self, _: &[Failure]) -> bool {
        !self.broken
    }

    fn close(self) -> Result<(), String> {
        self.session.close(self.settings.timeout / 4);
        Ok(())
    }
}
backhaul_guest::export!(RabbitMq);
