//! A component as a backend: some instances, kept alive and reused.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::Semaphore;

use super::component::Component;
use super::grants::{Denials, Grants};
use super::instance::{Instance, Template};
use super::limits::Limits;
use super::{LoadError, text};
use crate::backend::{AsyncBackend, CloseError, Failure, PublishError};
use crate::event::Event;

/// A sandboxed component as an [`AsyncBackend`].
///
/// It starts with one instance; more are started, up to `limits.instances`,
/// when calls come side by side. An instance that traps or runs over a limit is
/// dropped, all events of that call fail as retryable, and the next call starts
/// a new one.
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
        for grant in &grants.files {
            grant.prepare()?;
        }
        let label: Arc<str> = label.into();
        let denials = Arc::new(Denials::new(label.clone()));
        let template = Arc::new(Template {
            component,
            grants,
            limits,
            label,
            denials,
        });
        let (instance, name) = Instance::start(template.clone()).await?;
        Ok(WasmBackend {
            name,
            template,
            permits: Semaphore::new(limits.instances),
            idle: Mutex::new(vec![instance]),
        })
    }

    /// Gives the backend another name than its component says.
    #[must_use]
    pub fn named(mut self, name: impl Into<String>) -> WasmBackend {
        self.name = name.into();
        self
    }

    async fn instance(&self) -> Result<Instance, LoadError> {
        let idle = self.idle().pop();
        match idle {
            Some(instance) => Ok(instance),
            None => Ok(Instance::start(self.template.clone()).await?.0),
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
        let fail = |error| Err(Failure::all(events.len(), &error));
        let Ok(_permit) = self.permits.acquire().await else {
            return fail(PublishError::Closed);
        };
        let mut instance = match self.instance().await {
            Ok(instance) => instance,
            Err(error) => return fail(PublishError::Retryable(error.to_string())),
        };
        // If this future is dropped here, so is the instance.
        match instance.publish(events).await {
            Ok(result) => {
                self.idle().push(instance);
                result
            }
            Err(broken) => fail(PublishError::Retryable(broken.to_string())),
        }
    }

    async fn close(&self, grace: Duration) -> Result<(), CloseError> {
        let close = async {
            // Waits for the calls that are under way, and lets none begin.
            let all = u32::try_from(self.template.limits.instances).unwrap_or(u32::MAX);
            let _permits = self.permits.acquire_many(all).await;
            self.permits.close();
            let instances = std::mem::take(&mut *self.idle());
            for instance in instances {
                if let Err(error) = instance.close().await {
                    tracing::warn!(plugin = &*self.template.label, %error, "closing the plugin failed");
                }
            }
        };
        if tokio::time::timeout(grace, close).await.is_err() {
            self.permits.close();
            tracing::warn!(
                plugin = &*self.template.label,
                ?grace,
                "the plugin did not close in time"
            );
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
