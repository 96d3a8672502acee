//! The bus with its worker pool, against a plain tokio channel with as many
//! workers: how many events a second, and how long one takes when little is going on.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use backhaul::{DEFAULT_QUEUE, DEFAULT_WORKERS, EmitError, Event, EventBus, Handler, HandlerError};
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;

use crate::event;
use crate::report::{ALONE, Better, PAUSE, ROUNDS, Report};

const EVENTS: usize = 400_000;

pub(crate) async fn run(report: &Report) -> anyhow::Result<()> {
    for (name, producers) in [("bus-pool", 1), ("bus-pool-8", 8)] {
        if !report.wants(name) {
            continue;
        }
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push((ours(producers).await?, theirs(producers).await));
        }
        let note = format!(
            "{producers} producer(s), {DEFAULT_WORKERS} workers, a queue of {DEFAULT_QUEUE}; \
             theirs: tokio::sync::mpsc, its receiver shared in a tokio Mutex"
        );
        report.compare(name, "events/s", Better::Higher, &rounds, &note);
    }
    latency(report).await
}

/// From the emit until the handler has begun: the median and the 99th percentile.
async fn latency(report: &Report) -> anyhow::Result<()> {
    let names = ["pool-latency-p50", "pool-latency-p99"];
    if !names.iter().any(|name| report.wants(name)) {
        return Ok(());
    }
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let (started, mut told) = mpsc::unbounded_channel();
        let handler = move |_: Event| {
            let _ = started.send(Instant::now());
            async { Ok::<_, HandlerError>(()) }
        };
        let bus = EventBus::new();
        bus.subscribe("after:*", Handler::new(handler).with_async())?;
        let ours = tokio::spawn(async move {
            let mut times = Vec::new();
            for _ in 0..ALONE {
                let (event, before) = (event(), Instant::now());
                bus.emit(event).await?;
                times.push(waited(&mut told, before).await?);
            }
            bus.close(Duration::from_secs(5)).await?;
            anyhow::Ok(times)
        });
        let ours = ours.await??;

        let (started, mut told) = mpsc::unbounded_channel();
        let (sender, mut receiver) = mpsc::channel::<Event>(DEFAULT_QUEUE);
        tokio::spawn(async move {
            while receiver.recv().await.is_some() {
                let _ = started.send(Instant::now());
            }
        });
        let theirs = tokio::spawn(async move {
            let mut times = Vec::new();
            for _ in 0..ALONE {
                let (event, before) = (event(), Instant::now());
                sender.send(event).await?;
                times.push(waited(&mut told, before).await?);
            }
            anyhow::Ok(times)
        });
        rounds.push((ours, theirs.await??));
    }
    let note = "one event each 2 ms, emit to the handler; theirs: tokio::sync::mpsc, one receiver";
    report.latencies(&names, &rounds, note);
    Ok(())
}

/// How long after `before` the handler began, in microseconds; then a pause.
async fn waited(
    told: &mut mpsc::UnboundedReceiver<Instant>,
    before: Instant,
) -> anyhow::Result<f64> {
    let started = told.recv().await.context("the handler is gone")?;
    tokio::time::sleep(PAUSE).await;
    Ok(started.duration_since(before).as_secs_f64() * 1e6)
}

/// Emits from `producers` tasks until a handler has seen every event.
async fn ours(producers: usize) -> anyhow::Result<f64> {
    let bus = EventBus::new();
    let seen = Arc::new(AtomicUsize::new(0));
    let handler = {
        let seen = seen.clone();
        move |_: Event| {
            seen.fetch_add(1, Ordering::Relaxed);
            async { Ok::<_, HandlerError>(()) }
        }
    };
    bus.subscribe("after:*", Handler::new(handler).with_async())?;
    let event = event();
    let started = Instant::now();
    let mut emitting = JoinSet::new();
    for _ in 0..producers {
        let (bus, event) = (bus.clone(), event.clone());
        emitting.spawn(async move {
            for _ in 0..EVENTS / producers {
                while let Err(error) = bus.emit(event.clone()).await {
                    assert!(matches!(error, EmitError::QueueFull { .. }), "{error}");
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    emitting.join_all().await;
    bus.close(Duration::from_secs(60)).await?;
    assert_eq!(seen.load(Ordering::Relaxed), EVENTS);
    Ok(EVENTS as f64 / started.elapsed().as_secs_f64())
}

async fn theirs(producers: usize) -> f64 {
    let (sender, receiver) = mpsc::channel::<Event>(DEFAULT_QUEUE);
    let receiver = Arc::new(Mutex::new(receiver));
    let seen = Arc::new(AtomicUsize::new(0));
    let event = event();
    let started = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..DEFAULT_WORKERS {
        let (receiver, seen) = (receiver.clone(), seen.clone());
        tasks.spawn(async move {
            loop {
                let received = receiver.lock().await.recv().await;
                if received.is_none() {
                    return;
                }
                seen.fetch_add(1, Ordering::Relaxed);
            }
        });
    }
    for _ in 0..producers {
        let (sender, event) = (sender.clone(), event.clone());
        tasks.spawn(async move {
            for _ in 0..EVENTS / producers {
                sender
                    .send(event.clone())
                    .await
                    .expect("the workers receive");
            }
        });
    }
    drop(sender);
    tasks.join_all().await;
    assert_eq!(seen.load(Ordering::Relaxed), EVENTS);
    EVENTS as f64 / started.elapsed().as_secs_f64()
}
