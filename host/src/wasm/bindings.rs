//! The contract of `wit/backend.wit` as Rust types.
//!
//! Both worlds have the same three functions over the same types, and Wasmtime
//! calls plain and async functions alike, so one set of types serves both. The
//! event is lowered from borrowed parts: the guest's memory is the only copy.
//! Wasmtime compares these types with the component's own before the first call.

use wasmtime::component::{ComponentType, Lift, Lower};

use crate::event::Event;

/// The interface of world `backend`.
pub(super) const ASYNC_BACKEND: &str = "backhaul:backend/async-backend@0.1.0";

/// The interface of world `backend-blocking`.
pub(super) const BLOCKING_BACKEND: &str = "backhaul:backend/blocking-backend@0.1.0";

/// `name: func() -> string`
pub(super) type NameResult = (String,);

/// `publish: func(events: list<event>) -> result<_, list<failure>>`
pub(super) type PublishParams<'a> = (&'a [WitEvent<'a>],);
pub(super) type PublishResult = (Result<(), Vec<WitFailure>>,);

/// `close: func() -> result<_, string>`
pub(super) type CloseResult = (Result<(), String>,);

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct WitTimestamp {
    seconds: i64,
    nanoseconds: u32,
}

#[derive(ComponentType, Lower)]
#[component(record)]
pub(super) struct WitEvent<'a> {
    id: &'a str,
    source: &'a str,
    #[component(name = "event-type")]
    event_type: &'a str,
    subject: Option<&'a str>,
    time: WitTimestamp,
    #[component(name = "content-type")]
    content_type: Option<&'a str>,
    attributes: &'a [(String, String)],
    data: &'a [u8],
}

impl<'a> From<&'a Event> for WitEvent<'a> {
    fn from(event: &'a Event) -> WitEvent<'a> {
        // Nanoseconds count forward from the second, also before the epoch.
        let nanoseconds = event.time().as_nanosecond();
        WitEvent {
            id: event.id(),
            source: event.source(),
            event_type: event.event_type(),
            subject: event.subject(),
            time: WitTimestamp {
                seconds: nanoseconds.div_euclid(1_000_000_000) as i64,
                nanoseconds: nanoseconds.rem_euclid(1_000_000_000) as u32,
            },
            content_type: event.content_type(),
            attributes: event.attributes(),
            data: event.data(),
        }
    }
}

#[derive(ComponentType, Lift)]
#[component(variant)]
pub(super) enum WitPublishError {
    #[component(name = "retryable")]
    Retryable(String),
    #[component(name = "permanent")]
    Permanent(String),
}

#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct WitFailure {
    pub(super) index: u32,
    pub(super) error: WitPublishError,
}
