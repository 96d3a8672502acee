//! What one instance has to itself on the host's side: its WASI context, its
//! handles, and what is counted.

use std::sync::Arc;

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtxView, WasiHttpView};

use super::connect::Asked;
use super::filesystem::Files;
use super::grants::{Denials, Grants, Network, OpenFolder};
use super::http::Http;
use super::limits::{Limits, MemoryMeter};
use super::output::{LogStream, OutputLog};
use super::relay::Relays;

/// The most random bytes a guest gets in one call. They are made one by one, in
/// the host's memory.
const MAX_RANDOM: u64 = 64 << 10;

pub(super) struct State {
    wasi: WasiCtx,
    table: ResourceTable,
    pub(super) memory: MemoryMeter,
    pub(super) network: Arc<Network>,
    pub(super) asked: Asked,
    pub(super) relays: Relays,
    pub(super) files: Files,
    http: Http,
}

impl State {
    /// The state of a new instance.
    pub(super) fn new(
        grants: &Grants,
        folders: &Arc<[OpenFolder]>,
        limits: &Limits,
        denials: &Arc<Denials>,
        network: &Arc<Network>,
        output: &Arc<OutputLog>,
    ) -> State {
        let mut wasi = WasiCtxBuilder::new();
        wasi.max_random_size(MAX_RANDOM);
        wasi.stdout(LogStream::new(output.clone(), "stdout"));
        wasi.stderr(LogStream::new(output.clone(), "stderr"));
        grants.apply(&mut wasi, network.clone());
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        State {
            wasi: wasi.build(),
            table,
            memory: MemoryMeter::new(limits.memory),
            network: network.clone(),
            asked: Asked::default(),
            relays: Relays::new(network.clone(), grants.tls.clone()),
            files: Files::new(folders.clone(), denials.clone()),
            http: Http::new(grants, denials, network),
        }
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
