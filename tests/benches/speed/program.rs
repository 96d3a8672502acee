//! Loading and starting a plugin, and the memory of an idle host.

use std::time::{Duration, Instant};

use backhaul::AsyncBackend;
use backhaul::plugins::PluginHost;
use backhaul::wasm::{Grants, Limits, WasmBackend, WasmEngine};
use backhaul_tests::components;
use backhaul_tests::host::Workspace;

use crate::report::{Better, ROUNDS, Report, median};

pub(crate) async fn run(report: &Report) -> anyhow::Result<()> {
    let wasm = std::fs::read(components::plugin("redis-streams"))?;
    let size = wasm.len() / 1000;
    if report.wants("plugin-load-cold") || report.wants("plugin-load-warm") {
        let cache = tempfile::tempdir()?;
        let cold = WasmEngine::with_cache(None)?;
        let warm = WasmEngine::with_cache(Some(cache.path().join("code")))?;
        warm.load(wasm.clone()).await?;
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push((load(&warm, &wasm).await?, load(&cold, &wasm).await?));
        }
        let cold: Vec<f64> = rounds.iter().map(|round| round.1).collect();
        let note = format!("redis-streams.wasm, {size} kB: read, compiled, checked");
        report.figure("plugin-load-cold", "ms", &cold, &note);
        let note = format!("the same from the cache on disk, {size} kB; theirs: without it");
        report.compare("plugin-load-warm", "ms", Better::Lower, &rounds, &note);
    }
    if report.wants("plugins-load-50") {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(load_fifty(&wasm).await?);
        }
        let note =
            format!("a folder of 50 plugins of {size} kB, loaded and started from the cache");
        report.figure("plugins-load-50", "ms", &rounds, &note);
    }
    if report.wants("plugin-instantiate") {
        let engine = WasmEngine::with_cache(None)?;
        let component = engine.load(wasm).await?;
        let mut rounds = Vec::new();
        for _ in 0..200 {
            let component = component.clone();
            let started = Instant::now();
            let backend =
                WasmBackend::start(component, "bench", Grants::default(), Limits::default())
                    .await?;
            rounds.push(started.elapsed().as_secs_f64() * 1e6);
            drop(backend);
        }
        report.figure(
            "plugin-instantiate",
            "us",
            &rounds,
            "redis-streams: an instance, and its `name` called",
        );
    }
    if report.wants("idle-memory") {
        let mut rounds = Vec::new();
        for _ in 0..3 {
            rounds.push(tokio::task::block_in_place(idle_memory)?);
        }
        let note = "resident memory of `backhaul serve` with file and redis-streams, code cached";
        report.figure("idle-memory", "MB", &[median(rounds.into_iter())], note);
    }
    Ok(())
}

async fn load(engine: &WasmEngine, wasm: &[u8]) -> anyhow::Result<f64> {
    let wasm = wasm.to_vec();
    let started = Instant::now();
    engine.load(wasm).await?;
    Ok(started.elapsed().as_secs_f64() * 1e3)
}

async fn load_fifty(wasm: &[u8]) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir()?;
    for n in 0..50 {
        let file = folder.path().join(format!("p{n}.wasm"));
        std::fs::write(&file, wasm)?;
        std::fs::write(file.with_extension("toml"), format!("name = \"p{n}\""))?;
    }
    let cache = tempfile::tempdir()?;
    let engine = WasmEngine::with_cache(Some(cache.path().join("code")))?;
    engine.load(wasm.to_vec()).await?;
    let started = Instant::now();
    let host = PluginHost::load(folder.path(), &engine).await?;
    let elapsed = started.elapsed();
    anyhow::ensure!(host.plugins().len() == 50, "all are loaded");
    host.close(Duration::from_secs(5)).await?;
    Ok(elapsed.as_secs_f64() * 1e3)
}

fn idle_memory() -> anyhow::Result<f64> {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    workspace.add_plugin("redis-streams", &components::plugin("redis-streams"), "");
    drop(workspace.serve()); // compiles, if that was not done before
    let host = workspace.serve();
    Ok(host.resident_bytes() as f64 / 1e6)
}
