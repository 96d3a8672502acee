//! The engine: one per process. It compiles components and interrupts guests
//! that do not wait.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::{Component as Compiled, Linker};
use wasmtime::{Config, Engine};

use super::LoadError;
use super::cache::{CodeCache, ComponentHash};
use super::compiler::{CompileError, Compiler, compile_in_program, does_not_compile};
use super::grants::Reroute;
use super::state::State;
use super::text::hex;
use super::{connect, filesystem, http, lookup};

/// How often a guest that computes without waiting lets others run; also how
/// late a time limit may be.
pub(super) const EPOCH: Duration = Duration::from_millis(10);

/// Compiles and runs components. One serves a whole process; cloning shares it.
#[derive(Clone)]
pub struct WasmEngine(Arc<Inner>);

pub(super) struct Inner {
    pub(super) engine: Engine,
    pub(super) linker: Linker<State>,
    mark: EngineMark,
    cache: Option<CodeCache>,
    compiler: Compiler,
    pub(super) reroute: Reroute,
    /// One permit for each component that may be compiled at a time: half the
    /// processors are left to what the host is there for.
    compiling: Arc<Semaphore>,
}

/// What a [`WasmEngine`] is made with.
#[derive(Debug)]
#[must_use]
pub struct WasmEngineBuilder {
    cache: Option<PathBuf>,
    compiler: Compiler,
    reroute: Reroute,
}

impl WasmEngineBuilder {
    /// Keeps compiled code in `folder`, or nowhere. Default
    /// [`WasmEngine::default_cache`].
    pub fn cache(mut self, folder: Option<PathBuf>) -> WasmEngineBuilder {
        self.cache = folder;
        self
    }

    /// Who compiles. Default [`Compiler::InProcess`].
    pub fn compiler(mut self, compiler: Compiler) -> WasmEngineBuilder {
        self.compiler = compiler;
        self
    }

    /// Connects to `route(ADDRESS)` in place of each address that a plugin may
    /// reach: by TCP, with or without TLS, and for HTTP requests. It is for putting
    /// something between plugins and their servers, such as a proxy that fails on
    /// purpose. Default: to the address itself.
    ///
    /// `route` is called for every connection, after the address was looked up and
    /// found granted; what it returns needs no grant, and a plugin that asks for that
    /// itself is not led there. It must return an address of the same family, and must
    /// not wait. The plugin is told the address it asked for, and the server's
    /// certificate is checked for the name that is granted. UDP is not rerouted.
    pub fn reroute(
        mut self,
        route: impl Fn(SocketAddr) -> SocketAddr + Send + Sync + 'static,
    ) -> WasmEngineBuilder {
        self.reroute = Reroute::new(route);
        self
    }

    /// Makes the engine.
    ///
    /// # Errors
    ///
    /// If Wasmtime does not run on this machine. A cache that cannot be used
    /// is only logged: everything works without, slower at start.
    pub fn build(self) -> Result<WasmEngine, LoadError> {
        let setup = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let engine = new_engine().map_err(setup)?;
        let linker = linker(&engine).map_err(setup)?;
        let mark = EngineMark::of(&engine);
        let cache = self
            .cache
            .and_then(|folder| match CodeCache::open(&folder, mark) {
                Ok(cache) => Some(cache),
                Err(error) => {
                    tracing::warn!(folder = %folder.display(), %error,
                        "compiled plugins cannot be kept there; they are compiled at every start");
                    None
                }
            });
        tick(&engine).map_err(|error| LoadError::Engine(error.to_string()))?;
        let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
        Ok(WasmEngine(Arc::new(Inner {
            engine,
            linker,
            mark,
            cache,
            compiler: self.compiler,
            reroute: self.reroute,
            compiling: Arc::new(Semaphore::new((processors / 2).max(1))),
        })))
    }
}

impl WasmEngine {
    /// An engine that keeps compiled code in `$XDG_CACHE_HOME/backhaul`, and
    /// compiles in this process.
    ///
    /// # Errors
    ///
    /// As [`WasmEngineBuilder::build`].
    pub fn new() -> Result<WasmEngine, LoadError> {
        WasmEngine::builder().build()
    }

    /// The same, made to measure.
    pub fn builder() -> WasmEngineBuilder {
        WasmEngineBuilder {
            cache: WasmEngine::default_cache(),
            compiler: Compiler::default(),
            reroute: Reroute::default(),
        }
    }

    /// `$XDG_CACHE_HOME/backhaul` or its like; `None` where the user has no
    /// cache folder.
    pub fn default_cache() -> Option<PathBuf> {
        dirs::cache_dir().map(|folder| folder.join("backhaul"))
    }

    /// An engine that keeps compiled code in `cache`, or nowhere, and compiles in
    /// this process.
    ///
    /// # Errors
    ///
    /// As [`WasmEngineBuilder::build`].
    pub fn with_cache(cache: Option<PathBuf>) -> Result<WasmEngine, LoadError> {
        WasmEngine::builder().cache(cache).build()
    }

    /// The code of a component: from the cache, or compiled within `limit`.
    pub(super) async fn compile(
        &self,
        wasm: Bytes,
        limit: Duration,
    ) -> Result<Compilation, LoadError> {
        let engine = self.clone();
        let known = wasm.clone();
        let (hash, cached) = blocking(move || {
            let hash = ComponentHash::of(&known);
            Ok((hash, engine.cached(hash)))
        })
        .await?;
        if let Some(component) = cached {
            return Ok(Compilation {
                component,
                took: None,
            });
        }
        let compiling = &self.0.compiling;
        let permit = match compiling.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => {
                let permit = compiling.clone().acquire_owned().await;
                // While this one waited, another may have compiled the same.
                let engine = self.clone();
                if let Some(component) = blocking(move || Ok(engine.cached(hash))).await? {
                    return Ok(Compilation {
                        component,
                        took: None,
                    });
                }
                permit.map_err(|error| LoadError::Engine(error.to_string()))?
            }
        };
        tracing::info!(
            bytes = wasm.len(),
            "compiling a component; this takes a while the first time"
        );
        let started = Instant::now();
        let (code, _permit) = match self.0.compiler.clone() {
            Compiler::InProcess => (self.compile_here(wasm, limit, permit).await?, None),
            Compiler::Program {
                program,
                arguments,
                memory,
            } => {
                let compiler = (program, arguments, memory);
                let code = compile_in_program(compiler, self.0.mark, wasm, limit).await?;
                (code, Some(permit))
            }
        };
        let took = started.elapsed();
        tracing::debug!(?took, code = code.len(), "compiled");
        let engine = self.clone();
        blocking(move || {
            if let Some(Err(error)) = engine.0.cache.as_ref().map(|cache| cache.put(hash, &code)) {
                tracing::warn!(%error, "compiled code cannot be kept");
            }
            // SAFETY: the code comes straight from the compiler: this process, or the
            // program that whoever made the engine has named as one to be trusted like
            // this one. Wasmtime refuses code of another version or other settings.
            let component = unsafe { Compiled::deserialize(&engine.0.engine, &code) };
            let component = component.map_err(|error| LoadError::Engine(format!("{error:#}")))?;
            let took = Some(took);
            Ok(Compilation { component, took })
        })
        .await
    }

    /// Compiles in this process. A thread that is given up goes on, and keeps its
    /// permit.
    async fn compile_here(
        &self,
        wasm: Bytes,
        limit: Duration,
        permit: OwnedSemaphorePermit,
    ) -> Result<Vec<u8>, LoadError> {
        let engine = self.0.engine.clone();
        let compile = blocking(move || {
            let _permit = permit;
            let code = engine.precompile_component(&wasm);
            code.map_err(|error| does_not_compile(&format!("{error:#}")))
        });
        match tokio::time::timeout(limit, compile).await {
            Ok(code) => code,
            Err(_) => Err(CompileError::Timeout(limit).into()),
        }
    }

    fn cached(&self, hash: ComponentHash) -> Option<Compiled> {
        let cache = self.0.cache.as_ref()?;
        cache.get(&self.0.engine, hash)
    }

    /// Where compiled code is kept, if it is.
    pub fn cache(&self) -> Option<&Path> {
        self.0.cache.as_ref().map(CodeCache::folder)
    }

    pub(super) fn inner(&self) -> &Inner {
        &self.0
    }
}

/// A component's code, and what it took.
pub(super) struct Compilation {
    pub(super) component: Compiled,
    /// How long it was compiled; `None` if the code was there.
    pub(super) took: Option<Duration>,
}

/// What compiled code depends on besides the component: version and settings of
/// Wasmtime, and the processor. Equal marks mean that code fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct EngineMark(pub(super) [u8; 32]);

impl EngineMark {
    pub(super) fn of(engine: &Engine) -> EngineMark {
        struct Sha(Sha256);
        impl Hasher for Sha {
            fn write(&mut self, bytes: &[u8]) {
                self.0.update(bytes);
            }
            fn finish(&self) -> u64 {
                unreachable!("the digest is taken as a whole")
            }
        }
        let mut sha = Sha(Sha256::new());
        engine.precompile_compatibility_hash().hash(&mut sha);
        EngineMark(sha.0.finalize().into())
    }

    /// The beginning, in 16 hexadecimal digits.
    pub(super) fn short(&self) -> String {
        hex(&self.0[..8])
    }
}

/// Wasmtime with the settings of this host.
pub(super) fn new_engine() -> wasmtime::Result<Engine> {
    let mut config = Config::new();
    config.epoch_interruption(true);
    Engine::new(&config)
}

/// Does `work` on a thread for blocking work.
async fn blocking<R: Send + 'static>(
    work: impl FnOnce() -> Result<R, LoadError> + Send + 'static,
) -> Result<R, LoadError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|panic| Err(LoadError::Engine(panic.to_string())))
}

impl fmt::Debug for WasmEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmEngine").finish_non_exhaustive()
    }
}

/// Everything a guest can import: WASI 0.2 and 0.3, with our own name lookup and way to connect,
/// and outgoing HTTP.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    wasmtime_wasi::p3::add_to_linker(&mut linker)?;
    http::add_to_linker(&mut linker)?;
    linker.allow_shadowing(true);
    lookup::add_to_linker(&mut linker)?;
    connect::add_to_linker(&mut linker)?;
    filesystem::add_to_linker(&mut linker)?;
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
