//! A backend that is a sandboxed WASI component.
//!
//! One [`WasmEngine`] serves a whole process: it compiles components (or takes
//! the compiled code from its `cache`) and interrupts busy ones. A
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
mod component;
mod engine;
mod grants;
mod instance;
mod limits;
mod lookup;
mod output;
mod state;
mod text;

pub use backend::WasmBackend;
pub use component::{Component, World};
pub use engine::WasmEngine;
pub use grants::{FileGrant, Grants, InvalidTcpGrant, TcpGrant};
pub use instance::CallError;
pub use limits::Limits;
#[cfg(feature = "plugins")]
pub(crate) use text::is_name;

/// Why a component cannot be used as a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoadError {
    /// The bytes are not a component; says what they are instead.
    #[error("{0}")]
    NotAComponent(String),

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
