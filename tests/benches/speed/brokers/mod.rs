//! Events into real brokers, and into what stands for one: through the bus and a
//! component, against the same batches by a native client, and against the broker's
//! own benchmark.
//!
//! What is measured is the same for every broker and stands here; each file
//! beside this one is one broker with its native client.

mod emitted;
mod file;
mod kafka;
mod latency;
mod nats;
mod rabbitmq;
mod redis;
mod sqs;
mod webhook;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use backhaul::wasm::{Component, EnvGrant, Grants, Limits, WasmBackend, WasmEngine};
use backhaul::{Event, EventBus};
use backhaul_tests::components;

use crate::event;
use crate::report::{Better, ROUNDS, Report};

/// A broker that runs, or what the events go to in its place.
#[async_trait]
trait Broker: Send + Sync {
    /// What its benchmarks are called by.
    const NAME: &str;
    /// The plugin that publishes to it.
    const PLUGIN: &str;
    /// The native client, and how it is used.
    const CLIENT: &str;
    /// How many events a round has with full batches.
    const EVENTS: usize;

    /// `None` if this machine has none.
    async fn start() -> anyhow::Result<Option<Self>>
    where
        Self: Sized;

    /// What the plugin is granted besides its settings.
    fn grants(&self) -> anyhow::Result<Grants>;

    /// The plugin's settings.
    fn settings(&self) -> Vec<(&'static str, String)>;

    /// Removes all events.
    async fn empty(&self) -> anyhow::Result<()>;

    /// How many events are there.
    async fn len(&self) -> anyhow::Result<usize>;

    /// A new connection of the native client.
    async fn connect(&self) -> anyhow::Result<Box<dyn Client>>;

    /// The broker's own benchmark and how it is called, if this machine has it.
    fn tool(&self) -> Option<&'static str> {
        None
    }

    /// The rate the broker's own benchmark measures with so many events.
    fn run_tool(&self, _events: usize) -> anyhow::Result<f64> {
        anyhow::bail!("{} has no benchmark of its own", Self::NAME)
    }
}

/// A native client, used as well as its documentation shows.
#[async_trait]
trait Client: Send {
    /// Publishes a batch: all is sent, then all is acknowledged.
    async fn publish(&mut self, events: &[Event]) -> anyhow::Result<()>;
}

/// A server whose harness waits in its own way, with a runtime of its own: started
/// and ended where blocking is allowed.
struct Server<S>(Option<S>);

impl<S: Send + 'static> Server<S> {
    async fn start(
        start: impl FnOnce() -> Option<S> + Send + 'static,
    ) -> anyhow::Result<Option<Server<S>>> {
        let started = tokio::task::spawn_blocking(start).await?;
        Ok(started.map(|server| Server(Some(server))))
    }
}

impl<S> Deref for Server<S> {
    type Target = S;

    fn deref(&self) -> &S {
        self.0.as_ref().expect("it is taken only when dropped")
    }
}

impl<S> Drop for Server<S> {
    fn drop(&mut self) {
        tokio::task::block_in_place(|| self.0 = None);
    }
}

/// The class path of a broker's own benchmark, if `cargo xtask bench` could get it.
fn tool_jars(name: &str) -> Option<PathBuf> {
    let folder = components::target().join("servers").join(name);
    folder.exists().then(|| folder.join("*"))
}

/// A broker and its plugin, loaded.
struct Bench<B> {
    broker: Arc<B>,
    component: Component,
}

pub(crate) async fn run(report: &Report) -> anyhow::Result<()> {
    if let Some(redis) = of::<redis::Redis>(report, &redis::MORE).await? {
        redis::run(&redis, report).await?;
    }
    of::<rabbitmq::RabbitMq>(report, &[]).await?;
    of::<nats::Nats>(report, &[]).await?;
    of::<kafka::Kafka>(report, &[]).await?;
    of::<file::LineFile>(report, &[]).await?;
    of::<webhook::Webhook>(report, &[]).await?;
    of::<sqs::Sqs>(report, &[]).await?;
    Ok(())
}

/// The benchmarks that every broker has, if any of them or of `more` is asked for.
async fn of<B: Broker + 'static>(
    report: &Report,
    more: &[&str],
) -> anyhow::Result<Option<Bench<B>>> {
    let broker = B::NAME;
    let full = format!("{broker}-batch-256");
    let emitted = format!("emit-to-{broker}");
    let latency = [50, 99].map(|percent| format!("{broker}-latency-p{percent}"));
    let names = [&full, &emitted, &latency[0], &latency[1]].map(String::as_str);
    if !names.iter().chain(more).any(|name| report.wants(name)) {
        return Ok(None);
    }
    let Some(running) = B::start().await? else {
        for name in names.iter().chain(more) {
            report.skip(name, "its server is not installed; see docs/benchmarks.md");
        }
        return Ok(None);
    };
    let engine = WasmEngine::with_cache(None)?;
    let component = engine.load(std::fs::read(components::plugin(B::PLUGIN))?);
    let bench = Bench {
        broker: Arc::new(running),
        component: component.await?,
    };
    bench.batches(report, &full, 256, B::EVENTS).await?;
    if report.wants(&emitted) {
        bench.emitted(report, &emitted).await?;
    }
    if latency.iter().any(|name| report.wants(name)) {
        bench.latency(report, &latency).await?;
    }
    Ok(Some(bench))
}

impl<B: Broker + 'static> Bench<B> {
    /// The plugin with one instance.
    async fn backend(&self) -> anyhow::Result<WasmBackend> {
        let settings = self.broker.settings().into_iter();
        let grants = Grants {
            env: settings
                .map(|(name, value)| EnvGrant::plain(name, value))
                .collect(),
            ..self.broker.grants()?
        };
        let component = self.component.clone();
        Ok(WasmBackend::start(component, B::PLUGIN, grants, Limits::default()).await?)
    }

    /// Batch after batch, each acknowledged before the next.
    async fn batches(
        &self,
        report: &Report,
        name: &str,
        batch: usize,
        count: usize,
    ) -> anyhow::Result<()> {
        if !report.wants(name) {
            return Ok(());
        }
        let bus = EventBus::with_backend(self.backend().await?);
        bus.forward("*".parse()?);
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let (bus, batches) = (bus.clone(), events(count));
            let ours = self.round(count, async move {
                for batch in batches.chunks(batch) {
                    bus.emit_batch(batch).await?;
                }
                Ok(())
            });
            rounds.push((ours.await?, self.natively(batch, count).await?));
        }
        let client = B::CLIENT;
        let note =
            format!("batches of {batch}, each acknowledged before the next; theirs: {client}");
        report.compare(name, "events/s", Better::Higher, &rounds, &note);
        Ok(())
    }

    /// The same by the native client: the rate.
    async fn natively(&self, batch: usize, count: usize) -> anyhow::Result<f64> {
        let (mut client, batches) = (self.broker.connect().await?, events(count));
        let round = self.round(count, async move {
            for batch in batches.chunks(batch) {
                client.publish(batch).await?;
            }
            Ok(())
        });
        round.await
    }

    /// The rate of `work`, which publishes `count` events; in a task of its own, as
    /// a host's deliveries are.
    async fn round(
        &self,
        count: usize,
        work: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> anyhow::Result<f64> {
        self.broker.empty().await?;
        let started = Instant::now();
        tokio::spawn(work).await??;
        let rate = count as f64 / started.elapsed().as_secs_f64();
        let arrived = self.broker.len().await?;
        anyhow::ensure!(arrived == count, "{arrived} of {count} events arrived");
        Ok(rate)
    }
}

/// The server at `HOST:PORT`.
fn tcp(address: &str) -> anyhow::Result<Grants> {
    Ok(Grants {
        tcp: vec![address.parse()?],
        ..Grants::default()
    })
}

/// The origin `http://HOST:PORT`.
fn http(origin: &str) -> anyhow::Result<Grants> {
    Ok(Grants {
        http: vec![origin.parse()?],
        ..Grants::default()
    })
}

/// A client that sends one request after the other over a connection that is kept.
fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder().proxy(None);
    ureq::Agent::new_with_config(config.build())
}

/// So many events, each with an id of its own.
fn events(count: usize) -> Vec<Event> {
    (0..count).map(|_| event()).collect()
}
