//! What the host reads from others, read with input made up.
//!
//! A [`Target`] is a function that takes any bytes and panics if the host does
//! what it must not. `cargo xtask fuzz` has libFuzzer look for such bytes, with
//! the program in `tests/fuzzer.rs`; the test in `tests/replay.rs` reads what was found
//! once, and the seeds, in `corpus/`, with every `cargo test`.
//!
//! - `manifest`: a plugin's manifest.
//! - `cloudevents`: requests, and what the guest crate writes read back.
//! - `texts`: grants, patterns, and the parts of an event.
//! - `component`: components of any kind, damaged by `damage`.
//! - `answers`: what a component answers, by its bindings.
//! - `memory`: what a component answers, as it lies in its memory.
//!
//! `sandbox` is what the last three share, `shown` what they hold a guest's text
//! to, `small` a component of some hundred bytes.

mod answers;
mod cloudevents;
mod component;
mod damage;
mod manifest;
mod memory;
mod sandbox;
mod shown;
mod small;
mod texts;

/// Something of the host that reads what others wrote.
#[derive(Clone, Copy)]
pub struct Target {
    /// What it is called on the command line; its folder in `corpus/`.
    pub name: &'static str,
    /// Reads the input, and panics on a finding.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 6] = [
    target("manifest", manifest::run),
    target("cloudevents", cloudevents::run),
    target("texts", texts::run),
    target("component", component::run),
    target("answers", answers::run),
    target("memory", memory::run),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// The target of this name.
pub fn named(name: &str) -> Option<Target> {
    TARGETS.into_iter().find(|target| target.name == name)
}
