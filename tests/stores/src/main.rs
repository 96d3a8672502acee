//! Embedded stores under the journal's workload, beside the limit.
//!
//! `cargo run --release -- FOLDER [PART...]` in this folder, where FOLDER is on
//! the disk to measure and the parts are `append`, `steady`, `backlog`,
//! `damage` and `full` (all without). Prints Markdown. `full` mounts a small
//! file system and needs root. Figures of a busy machine are worth little.
//!
//! - [`store`]: what is asked of a store; a file for each store beside it.
//! - [`record`]: what is stored.
//! - [`speed`], [`damage`], [`full`]: the parts; [`child`]: their processes.

mod bare;
mod child;
mod damage;
mod files;
mod fjall;
mod full;
#[allow(dead_code, reason = "the journal uses all of it")]
mod journal;
mod own;
mod raft;
mod record;
mod redb;
mod report;
mod speed;
mod sqlite;
mod store;

use std::path::Path;

use anyhow::{Context, Result};
use report::Table;

/// A part's name and the part.
type Part = (&'static str, fn(&Path) -> Result<Table>);

/// The parts, in the order they are run.
const PARTS: [Part; 5] = [
    ("append", speed::append),
    ("steady", speed::steady),
    ("backlog", speed::backlog),
    ("damage", damaged),
    ("full", full::run),
];

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (folder, names) = arguments.split_first().context("which folder?")?;
    if folder == "child" {
        return child::main(names);
    }
    let folder = tempfile::tempdir_in(folder).with_context(|| format!("no folder in {folder}"))?;
    for (name, run) in PARTS {
        if names.is_empty() || names.iter().any(|wanted| wanted == name) {
            let table = run(folder.path()).with_context(|| format!("in part {name}"))?;
            println!("{table}");
        }
    }
    Ok(())
}

/// Damage is not about time: hundreds of copies go to memory where they can.
fn damaged(folder: &Path) -> Result<Table> {
    match tempfile::tempdir_in("/dev/shm") {
        Ok(memory) => damage::run(memory.path()),
        Err(_) => damage::run(folder),
    }
}
