//! What one instance has to itself on the host's side: its WASI context, its
//! handles, and what is counted.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::LoadError;
use super::filesystem::Files;
use super::grants::{Denials, Grants, Network};
use super::http::Http;
use super::limits::{Limits, MemoryMeter};
use super::output::{LogStream, OutputLog};

pub(super) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(super) memory: MemoryMeter,
    pub(super) network: Arc<Network>,
    pub(super) files: Files,
    http: Http,
}

impl State {
    /// The state of a new instance.
    pub(super) fn new(
        grants: &Grants,
        limits: &Limits,
        denials: &Arc<Denials>,
        network: &Arc<Network>,
        output: &Arc<OutputLog>,
    ) -> Result<State, LoadError> {
        let mut wasi = WasiCtxBuilder::new();
        wasi.stdout(LogStream::new(output.clone(), "stdout"));
        wasi.stderr(LogStream::new(output.clone(), "stderr"));
        grants.apply(&mut wasi, network.clone())?;
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        Ok(State {
            wasi: wasi.build(),
            table,
            memory: MemoryMeter::new(limits.memory),
            network: network.clone(),
            files: Files::new(&grants.files, denials.clone()),
            http: Http::new(grants, denials, network),
        })
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

impl WasiHttpView for State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        self.http.view(&mut self.table)
    }
}
