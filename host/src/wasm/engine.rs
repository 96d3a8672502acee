//! The engine: one per process. It compiles components and interrupts guests
//! that do not wait.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Component as Compiled, Linker};
use wasmtime::{Config, Engine};

use super::LoadError;
use super::cache::CodeCache;
use super::lookup;
use super::state::State;

/// How often a guest that computes without waiting lets others run; also how
/// late a time limit may be.
const EPOCH: Duration = Duration::from_millis(10);

/// Compiles and runs components. One serves a whole process; cloning shares it.
#[derive(Clone)]
pub struct WasmEngine(Arc<Inner>);

pub(super) struct Inner {
    pub(super) engine: Engine,
    pub(super) linker: Linker<State>,
    cache: Option<CodeCache>,
}

impl WasmEngine {
    /// An engine that keeps compiled code in `$XDG_CACHE_HOME/backhaul`.
    ///
    /// # Errors
    ///
    /// If Wasmtime does not run on this machine. A cache that cannot be used
    /// is only logged: everything works without, slower at start.
    pub fn new() -> Result<WasmEngine, LoadError> {
        WasmEngine::with_cache(WasmEngine::default_cache())
    }

    /// `$XDG_CACHE_HOME/backhaul` or its like; `None` where the user has no
    /// cache folder.
    pub fn default_cache() -> Option<PathBuf> {
        dirs::cache_dir().map(|folder| folder.join("backhaul"))
    }

    /// An engine that keeps compiled code in `cache`, or nowhere.
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn with_cache(cache: Option<PathBuf>) -> Result<WasmEngine, LoadError> {
        let setup = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let mut config = Config::new();
        config.epoch_interruption(true);
        let engine = Engine::new(&config).map_err(setup)?;
        let linker = linker(&engine).map_err(setup)?;
        let cache = cache.and_then(|folder| match CodeCache::open(&folder, &engine) {
            Ok(cache) => Some(cache),
            Err(error) => {
                tracing::warn!(folder = %folder.display(), %error,
                    "compiled plugins cannot be kept there; they are compiled at every start");
                None
            }
        });
        tick(&engine).map_err(|error| LoadError::Engine(error.to_string()))?;
        Ok(WasmEngine(Arc::new(Inner {
            engine,
            linker,
            cache,
        })))
    }

    /// Compiles `wasm`, or takes its code from the cache. Takes about a second
    /// per megabyte and processor, and holds up the thread.
    pub(super) fn compile(&self, wasm: &[u8]) -> wasmtime::Result<Compiled> {
        let Inner { engine, cache, .. } = &*self.0;
        if let Some(compiled) = cache.as_ref().and_then(|cache| cache.get(engine, wasm)) {
            return Ok(compiled);
        }
        tracing::info!(
            bytes = wasm.len(),
            "compiling a component; this takes a while the first time"
        );
        let code = engine.precompile_component(wasm)?;
        if let Some(Err(error)) = cache.as_ref().map(|cache| cache.put(wasm, &code)) {
            tracing::warn!(%error, "compiled code cannot be kept");
        }
        // SAFETY: the code comes straight from the compiler.
        unsafe { Compiled::deserialize(engine, &code) }
    }

    /// Where compiled code is kept, if it is.
    pub fn cache(&self) -> Option<&Path> {
        self.0.cache.as_ref().map(CodeCache::folder)
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }
}

impl fmt::Debug for WasmEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmEngine").finish_non_exhaustive()
    }
}

/// Everything a guest can import: WASI 0.2 and 0.3, with our own name lookup.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    linker.allow_shadowing(true);
    lookup::add_to_linker(&mut linker)?;
    linker.allow_shadowing(false);
    Ok(linker)
}

/// Advances the engine's epoch until the engine is gone.
fn tick(engine: &Engine) -> std::io::Result<()> {
    let engine = engine.weak();
    let thread = std::thread::Builder::new().name("backhaul-epoch".into());
    thread.spawn(move || {
        loop {
            std::thread::sleep(EPOCH);
            match engine.upgrade() {
                Some(engine) => engine.increment_epoch(),
                None => return,
            }
        }
    })?;
    Ok(())
}
