//! A backend that is a sandboxed WASI component.
//!
//! One [`WasmEngine`] serves a whole process: it has components compiled (by a
//! `compiler`, unless the code is in its `cache`) and interrupts busy ones. What
//! a file is can be said before that (`outline`). A
//! [`WasmBackend`] is one component with its grants and limits; it keeps
//! instances alive and reuses them. What it knows of the contract is in
//! `bindings`; what a guest can reach is decided in `grants` and nowhere
//! else.
//!
//! This module knows nothing of files on disk or manifests (see `plugins`), nor
//! of queues and retries (see `delivery`).

mod backend;
mod bindings;
mod cache;
mod compiler;
mod component;
mod connect;
mod cpu;
mod engine;
mod entries;
mod filesystem;
mod grants;
mod health;
mod http;
mod instance;
mod limits;
mod lookup;
mod nats_info;
mod outline;
mod output;
mod relay;
mod secrets;
mod state;
mod text;
mod tls;

pub use backend::WasmBackend;
pub use compiler::{COMPILE_MEMORY, CompileError, Compiler, run_compiler};
pub use component::{Component, World};
pub use engine::{WasmEngine, WasmEngineBuilder};
pub use grants::{
    Denial, DenialKind, DenialReport, Denials, FileGrant, Grants, InvalidSocketGrant, SocketGrant,
};
pub use health::Health;
pub use http::{HttpGrant, InvalidHttpGrant};
pub use instance::{CallError, CallErrorKind};
pub use limits::Limits;
pub use outline::MAX_COMPONENT;
#[cfg(feature = "plugins")]
pub(crate) use outline::read_component;
pub use output::OutputStats;
pub use secrets::{EnvGrant, EnvValue, Secrets};
#[cfg(feature = "plugins")]
pub(crate) use text::{hex, is_name};
#[cfg(feature = "cli")]
pub(crate) use text::{is_invisible, printable};
pub use tls::{InvalidIdentity, InvalidRoots, TlsRoots};

/// Why a component cannot be used as a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are not a component; says what they are instead.
    #[error("{0}")]
    NotAComponent(String),

    /// It is larger than any component should be.
    #[error("it has {0} bytes; the largest component that is loaded has {MAX_COMPONENT}")]
    TooLarge(u64),

    /// It may be a component, but compiling it takes too much, or the compiler
    /// crashed.
    #[error(transparent)]
    Compile(#[from] CompileError),

    /// It is a component, but not of this contract.
    #[error("{0}")]
    WrongWorld(String),

    /// It imports what this host does not provide.
    #[error("{0}")]
    MissingImport(String),

    /// A grant cannot be given: a folder is missing, for instance.
    #[error("{0}")]
    Grant(String),

    /// The first instance could not be started, or its `name` is not one.
    #[error("the component cannot be started: {0}")]
    Start(#[source] CallError),

    /// Wasmtime cannot be set up on this machine.
    #[error("the Wasm engine cannot be used: {0}")]
    Engine(String),
}
