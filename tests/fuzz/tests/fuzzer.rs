//! libFuzzer with one target, the one BACKHAUL_FUZZ names. `cargo xtask fuzz`
//! builds and starts it; `main` is libFuzzer's own.

#![no_main]

use std::sync::OnceLock;

use backhaul_fuzz::{TARGETS, Target, named};

static TARGET: OnceLock<Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: choose(),
    |input: &[u8]| {
        if let Some(target) = TARGET.get() {
            (target.run)(input);
        }
    }
);

fn choose() {
    let name = std::env::var("BACKHAUL_FUZZ").unwrap_or_default();
    match named(&name) {
        Some(target) => drop(TARGET.set(target)),
        None => {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            eprintln!(
                "BACKHAUL_FUZZ is {name:?}; set it to one of {}",
                names.join(", ")
            );
            std::process::exit(2);
        }
    }
}
