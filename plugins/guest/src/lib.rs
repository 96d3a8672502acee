//! Write a Backhaul queue backend in Rust, in one file.
//!
//! A backend is a type that implements [`Backend`] (blocking clients) or
//! [`AsyncBackend`] (clients with `async` functions), handed to [`export!`] or
//! [`export_async!`] in a `cdylib` crate built for `wasm32-wasip2`:
//!
//! ```no_run
//! use backhaul_guest::{Backend, Event, Failure, OpenError, cloudevent_lines, setting};
//! use std::io::{Read, Write};
//! use std::net::TcpStream;
//!
//! struct Lines(TcpStream);
//!
//! impl Backend for Lines {
//!     const NAME: &'static str = "lines";
//!
//!     fn open() -> Result<Self, OpenError> {
//!         Ok(Lines(TcpStream::connect(setting("LINES_ADDR")?)?))
//!     }
//!
//!     fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
//!         let sent = self.0.write_all(&cloudevent_lines(events));
//!         // This server answers each line it has stored with a byte.
//!         let stored = sent.and_then(|()| self.0.read_exact(&mut vec![0; events.len()]));
//!         stored.map_err(|error| Failure::all_retryable(0..events.len(), error.to_string()))
//!     }
//! }
//!
//! backhaul_guest::export!(Lines);
//! # fn main() {}
//! ```
//!
//! # Layout
//!
//! - [`mod@backend`]: the two traits, and what the host promises their authors.
//! - [`Event`]: what is published, and its helpers (CloudEvents JSON and headers,
//!   RFC 3339).
//! - [`Failure`] and [`PublishError`]: how an event that was not published is
//!   reported.
//! - [`setting`] and its relatives: configuration from the manifest.
//! - [`connect`]: a TCP connection within a deadline.
//! - [`mod@template`]: routing keys and names made of an event's attributes.
//! - `http`, with the feature of that name: requests, and answers of a sane size.
//!
//! The records are generated from the contract in `wit/backend.wit`, which has
//! the last word. The crate also builds for the host's own target, so that a
//! backend's logic can be tested without a WebAssembly runtime.

pub mod backend;
mod bindings;
mod cloudevent;
mod connect;
mod event;
mod failure;
mod headers;
#[cfg(feature = "http")]
pub mod http;
#[doc(hidden)]
pub mod instance;
mod setting;
pub mod template;

pub use backend::{AsyncBackend, Backend, OpenError};
pub use bindings::blocking::backhaul::backend::types::{Event, Failure, PublishError, Timestamp};
pub use cloudevent::cloudevent_lines;
pub use connect::{connect, remaining};
pub use event::Rfc3339;
pub use headers::percent_encoded;
pub use setting::{
    ContentMode, SettingError, content_mode_setting, parsed_setting, server_address, setting,
    setting_or, timeout_setting,
};
pub use template::{MissingAttribute, Template};

#[doc(hidden)]
pub use bindings::{asynchronous, blocking};
