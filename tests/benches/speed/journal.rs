//! Accepting durably: what a sync costs, and what is left of the disk's speed.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use backhaul::{
    AsyncBackend, CloseError, Delivery, DeliveryOptions, EmitError, Event, EventBus, Failure,
    Journal, JournalOptions, StartAt,
};
use backhaul_tests::host::Workspace;

use crate::event;
use crate::report::{Better, ROUNDS, Report};

/// How many emit at the same time, and what that is called against a bare file and
/// against the journal given whole groups.
const EMITTERS: [(usize, &str, &str); 3] = [
    (1, "durable-accept-1", "durable-accept-1-groups"),
    (16, "durable-accept-16", "durable-accept-16-groups"),
    (256, "durable-accept-256", "durable-accept-256-groups"),
];

/// How long each side of a round is measured.
const ROUND: Duration = Duration::from_secs(1);

/// How many bytes an event of the benchmarks has in the journal, about.
const RECORD: usize = 360;

/// Undelivered events that a host finds when it starts.
const BACKLOG: usize = 1_000_000;

pub(crate) async fn run(report: &Report) -> anyhow::Result<()> {
    // Where the benchmarks are built is a disk; the temporary folder may be memory.
    let disk = tempfile::tempdir_in(backhaul_tests::components::target())?;
    for (emitters, name, name_groups) in EMITTERS {
        if !report.wants(name) && !report.wants(name_groups) {
            continue;
        }
        let (mut beside_bare, mut beside_groups) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let (ours, group) = accepted(disk.path(), emitters).await?;
            let bare = || bare(disk.path(), group);
            beside_bare.push((ours, tokio::task::block_in_place(bare)?));
            let group = group.round() as usize;
            let theirs = accepted_in_batches(disk.path(), group).await?;
            beside_groups.push((ours, theirs));
        }
        let tasks = format!("{emitters} tasks, one event each emit");
        let groups = "in groups as large as ours were";
        if report.wants(name) {
            let note = format!("{tasks}; theirs: append and fdatasync {groups}");
            report.compare(name, "events/s", Better::Higher, &beside_bare, &note);
        }
        if report.wants(name_groups) {
            let note = format!("{tasks}; theirs: one task, emitting {groups}");
            report.compare(
                name_groups,
                "events/s",
                Better::Higher,
                &beside_groups,
                &note,
            );
        }
    }
    if report.wants("durable-accept-batch") {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let ours = accepted_in_batches(disk.path(), 256).await?;
            let theirs = tokio::task::block_in_place(|| bare(disk.path(), 256.0))?;
            rounds.push((ours, theirs));
        }
        let note = "one task, batches of 256: the journal at its best; theirs: append and fdatasync of 256";
        report.compare(
            "durable-accept-batch",
            "events/s",
            Better::Higher,
            &rounds,
            note,
        );
    }
    if report.wants("journal-start-1m") {
        let (ready, memory) = tokio::task::block_in_place(|| start_with_backlog(disk.path()))?;
        let note = format!("`backhaul serve` with {BACKLOG} undelivered events: until it is ready");
        report.figure("journal-start-1m", "ms", &[ready], &note);
        let note = "its resident memory 2 s later, while it delivers them";
        report.figure("journal-start-1m-memory", "MB", &[memory], note);
    }
    Ok(())
}

/// Takes everything at once, or nothing.
struct Sink {
    takes: bool,
}

#[async_trait]
impl AsyncBackend for Sink {
    async fn publish(&self, _: &[Event]) -> Result<(), Vec<Failure>> {
        if !self.takes {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    async fn close(&self, _: Duration) -> Result<(), CloseError> {
        Ok(())
    }

    fn name(&self) -> &str {
        "file"
    }
}

fn bus(folder: &Path, takes: bool) -> anyhow::Result<(Journal, EventBus, Delivery)> {
    let journal = Journal::open(&folder.join("journal"), JournalOptions::default())?;
    let delivery = journal.delivery(
        Sink { takes },
        DeliveryOptions::default(),
        StartAt::Now,
        &[],
    )?;
    let bus = EventBus::with_backend(delivery.clone());
    bus.forward("*".parse()?);
    Ok((journal, bus, delivery))
}

/// Emits one by one from many tasks; returns the rate, and how many events were
/// written with one sync on average.
async fn accepted(folder: &Path, emitters: usize) -> anyhow::Result<(f64, f64)> {
    let folder = tempfile::tempdir_in(folder)?;
    let (journal, bus, _) = bus(folder.path(), true)?;
    let (stop, count) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicU64::new(0)),
    );
    let started = Instant::now();
    let mut emitting = tokio::task::JoinSet::new();
    for _ in 0..emitters {
        let (bus, stop, count) = (bus.clone(), stop.clone(), count.clone());
        emitting.spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                emit(&bus, &[event()]).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    tokio::time::sleep(ROUND).await;
    stop.store(true, Ordering::Relaxed);
    for ended in emitting.join_all().await {
        ended?;
    }
    let rate = count.load(Ordering::Relaxed) as f64 / started.elapsed().as_secs_f64();
    let groups = journal.status().groups.max(1);
    let group = count.load(Ordering::Relaxed) as f64 / groups as f64;
    bus.close(Duration::from_secs(10)).await?;
    Ok((rate, group))
}

async fn accepted_in_batches(folder: &Path, batch: usize) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(folder)?;
    let (_, bus, _) = bus(folder.path(), true)?;
    let events: Vec<Event> = (0..batch).map(|_| event()).collect();
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < ROUND {
        emit(&bus, &events).await?;
        count += batch;
    }
    let rate = count as f64 / started.elapsed().as_secs_f64();
    bus.close(Duration::from_secs(10)).await?;
    Ok(rate)
}

/// Emits; waits where there is no room.
async fn emit(bus: &EventBus, events: &[Event]) -> anyhow::Result<()> {
    loop {
        match bus.emit_batch(events).await {
            Err(EmitError::QueueFull { .. }) => tokio::time::sleep(Duration::from_millis(1)).await,
            emitted => return Ok(emitted?),
        }
    }
}

/// The limit: as many bytes appended to a file, and a sync after each group.
fn bare(folder: &Path, group: f64) -> anyhow::Result<f64> {
    let folder = tempfile::tempdir_in(folder)?;
    let mut file = File::create(folder.path().join("log"))?;
    let group = group.round() as usize;
    let bytes = vec![7; group * RECORD];
    let (started, mut count) = (Instant::now(), 0);
    while started.elapsed() < ROUND {
        file.write_all(&bytes)?;
        file.sync_data()?;
        count += group;
    }
    Ok(count as f64 / started.elapsed().as_secs_f64())
}

/// Fills a journal for the plugin `file`, and starts a host on it.
fn start_with_backlog(folder: &Path) -> anyhow::Result<(f64, f64)> {
    let data = tempfile::tempdir_in(folder)?;
    let runtime = tokio::runtime::Handle::current();
    runtime.block_on(async {
        let (_, bus, delivery) = bus(data.path(), false)?;
        let events: Vec<Event> = (0..1000).map(|_| event()).collect();
        for _ in 0..BACKLOG / events.len() {
            emit(&bus, &events).await?;
        }
        let pending = delivery.stats().pending;
        anyhow::ensure!(pending == BACKLOG as u64, "{pending} are pending");
        bus.close(Duration::ZERO).await?;
        anyhow::Ok(())
    })?;
    let workspace = Workspace::with_data(data.path());
    workspace.add_file_plugin();
    let started = Instant::now();
    let host = workspace.serve();
    let ready = started.elapsed().as_secs_f64() * 1e3;
    std::thread::sleep(Duration::from_secs(2));
    let memory = host.resident_bytes() as f64 / 1e6;
    Ok((ready, memory))
}
