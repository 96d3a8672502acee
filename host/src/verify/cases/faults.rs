//! What is lost when the way to the server breaks: published through a delivery, as
//! a host does it, which offers again what failed.
//!
//! Each case publishes in parts: one while all is well, so that there is a
//! connection to break, one into the fault, and one after it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;

use super::{Context, Repeats, Stop, Verdict, counted, failed, not_applicable, told};
use crate::backend::{AsyncBackend, CloseError, Failure};
use crate::delivery::{Delivery, DeliveryOptions};
use crate::event::Event;
use crate::retry::RetryPolicy;
use crate::verify::wire::{Fault, Way};
use crate::wasm::WasmBackend;

/// How long a server is away that is started again.
const AWAY: Duration = Duration::from_secs(1);

/// How long everything may take to be delivered once the fault is over, besides
/// calls that run into the time limit.
const RECOVERY: Duration = Duration::from_secs(30);

/// How often it is looked whether something has happened.
const TICK: Duration = Duration::from_millis(5);

/// After how many bytes, and which way, connections are cut. Replies are short:
/// with some servers one acknowledges a whole batch.
const CUTS: [(Way, u64); 5] = [
    (Way::ToServer, 1_000),
    (Way::FromServer, 10),
    (Way::ToServer, 20_000),
    (Way::FromServer, 200),
    (Way::ToServer, 60_000),
];

pub(super) async fn cut(context: &Context<'_>) -> Verdict {
    let trial = Trial::start(context).await?;
    let parts = context.scale.fault_events / (CUTS.len() + 1);
    trial.publish(parts).await?;
    trial.delivered(parts).await?;
    let mut cuts = 0;
    for (number, (way, bytes)) in CUTS.into_iter().enumerate() {
        context.wire.cut_after(way, bytes);
        trial.publish(parts).await?;
        trial.delivered(parts * (number + 2)).await?;
        cuts += usize::from(context.wire.has_cut());
    }
    let seen = trial.judge().await?;
    match cuts {
        0 => Err(Stop::Undecided(
            "so few bytes went through the connections that none was cut".to_owned(),
        )),
        cuts => Ok(format!("{}; {seen}", counted(cuts, "cut", "cuts"))),
    }
}

pub(super) async fn restart(context: &Context<'_>) -> Verdict {
    let trial = Trial::start(context).await?;
    let parts = context.scale.fault_events / 3;
    trial.publish(parts).await?;
    trial.delivered(parts).await?;
    context.wire.set(Fault::Refuse);
    context.wire.cut();
    trial.publish(parts).await?;
    trial.failed().await?;
    tokio::time::sleep(AWAY).await;
    context.wire.set(Fault::None);
    trial.publish(parts).await?;
    trial.delivered(3 * parts).await?;
    trial.judge().await
}

pub(super) async fn hang(context: &Context<'_>) -> Verdict {
    let trial = Trial::start(context).await?;
    let parts = context.scale.fault_events / 3;
    trial.publish(parts).await?;
    trial.delivered(parts).await?;
    context.wire.set(Fault::Hang);
    let began = Instant::now();
    trial.publish(parts).await?;
    trial.failed().await?;
    let noticed = began.elapsed().as_secs_f64();
    let by = match trial.backend.health().broken {
        0 => "it gave up by itself",
        _ => "the host stopped it",
    };
    // What was on its way never gets there.
    context.wire.cut();
    context.wire.set(Fault::None);
    trial.publish(parts).await?;
    trial.delivered(3 * parts).await?;
    let seen = trial.judge().await?;
    Ok(format!("{by} after {noticed:.1} s; {seen}"))
}

pub(super) async fn real_restart(context: &Context<'_>) -> Verdict {
    let Some(command) = context.restart_command else {
        return not_applicable("no --restart-command says how to start the server again");
    };
    let trial = Trial::start(context).await?;
    let parts = context.scale.fault_events / 3;
    trial.publish(parts).await?;
    trial.delivered(parts).await?;
    let restarting = tokio::process::Command::new("sh")
        .args(["-c", command])
        .status();
    let (restarted, published) = tokio::join!(restarting, trial.publish(parts));
    published?;
    match restarted {
        Ok(status) if status.success() => {}
        Ok(status) => return Err(Stop::Undecided(format!("{command}: {status}"))),
        Err(error) => return Err(Stop::Undecided(format!("{command}: {error}"))),
    }
    trial.publish(parts).await?;
    trial.delivered(3 * parts).await?;
    trial.judge().await
}

/// A backend under a delivery, behind the proxy.
struct Trial<'a> {
    context: &'a Context<'a>,
    backend: Arc<WasmBackend>,
    watched: Watched,
    delivery: Delivery,
    sent: Mutex<Vec<Event>>,
}

impl<'a> Trial<'a> {
    async fn start(context: &'a Context<'a>) -> Verdict<Trial<'a>> {
        context.needs_server()?;
        if !context.profile.reconnects {
            return not_applicable(
                "the profile says that it does not connect again (`reconnects`)",
            );
        }
        context.wire.intercept();
        let backend = Arc::new(context.start().await?);
        let watched = Watched {
            backend: backend.clone(),
            failures: Arc::default(),
        };
        let (batch, batch_bytes) = context.target.largest_batch();
        let options = DeliveryOptions {
            queue: 2 * context.scale.fault_events,
            batch,
            batch_bytes,
            retry: RetryPolicy {
                first_delay: Duration::from_millis(50),
                max_delay: Duration::from_millis(500),
                ..RetryPolicy::default()
            },
            ..DeliveryOptions::default()
        };
        Ok(Trial {
            context,
            backend,
            delivery: Delivery::new(watched.clone(), options),
            watched,
            sent: Mutex::default(),
        })
    }

    /// Publishes so many events more.
    async fn publish(&self, count: usize) -> Verdict<()> {
        let begin = self
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .len();
        let events = self.context.events().events(begin..begin + count);
        let published = self.delivery.publish(&events).await;
        self.sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(events);
        published.map_err(|failures| Stop::Undecided(failures[0].error.to_string()))
    }

    /// Waits until so many events are delivered or given up.
    async fn delivered(&self, count: usize) -> Verdict<()> {
        let limit = RECOVERY + 3 * self.context.target.manifest.limits.timeout;
        let began = Instant::now();
        loop {
            let stats = self.delivery.stats();
            if stats.pending == 0 && stats.delivered + stats.dead >= count as u64 {
                return Ok(());
            }
            if began.elapsed() > limit {
                let last = self.watched.last();
                return failed(format!(
                    "{} still not published {limit:.0?} after there was nothing in the way; the last failure: {}",
                    counted(stats.pending as usize, "event is", "events are"),
                    last.unwrap_or_else(|| "none".to_owned()),
                ));
            }
            tokio::time::sleep(TICK).await;
        }
    }

    /// Waits until a call has failed, or nothing is left that could.
    async fn failed(&self) -> Verdict<()> {
        while self.watched.last().is_none() && self.delivery.stats().pending > 0 {
            tokio::time::sleep(TICK).await;
        }
        Ok(())
    }

    /// Judges what arrived of all that was published.
    async fn judge(&self) -> Verdict {
        if let Some(trap) = self.watched.find("it trapped") {
            return failed(trap);
        }
        if let Some(letter) = self.delivery.dead_letters().list().into_iter().next() {
            return failed(format!(
                "{} given up, though the server came back; the first: permanent: {}",
                counted(
                    self.delivery.stats().dead as usize,
                    "event was",
                    "events were"
                ),
                letter.error,
            ));
        }
        if self.context.wire.connections() == 0 {
            return Err(Stop::Undecided(
                "no connection of the plugin went through the proxy".to_owned(),
            ));
        }
        let sent = self
            .sent
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let repeats = self.context.judge(&sent, Repeats::Allowed)?;
        if self.context.profile.deduplicates && repeats > 0 {
            return failed(format!(
                "{} though the profile says that the server knows events again (`deduplicates`)",
                counted(repeats, "event arrived twice", "events arrived twice")
            ));
        }
        let events = counted(sent.len(), "event", "events");
        let failures = counted(self.watched.count(), "call", "calls");
        let repeats = counted(repeats, "event", "events");
        Ok(format!(
            "{events} arrived; {failures} failed, {repeats} arrived again"
        ))
    }
}

/// The backend, with what it says of its failures kept as it said it.
#[derive(Clone)]
struct Watched {
    backend: Arc<WasmBackend>,
    /// The first failure of each call that had one.
    failures: Arc<Mutex<Vec<String>>>,
}

impl Watched {
    fn last(&self) -> Option<String> {
        self.lock().last().cloned()
    }

    fn find(&self, part: &str) -> Option<String> {
        self.lock().iter().find(|text| text.contains(part)).cloned()
    }

    fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AsyncBackend for Watched {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let published = self.backend.publish(events).await;
        if let Err(failures) = &published
            && let Some(first) = failures.first()
        {
            self.lock().push(told(&first.error));
        }
        published
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        self.backend.close(grace).await
    }

    fn name(&self) -> &str {
        self.backend.name()
    }
}
