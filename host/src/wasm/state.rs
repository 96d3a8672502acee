//! What one instance has to itself on the host's side: its WASI context, its
//! handles, and what is counted.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::sockets::WasiSocketsCtxView;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::LoadError;
use super::grants::{Denials, Grants, Network};
use super::limits::{Limits, MAX_HANDLES, MemoryMeter};
use super::output::LogStream;

pub(super) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(super) memory: MemoryMeter,
    pub(super) network: Arc<Network>,
    /// See `lookup`.
    asked: HashMap<u32, String>,
}

impl State {
    /// The state of a new instance of the plugin `label`.
    pub(super) fn new(
        label: &Arc<str>,
        grants: &Grants,
        limits: &Limits,
        denials: &Arc<Denials>,
    ) -> Result<State, LoadError> {
        let network = Arc::new(Network::new(grants, denials.clone()));
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(LogStream::new(label.clone(), "stdout"));
        wasi.stderr(LogStream::new(label.clone(), "stderr"));
        grants.apply(&mut wasi, network.clone())?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Ok(State {
            wasi: wasi.build(),
            table,
            memory: MemoryMeter::new(limits.memory),
            network,
            asked: HashMap::new(),
        })
    }

    /// The sockets, and the names behind the look-ups that are open.
    pub(super) fn sockets_and_asked(
        &mut self,
    ) -> (WasiSocketsCtxView<'_>, &mut HashMap<u32, String>) {
        let State {
            wasi, table, asked, ..
        } = self;
        (
            WasiSocketsCtxView {
                ctx: wasi.sockets(),
                table,
            },
            asked,
        )
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}
