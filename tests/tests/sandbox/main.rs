//! What a plugin can reach, how much it can use, and what becomes of one that
//! goes too far: the guests of `tests/guests` in their sandbox.
//!
//! Most tests use the library, without a process; those that look at the log or
//! at the host's memory start the program.

mod cache;
mod compile;
mod environment;
mod failures;
mod files;
mod guest;
mod http;
mod instances;
mod memory;
mod network;
mod output;
mod relay;
mod reroute;
mod slow_components;
mod startup;
mod time;
