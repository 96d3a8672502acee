//! What the guests of the tests share: traces for a test to read, one way to
//! report, and a component that does nothing but have a name.

use std::fs::File;
use std::io::{ErrorKind, Write};

use backhaul_guest::{Event, Failure};

#[doc(hidden)]
pub use backhaul_guest as guest;

/// Appends the events' ids to `/out/published`, one a line, as a backend would
/// hand them to its queue.
///
/// # Errors
///
/// If the folder is not granted: every event is retryable.
pub fn record(events: &[Event]) -> Result<(), Vec<Failure>> {
    let lines: String = events
        .iter()
        .map(|event| format!("{}\n", event.id))
        .collect();
    let opened = File::options()
        .append(true)
        .create(true)
        .open("/out/published");
    opened
        .and_then(|mut file| file.write_all(lines.as_bytes()))
        .map_err(|error| Failure::all_retryable(0..events.len(), error.to_string()))
}

/// Whether to misbehave: true until a call has, which `/out/misbehaved` tells
/// over the death of an instance. Always true where nothing is granted.
pub fn first_time() -> bool {
    match File::create_new("/out/misbehaved") {
        Ok(_) => true,
        Err(error) => error.kind() != ErrorKind::AlreadyExists,
    }
}

/// The data of the first event, as the text a test tells a guest what to do with.
pub fn order(events: &[Event]) -> &str {
    std::str::from_utf8(&events[0].data).expect("tests give orders in UTF-8")
}

/// Tells a test what came of its order: the text of a permanent failure.
///
/// # Errors
///
/// Always; it is the way to say something.
pub fn report(text: impl ToString) -> Result<(), Vec<Failure>> {
    Err(vec![Failure::permanent(0, text.to_string())])
}

/// So many bytes in which one that is missing, doubled or misplaced is seen.
pub fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes)
        .map(|n| (n as u32).wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect()
}

/// Exports a blocking backend that takes everything, with an expression for
/// its `name`.
#[macro_export]
macro_rules! export_name {
    ($name:expr) => {
        struct Named;

        impl $crate::guest::blocking::exports::backhaul::backend::blocking_backend::Guest for Named {
            fn name() -> String {
                $name
            }

            fn publish(
                _: Vec<$crate::guest::Event>,
            ) -> ::std::result::Result<(), ::std::vec::Vec<$crate::guest::Failure>> {
                Ok(())
            }

            fn close() -> ::std::result::Result<(), String> {
                Ok(())
            }
        }

        $crate::guest::blocking::export_world!(Named with_types_in $crate::guest::blocking);
    };
}

/// Exports a blocking backend: its name, and the function that publishes.
#[macro_export]
macro_rules! export_publish {
    ($name:literal, $publish:expr) => {
        struct Publishing;

        impl $crate::guest::Backend for Publishing {
            const NAME: &'static str = $name;

            fn open() -> ::std::result::Result<Self, $crate::guest::OpenError> {
                Ok(Publishing)
            }

            fn publish(
                &mut self,
                events: &[$crate::guest::Event],
            ) -> ::std::result::Result<(), ::std::vec::Vec<$crate::guest::Failure>> {
                ($publish)(events)
            }
        }

        $crate::guest::export!(Publishing);
    };
}
