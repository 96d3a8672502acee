//! A compiled component, and what can be said of it without running it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use wasmtime::component::types::ComponentItem;
use wasmtime::component::{Component as Compiled, ComponentExportIndex, InstancePre};

use super::LoadError;
use super::bindings::{ASYNC_BACKEND, BLOCKING_BACKEND};
use super::engine::{Compilation, WasmEngine};
use super::limits::Limits;
use super::outline;
use super::state::State;

/// Which of the contract's worlds a component implements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// `backend`: exports `async-backend`.
    Backend,
    /// `backend-blocking`: exports `blocking-backend`.
    BlockingBackend,
}

impl World {
    pub(super) fn interface(self) -> &'static str {
        match self {
            World::Backend => ASYNC_BACKEND,
            World::BlockingBackend => BLOCKING_BACKEND,
        }
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            World::Backend => "backend",
            World::BlockingBackend => "backend-blocking",
        })
    }
}

/// A compiled component that exports a backend and imports nothing this host
/// lacks. Cloning is cheap.
#[derive(Clone)]
pub struct Component {
    pub(super) engine: WasmEngine,
    pub(super) pre: InstancePre<State>,
    pub(super) functions: Functions,
    world: World,
    compiled_in: Option<Duration>,
}

/// Where the three functions are, so that no instance looks them up by name.
#[derive(Clone, Copy)]
pub(super) struct Functions {
    pub(super) name: ComponentExportIndex,
    pub(super) publish: ComponentExportIndex,
    pub(super) close: ComponentExportIndex,
}

impl WasmEngine {
    /// [`load_within`](Self::load_within) the default time.
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn load(&self, wasm: impl Into<Bytes>) -> Result<Component, LoadError> {
        self.load_within(wasm, Limits::default().compile_timeout)
            .await
    }

    /// Compiles a component, or takes its code from the cache, and checks that
    /// it is a backend. Runs none of it.
    ///
    /// Compiling may take `limit`, waiting for its turn not included; about half
    /// as many components as there are processors are compiled at a time. Most
    /// take a second for a few megabytes. When this is dropped, a
    /// [`Compiler::Program`](super::Compiler::Program) is ended; in this process,
    /// the compiling thread goes on until it is done.
    ///
    /// # Errors
    ///
    /// Says what the bytes are instead, or what is missing, or what compiling
    /// came up against.
    pub async fn load_within(
        &self,
        wasm: impl Into<Bytes>,
        limit: Duration,
    ) -> Result<Component, LoadError> {
        let wasm = wasm.into();
        outline::check(&wasm)?;
        let compilation = self.compile(wasm, limit).await?;
        let engine = self.clone();
        tokio::task::spawn_blocking(move || Component::new(engine, compilation))
            .await
            .unwrap_or_else(|panic| Err(LoadError::Engine(panic.to_string())))
    }
}

impl Component {
    fn new(engine: WasmEngine, compilation: Compilation) -> Result<Component, LoadError> {
        let Compilation {
            component: compiled,
            took,
        } = compilation;
        let exported = |world: &World| compiled.get_export_index(None, world.interface()).is_some();
        let Some(world) = [World::Backend, World::BlockingBackend]
            .into_iter()
            .find(exported)
        else {
            return Err(wrong_world(&engine, &compiled));
        };
        let interface = compiled.get_export_index(None, world.interface());
        let function = |name: &str| {
            compiled
                .get_export_index(interface.as_ref(), name)
                .ok_or_else(|| {
                    LoadError::WrongWorld(format!(
                        "its {} lacks the function `{name}`",
                        world.interface()
                    ))
                })
        };
        let functions = Functions {
            name: function("name")?,
            publish: function("publish")?,
            close: function("close")?,
        };
        let pre = engine
            .inner()
            .linker
            .instantiate_pre(&compiled)
            .map_err(|error| {
                LoadError::MissingImport(format!(
                    "it imports what this host does not provide: {}. A backend may import \
                     WASI 0.2 and 0.3: clocks, random, cli, filesystem, sockets and outgoing HTTP",
                    shown(&error)
                ))
            })?;
        Ok(Component {
            engine,
            pre,
            functions,
            world,
            compiled_in: took,
        })
    }

    /// The world it implements.
    pub fn world(&self) -> World {
        self.world
    }

    /// How long it was compiled; `None` if its code was in the cache.
    pub fn compiled_in(&self) -> Option<Duration> {
        self.compiled_in
    }

    /// The interfaces it imports, by name.
    pub fn imports(&self) -> Vec<String> {
        let ty = self.pre.component().component_type();
        ty.imports(&self.engine.inner().engine)
            .map(|(name, _)| name.to_owned())
            .collect()
    }
}

impl fmt::Debug for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Component")
            .field("world", &self.world)
            .finish_non_exhaustive()
    }
}

/// Wasmtime's message, which may quote the file.
fn shown(error: &wasmtime::Error) -> String {
    super::text::printable(&format!("{error:#}"), 1000)
}

fn wrong_world(engine: &WasmEngine, compiled: &Compiled) -> LoadError {
    let ty = compiled.component_type();
    let exports: Vec<String> = ty
        .exports(&engine.inner().engine)
        .map(|(name, export)| match export.ty {
            ComponentItem::ComponentInstance(_) => name.to_owned(),
            ComponentItem::ComponentFunc(_) => format!("the function {name}"),
            _ => format!("the item {name}"),
        })
        .collect();
    let exports = match exports.as_slice() {
        [] => "nothing".to_owned(),
        exports => super::text::printable(&exports.join(", "), 500),
    };
    LoadError::WrongWorld(format!(
        "it is a component, but not a backend: it exports {exports}; a backend exports \
         {ASYNC_BACKEND} or {BLOCKING_BACKEND}"
    ))
}
