//! A component as a backend: some instances, kept alive and reused.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures_util::future::join_all;
use tokio::sync::{Semaphore, watch};

use super::component::Component;
use super::grants::{DenialReport, Denials, FileGrant, Grants};
use super::health::{Health, HealthMeter};
#[cfg(feature = "verify")]
use super::instance::CallError;
use super::instance::{Instance, Template};
use super::limits::Limits;
use super::output::OutputStats;
use super::secrets::Secrets;
use super::{LoadError, text};
use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::event::Event;

/// A sandboxed component as an [`AsyncBackend`].
///
/// It starts with one instance; more are started, up to `limits.instances`,
/// when calls come side by side. An instance that traps or runs over a limit is
/// dropped, all events of that call fail as retryable, and the next call starts
/// a new one: at once after the first that broke, then after growing delays (see
/// [`health`](Self::health)).
///
/// [`close`](AsyncBackend::close) ends the calls under way when half of its grace
/// is over, then calls `close` of every instance that is whole, exactly once. An
/// instance that broke cannot be called any more.
///
/// It has no queue: `publish` returns when the component has. Put a
/// [`Delivery`](crate::Delivery) around it.
pub struct WasmBackend {
    name: String,
    template: Arc<Template>,
    /// One permit for each instance that may be at work.
    permits: Semaphore,
    /// Instances without work; the last used is the next, so that what is idle
    /// stays idle.
    idle: Mutex<Vec<Instance>>,
    health: HealthMeter,
    /// True once the calls under way have to end.
    stopped: watch::Sender<bool>,
}

impl WasmBackend {
    /// Starts the first instance of `component`. `label` names the plugin in
    /// the log.
    ///
    /// # Errors
    ///
    /// If a grant cannot be given, or the instance does not start or has no
    /// valid name.
    pub async fn start(
        component: Component,
        label: &str,
        grants: Grants,
        limits: Limits,
    ) -> Result<WasmBackend, LoadError> {
        let folders = grants.files.iter().map(FileGrant::open);
        let folders = folders.collect::<Result<_, _>>()?;
        let label: Arc<str> = label.into();
        let denials = Arc::new(Denials::new(label.clone(), Secrets::of(&grants)));
        let template = Arc::new(Template::new(
            component, label, grants, folders, limits, denials,
        ));
        let (instance, name) = Instance::start(template.clone()).await?;
        let health = HealthMeter::default();
        health.started();
        Ok(WasmBackend {
            name,
            template,
            permits: Semaphore::new(limits.instances),
            idle: Mutex::new(vec![instance]),
            health,
            stopped: watch::Sender::new(false),
        })
    }

    /// How its instances fare.
    pub fn health(&self) -> Health {
        self.health.snapshot()
    }

    /// How many instances broke since a call last came back as it should.
    pub fn broken_in_a_row(&self) -> u32 {
        self.health.broken_in_a_row()
    }

    /// What it was denied.
    pub fn denied(&self) -> DenialReport {
        self.template.denials.snapshot()
    }

    /// How much it printed.
    pub fn output(&self) -> OutputStats {
        self.template.output.stats()
    }

    /// Forgets what broke, so that the next call starts an instance at once.
    pub fn forgive(&self) {
        self.health.forgive();
    }

    /// How many bytes of memory the instances without work have, all together. It
    /// never becomes less while they live: WebAssembly gives none back.
    pub fn memory(&self) -> u64 {
        self.idle().iter().map(Instance::memory).sum()
    }

    /// Has the `close` of every instance without work called so many times, and ends
    /// them. The contract has it called once: this is for who tries a component.
    ///
    /// # Errors
    ///
    /// What the first call that failed came up against.
    #[cfg(feature = "verify")]
    pub(crate) async fn close_each(&self, times: usize) -> Result<(), CallError> {
        let instances = std::mem::take(&mut *self.idle());
        for mut instance in instances {
            for _ in 0..times {
                instance.close().await?;
            }
        }
        Ok(())
    }

    /// Gives the backend another name than its component says.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> WasmBackend {
        self.name = name.into();
        self
    }

    /// An idle instance, or a new one.
    async fn instance(&self) -> Result<Instance, LoadError> {
        let idle = self.idle().pop();
        if let Some(instance) = idle {
            return Ok(instance);
        }
        tokio::time::sleep(self.health.delay()).await;
        let started = Instance::start(self.template.clone()).await;
        match &started {
            Ok(_) => self.health.started(),
            // Others are not of how it runs.
            Err(LoadError::Start(error)) => self.health.broke(error.to_string(), true),
            Err(_) => {}
        }
        Ok(started?.0)
    }

    async fn call(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let retryable = |problem: String| {
            let error = PublishError::Retryable(problem);
            Err(Failure::all(events.len(), &error))
        };
        let mut instance = match self.instance().await {
            Ok(instance) => instance,
            Err(error) => return retryable(error.to_string()),
        };
        // If this future is dropped here, so is the instance.
        match instance.publish(events).await {
            Ok(result) => {
                self.health.sound();
                self.idle().push(instance);
                result
            }
            Err(broken) => {
                let own_fault = !(broken.is_timeout() && self.template.network.was_used());
                self.health.broke(broken.to_string(), own_fault);
                retryable(broken.to_string())
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Instance>> {
        // Nothing under this lock can leave the list half changed.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl AsyncBackend for WasmBackend {
    async fn publish(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let Ok(_permit) = self.permits.acquire().await else {
            return Err(Failure::all(events.len(), &PublishError::Closed));
        };
        let mut stopped = self.stopped.subscribe();
        tokio::select! {
            biased;
            result = self.call(events) => result,
            _ = stopped.wait_for(|stopped| *stopped) => {
                let problem = "the plugin was closed before the call was done";
                let error = PublishError::Retryable(problem.to_owned());
                Err(Failure::all(events.len(), &error))
            }
        }
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let plugin = &*self.template.label;
        let deadline = Instant::now().checked_add(grace);
        let all = u32::try_from(self.template.limits.instances).unwrap_or(u32::MAX);
        // Lets no call begin that has not begun.
        let under_way = self.permits.acquire_many(all);
        let permits = match tokio::time::timeout(grace / 2, under_way).await {
            Ok(permits) => permits,
            Err(_) => {
                tracing::warn!(
                    plugin,
                    "a call was not done in time and is ended: the plugin closes"
                );
                self.stopped.send_replace(true);
                self.permits.acquire_many(all).await
            }
        };
        self.permits.close();
        drop(permits);
        let instances = std::mem::take(&mut *self.idle());
        let closing = join_all(instances.into_iter().map(Instance::end));
        let rest = deadline.map_or(grace, |end| end.saturating_duration_since(Instant::now()));
        match tokio::time::timeout(rest, closing).await {
            Ok(closed) => {
                for error in closed.into_iter().filter_map(Result::err) {
                    tracing::warn!(plugin, %error, "closing the plugin failed");
                }
            }
            Err(_) => tracing::warn!(plugin, ?grace, "the plugin did not close in time"),
        }
        Ok(())
    }

    fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Debug for WasmBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasmBackend")
            .field("name", &text::printable(&self.name, 64))
            .field("component", &self.template.component)
            .finish_non_exhaustive()
    }
}
