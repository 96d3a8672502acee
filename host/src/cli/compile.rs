//! `backhaul compile`, hidden: the program compiles a component for another that
//! runs, `serve` or `check`.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;

use crate::wasm::{Compiler, WasmEngine, WasmEngineBuilder, run_compiler};

/// What the program starts itself with.
pub(super) const COMMAND: &str = "compile";

/// Compiles what is on standard input.
pub(super) fn run() -> ExitCode {
    run_compiler()
}

/// An engine that compiles in processes of this program.
pub(super) fn engine(cache: Option<PathBuf>) -> anyhow::Result<WasmEngine> {
    Ok(engine_builder(cache)?.build()?)
}

/// The same, to be given more.
pub(super) fn engine_builder(cache: Option<PathBuf>) -> anyhow::Result<WasmEngineBuilder> {
    let compiler = Compiler::this_program([COMMAND]);
    let compiler = compiler.context("the program cannot be found, to compile components with")?;
    Ok(WasmEngine::builder().cache(cache).compiler(compiler))
}
