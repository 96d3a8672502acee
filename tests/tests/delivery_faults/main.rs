//! What was answered 202 is delivered, whatever happens to the host, the disk, the
//! server behind a plugin, or the plugin: real processes, a real Redis, and an
//! oracle that reads what arrived. After every fault the books balance.
//!
//! The tests print what they measured; `cargo test --test delivery_faults --
//! --nocapture` shows it. `BACKHAUL_TEST_KILLS` says how often the host is killed
//! (50), `BACKHAUL_TEST_SEED` repeats a choice of moments.

mod broker;
mod damage;
mod dead_letters;
mod disk;
mod kills;
mod plugins;
mod positions;
mod scene;
mod stopping;
