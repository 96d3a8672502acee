//! How long one event takes when little is going on: from the emit until the broker
//! has acknowledged it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use async_trait::async_trait;
use backhaul::wasm::WasmBackend;
use backhaul::{AsyncBackend, CloseError, Delivery, DeliveryOptions, Event, EventBus, Failure};
use tokio::sync::mpsc;

use super::{Bench, Broker, Client};
use crate::event;
use crate::report::{ALONE, PAUSE, ROUNDS, Report};

impl<B: Broker + 'static> Bench<B> {
    /// The median and the 99th percentile.
    pub(super) async fn latency(&self, report: &Report, names: &[String; 2]) -> anyhow::Result<()> {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let ours = tokio::spawn(ours(self.backend().await?)).await??;
            let theirs = tokio::spawn(theirs(self.broker.connect().await?)).await??;
            rounds.push((ours, theirs));
        }
        let client = B::CLIENT;
        let note = format!("one event each 2 ms, emit to acknowledgement; theirs: {client}");
        report.latencies(names, &rounds, &note);
        Ok(())
    }
}

async fn ours(backend: WasmBackend) -> anyhow::Result<Vec<f64>> {
    let (published, mut told) = mpsc::unbounded_channel();
    let backend = Arc::new(Told { backend, published });
    let bus = EventBus::with_backend(Delivery::new(backend, DeliveryOptions::default()));
    bus.forward("*".parse()?);
    let mut times = Vec::new();
    for _ in 0..ALONE {
        let event = event();
        let started = Instant::now();
        bus.emit(event).await?;
        let published = told.recv().await.context("the backend is gone")?;
        times.push(published.duration_since(started).as_secs_f64() * 1e6);
        tokio::time::sleep(PAUSE).await;
    }
    bus.close(Duration::from_secs(5)).await?;
    Ok(times)
}

async fn theirs(mut client: Box<dyn Client>) -> anyhow::Result<Vec<f64>> {
    let mut times = Vec::new();
    for _ in 0..ALONE {
        let event = event();
        let started = Instant::now();
        client.publish(&[event]).await?;
        times.push(started.elapsed().as_secs_f64() * 1e6);
        tokio::time::sleep(PAUSE).await;
    }
    Ok(times)
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
