//! Events into a real Redis through the component, against the same client
//! library natively, and against Redis's own benchmark.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use backhaul::wasm::{EnvGrant, Grants, Limits, WasmBackend, WasmEngine};
use backhaul::{
    AsyncBackend, CloseError, Delivery, DeliveryOptions, EmitError, Event, EventBus, Failure,
    Journal, JournalOptions, StartAt,
};
use backhaul_tests::components;
use backhaul_tests::redis_server::RedisServer;
use tokio::sync::mpsc;

use crate::report::{Better, ROUNDS, Report, percentile};
use crate::{event, payload};

const STREAM: &str = "backhaul:events";
const BATCHES: [(&str, usize, usize); 3] = [
    ("redis-batch-1", 1, 10_000),
    ("redis-batch-64", 64, 256_000),
    ("redis-batch-256", 256, 256_000),
];

pub(crate) async fn run(report: &Report) -> anyhow::Result<()> {
    let names = [
        "emit-to-redis",
        "durable-to-redis",
        "redis-latency-p50",
        "redis-latency-p99",
    ];
    let mut all = BATCHES.iter().map(|(name, ..)| *name).chain(names);
    if !all.any(|name| report.wants(name)) {
        return Ok(());
    }
    let Some(redis) = RedisServer::with(&["--appendonly", "no"]) else {
        report.skip("redis-*", "there is no redis-server");
        return Ok(());
    };
    let engine = WasmEngine::with_cache(None)?;
    let component = engine
        .load(std::fs::read(components::plugin("redis-streams"))?)
        .await?;
    let backend = async |instances| {
        let grants = Grants {
            tcp: vec![redis.address().parse()?],
            env: vec![EnvGrant::plain("REDIS_URL", redis.url())],
            ..Grants::default()
        };
        let limits = Limits {
            instances,
            ..Limits::default()
        };
        anyhow::Ok(WasmBackend::start(component.clone(), "redis-streams", grants, limits).await?)
    };

    for (name, batch, events) in BATCHES {
        if report.wants(name) {
            let backend = backend(1).await?;
            let mut rounds = Vec::new();
            for _ in 0..ROUNDS {
                let ours = through_component(&redis, &backend, batch, events).await?;
                let theirs = tokio::task::block_in_place(|| natively(&redis, batch, events))?;
                rounds.push((ours, theirs));
            }
            let note = format!("XADD in pipelines of {batch}; theirs: the redis crate natively");
            report.compare(name, "events/s", Better::Higher, &rounds, &note);
        }
    }
    if report.wants("emit-to-redis") {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let delivery = Delivery::new(backend(1).await?, DeliveryOptions::default());
            let ours = emitted(&redis, delivery, 4).await?;
            rounds.push((
                ours,
                tokio::task::block_in_place(|| redis_benchmark(&redis, EMITTED))?,
            ));
        }
        let note = "bus, delivery and component, one instance; theirs: redis-benchmark -P 256 -c 1";
        report.compare("emit-to-redis", "events/s", Better::Higher, &rounds, note);
    }
    if report.wants("durable-to-redis") {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            // Where the benchmarks are built is a disk.
            let folder = tempfile::tempdir_in(components::target())?;
            let journal = Journal::open(folder.path(), JournalOptions::default())?;
            let options = DeliveryOptions::default();
            let durable = journal.delivery(backend(1).await?, options, StartAt::Now, &[])?;
            let ours = emitted(&redis, durable, 256).await?;
            let in_memory = Delivery::new(backend(1).await?, options);
            rounds.push((ours, emitted(&redis, in_memory, 256).await?));
        }
        let note =
            "256 tasks, journal, delivery and component, one instance; theirs: the same in memory";
        report.compare(
            "durable-to-redis",
            "events/s",
            Better::Higher,
            &rounds,
            note,
        );
    }
    if report.wants("redis-latency-p50") || report.wants("redis-latency-p99") {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let ours = emit_latencies(backend(1).await?).await?;
            rounds.push((
                ours,
                tokio::task::block_in_place(|| native_latencies(&redis))?,
            ));
        }
        for (name, at) in [("redis-latency-p50", 0.5), ("redis-latency-p99", 0.99)] {
            let at = |round: &(Vec<f64>, Vec<f64>)| {
                let of = |times: &[f64]| percentile(times.iter().copied(), at);
                (of(&round.0), of(&round.1))
            };
            let rounds: Vec<_> = rounds.iter().map(at).collect();
            let note = "one event each 2 ms, emit to acknowledgement; theirs: one XADD natively";
            report.compare(name, "us", Better::Lower, &rounds, note);
        }
    }
    Ok(())
}

fn flush(redis: &RedisServer) -> anyhow::Result<()> {
    Ok(redis::cmd("FLUSHALL").query(&mut redis.connect())?)
}

/// Checks that a round did what it says.
fn check(redis: &RedisServer, events: usize) -> anyhow::Result<()> {
    anyhow::ensure!(
        redis.len(STREAM) == events,
        "{} of {events} arrived",
        redis.len(STREAM)
    );
    Ok(())
}

/// The component called directly, batch after batch.
async fn through_component(
    redis: &RedisServer,
    backend: &WasmBackend,
    batch: usize,
    events: usize,
) -> anyhow::Result<f64> {
    flush(redis)?;
    let batches: Vec<Event> = (0..batch).map(|_| event()).collect();
    let started = Instant::now();
    for _ in 0..events / batch {
        let published = backend.publish(&batches).await;
        published.map_err(|failures| anyhow::anyhow!("{failures:?}"))?;
    }
    let rate = events as f64 / started.elapsed().as_secs_f64();
    check(redis, events)?;
    Ok(rate)
}

/// The redis crate as its documentation shows it: a pipeline per batch.
fn natively(redis: &RedisServer, batch: usize, events: usize) -> anyhow::Result<f64> {
    flush(redis)?;
    let mut connection = redis.connect();
    let batches: Vec<Event> = (0..batch).map(|_| event()).collect();
    let started = Instant::now();
    for _ in 0..events / batch {
        let mut pipeline = redis::pipe();
        for event in &batches {
            pipeline.add_command(xadd(event)).ignore();
        }
        pipeline.query::<()>(&mut connection)?;
    }
    let rate = events as f64 / started.elapsed().as_secs_f64();
    check(redis, events)?;
    Ok(rate)
}

/// The same fields as the plugin writes.
fn xadd(event: &Event) -> redis::Cmd {
    let mut command = redis::cmd("XADD");
    command.arg(STREAM).arg("*");
    command.arg("id").arg(event.id());
    command.arg("type").arg(event.event_type());
    command.arg("source").arg(event.source());
    command.arg("time").arg(event.time().to_string());
    command.arg("data").arg(&event.data()[..]);
    command.arg("datacontenttype").arg(event.content_type());
    command
}

/// How many events are emitted in a round.
const EMITTED: usize = 500_000;

/// Emits from so many tasks until everything is delivered.
async fn emitted(redis: &RedisServer, delivery: Delivery, tasks: usize) -> anyhow::Result<f64> {
    flush(redis)?;
    let bus = EventBus::with_backend(delivery);
    bus.forward("*".parse()?);
    let started = Instant::now();
    let mut emitting = tokio::task::JoinSet::new();
    for task in 0..tasks {
        let bus = bus.clone();
        emitting.spawn(async move {
            for _ in (task..EMITTED).step_by(tasks) {
                let event = event();
                while let Err(error) = bus.emit(event.clone()).await {
                    assert!(matches!(error, EmitError::QueueFull { .. }), "{error}");
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        });
    }
    emitting.join_all().await;
    bus.close(Duration::from_secs(60)).await?;
    let rate = EMITTED as f64 / started.elapsed().as_secs_f64();
    check(redis, EMITTED)?;
    Ok(rate)
}

/// Redis's own benchmark with the same XADD.
fn redis_benchmark(redis: &RedisServer, events: usize) -> anyhow::Result<f64> {
    flush(redis)?;
    let (_, port) = redis
        .address()
        .rsplit_once(':')
        .map(|(h, p)| (h.to_owned(), p.to_owned()))
        .context("a port")?;
    let event = event();
    let data = String::from_utf8(payload().to_vec())?;
    let time = event.time().to_string();
    let output = Command::new("redis-benchmark")
        .args([
            "-p",
            &port,
            "-n",
            &events.to_string(),
            "-P",
            "256",
            "-c",
            "1",
            "--csv",
        ])
        .args([
            "XADD",
            STREAM,
            "*",
            "id",
            event.id(),
            "type",
            event.event_type(),
        ])
        .args(["source", event.source(), "time", &time, "data", &data])
        .args(["datacontenttype", "application/json"])
        .output()
        .context("redis-benchmark")?;
    let text = String::from_utf8(output.stdout)?;
    // "name","rps",... and below it the figures; the command's own quotes are
    // escaped, so the second field is found from the end.
    let line = text.lines().last().context("no output")?;
    let fields: Vec<&str> = line.rsplitn(8, ',').collect();
    let rate = fields
        .get(6)
        .context("no rate")?
        .trim_matches('"')
        .parse()?;
    Ok(rate)
}

/// Tells when the wrapped backend has published.
struct Told {
    backend: WasmBackend,
    published: mpsc::UnboundedSender<Instant>,
}

#[async_trait]
impl AsyncBackend for Told {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let result = self.backend.publish(events).await;
        let _ = self.published.send(Instant::now());
        result
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        self.backend.close(grace).await
    }

    fn name(&self) -> &str {
        self.backend.name()
    }
}

const LATENCY_EVENTS: usize = 500;
const LATENCY_PAUSE: Duration = Duration::from_millis(2);

async fn emit_latencies(backend: WasmBackend) -> anyhow::Result<Vec<f64>> {
    let (published, mut told) = mpsc::unbounded_channel();
    let backend = Arc::new(Told { backend, published });
    let bus = EventBus::with_backend(Delivery::new(backend, DeliveryOptions::default()));
    bus.forward("*".parse()?);
    let mut times = Vec::new();
    for _ in 0..LATENCY_EVENTS {
        let event = event();
        let started = Instant::now();
        bus.emit(event).await?;
        let published = told.recv().await.context("the backend is gone")?;
        times.push(published.duration_since(started).as_secs_f64() * 1e6);
        tokio::time::sleep(LATENCY_PAUSE).await;
    }
    bus.close(Duration::from_secs(5)).await?;
    Ok(times)
}

fn native_latencies(redis: &RedisServer) -> anyhow::Result<Vec<f64>> {
    let mut connection = redis.connect();
    let mut times = Vec::new();
    for _ in 0..LATENCY_EVENTS {
        let event = event();
        let started = Instant::now();
        xadd(&event).query::<String>(&mut connection)?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
        std::thread::sleep(LATENCY_PAUSE);
    }
    Ok(times)
}
