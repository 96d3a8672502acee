//! End to end: emitted one by one from several tasks, queued, batched, and
//! published by the component, until everything is delivered.

use std::time::Duration;

use backhaul::{Delivery, DeliveryOptions, EmitError, EventBus, Journal, JournalOptions, StartAt};
use backhaul_tests::components;

use super::{Bench, Broker};
use crate::event;
use crate::report::{Better, ROUNDS, Report};

impl<B: Broker + 'static> Bench<B> {
    /// Against the broker's own benchmark or, where there is none, the native client.
    pub(super) async fn emitted(&self, report: &Report, name: &str) -> anyhow::Result<()> {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let ours = self.emit(self.in_memory().await?, 4).await?;
            let theirs = match self.broker.tool() {
                Some(_) => {
                    self.broker.empty().await?;
                    let broker = self.broker.clone();
                    let run = move || broker.run_tool(B::EVENTS);
                    tokio::task::spawn_blocking(run).await??
                }
                None => self.natively(256, B::EVENTS).await?,
            };
            rounds.push((ours, theirs));
        }
        let theirs = self.broker.tool().unwrap_or(B::CLIENT);
        let note = format!("4 tasks, bus, delivery and component, one instance; theirs: {theirs}");
        report.compare(name, "events/s", Better::Higher, &rounds, &note);
        Ok(())
    }

    /// With the journal, against the same without it.
    pub(super) async fn durable(&self, report: &Report, name: &str) -> anyhow::Result<()> {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            // Where the benchmarks are built is a disk.
            let folder = tempfile::tempdir_in(components::target())?;
            let journal = Journal::open(folder.path(), JournalOptions::default())?;
            let (backend, options) = (self.backend().await?, DeliveryOptions::default());
            let durable = journal.delivery(backend, options, StartAt::Now, &[])?;
            let ours = self.emit(durable, 256).await?;
            rounds.push((ours, self.emit(self.in_memory().await?, 256).await?));
        }
        let note =
            "256 tasks, journal, delivery and component, one instance; theirs: the same in memory";
        report.compare(name, "events/s", Better::Higher, &rounds, note);
        Ok(())
    }

    pub(super) async fn in_memory(&self) -> anyhow::Result<Delivery> {
        Ok(Delivery::new(
            self.backend().await?,
            DeliveryOptions::default(),
        ))
    }

    /// Emits from so many tasks until everything is delivered: the rate.
    async fn emit(&self, delivery: Delivery, tasks: usize) -> anyhow::Result<f64> {
        let bus = EventBus::with_backend(delivery);
        bus.forward("*".parse()?);
        let round = self.round(B::EVENTS, async move {
            let mut emitting = tokio::task::JoinSet::new();
            for task in 0..tasks {
                let bus = bus.clone();
                let count = (task..B::EVENTS).step_by(tasks).len();
                emitting.spawn(emit_one_by_one(bus, count));
            }
            for emitted in emitting.join_all().await {
                emitted?;
            }
            Ok(bus.close(Duration::from_secs(60)).await?)
        });
        round.await
    }
}

async fn emit_one_by_one(bus: EventBus, count: usize) -> anyhow::Result<()> {
    for _ in 0..count {
        let event = event();
        loop {
            match bus.emit(event.clone()).await {
                Err(EmitError::QueueFull { .. }) => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                emitted => break emitted?,
            }
        }
    }
    Ok(())
}
