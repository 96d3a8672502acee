//! What the backends `sqs` and `sns` share: settings, signing, a batch as calls of
//! ten, what goes beside what, and what an error of the service means.
//!
//! A backend is a [`Service`], which says how one call is written and its answer
//! read, and a few lines that hand its batches to a [`Sender`].
//!
//! - `settings`: what the environment says; `endpoint`: where the service is.
//! - `signing`: AWS Signature Version 4.
//! - `entry`: an event as an entry of a call.
//! - `plan`: which entries make a call, and which calls wait for others.
//! - `sending`: the calls of one batch under way; `call`: one of them.
//! - `fault`: what an error means, and what to do about it.

mod call;
mod endpoint;
mod entry;
mod fault;
mod plan;
mod sending;
mod settings;
mod signing;

pub use call::{EntryFault, Error};
pub use endpoint::Place;
pub use entry::{ATTRIBUTE_TYPE, Entry, Fifo};

use backhaul_guest::{Event, Failure, SettingError};
use http::HeaderMap;

/// A service of AWS that takes messages in batches.
pub trait Service {
    /// How its name begins those of its settings, and what signatures call it in
    /// lower case: `SQS`.
    const NAME: &'static str;

    /// The same as signatures and host names have it.
    const SIGNING_NAME: &'static str;

    /// The setting that names where messages go.
    const TARGET: &'static str;

    /// What that setting should be, to end a sentence.
    const TARGET_FORM: &'static str;

    /// The right to ask for where access is denied.
    const RIGHT: &'static str;

    /// The most bytes of a message, and of those of one call together, that the
    /// service takes unless somebody set it otherwise.
    const MAX_BYTES: usize;

    /// What the target is: `queue`.
    const KIND: &'static str;

    /// Whether its messages have a subject.
    const SUBJECTS: bool;

    /// Where the target lies. It may be a template; then the place must not depend on a
    /// field. `None` if it is of another form.
    fn place(target: &str) -> Option<Place>;

    /// Whether this text, which has no fields any more, names a target.
    fn is_target(target: &str) -> bool;

    /// The headers, besides those every request has, and the body of a call.
    fn request(target: &str, entries: &[&Entry]) -> (HeaderMap, Vec<u8>);

    /// The entries that an answer of status 200 says have failed, and the ids of
    /// those that have not. `None` if it is no such answer.
    fn results(body: &[u8]) -> Option<Results>;

    /// The error of another answer. `None` if it has none.
    fn error(headers: &HeaderMap, body: &[u8]) -> Option<Error>;
}

/// What a call did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Results {
    /// The ids of entries that are with the service.
    pub taken: Vec<String>,
    /// The others.
    pub failed: Vec<EntryFault>,
}

/// Publishes batches to a service.
pub struct Sender<S> {
    settings: settings::Settings,
    service: std::marker::PhantomData<S>,
}

impl<S: Service> Sender<S> {
    /// With the settings of the environment. Nothing is sent yet.
    ///
    /// # Errors
    ///
    /// If a setting is missing or wrong.
    pub fn from_env() -> Result<Self, SettingError> {
        Ok(Self {
            settings: settings::Settings::from_env::<S>()?,
            service: std::marker::PhantomData,
        })
    }

    /// Publishes a batch; returns the events that were not published.
    pub async fn publish(&self, events: &[Event]) -> Vec<Failure> {
        sending::publish::<S>(&self.settings, events).await
    }
}
