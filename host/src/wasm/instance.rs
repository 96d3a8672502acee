//! One running instance of a component: a store, and the three functions.
//!
//! Every call has the plugin's time limit. A call that traps, or is not done in
//! time, leaves the instance broken: the caller drops it, store and all, and
//! with it whatever host call the guest was in.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use wasmtime::component::{Func, ResourceTableError};
use wasmtime::{Store, Trap};

use super::LoadError;
use super::bindings::{
    CloseResult, NameResult, PublishParams, PublishResult, WitEvent, WitFailure, WitPublishError,
};
use super::component::Component;
use super::grants::{Denials, Grants};
use super::limits::{Limits, MAX_COPIED_BYTES, MAX_HANDLES};
use super::state::State;
use super::text::{MAX_NAME, is_name, printable};
use crate::backend::{Failure, PublishError};
use crate::event::Event;

/// The longest text of a failure that is kept, in bytes.
const MAX_ERROR_TEXT: usize = 1024;

/// What the instances of one plugin have in common.
pub(super) struct Template {
    pub(super) component: Component,
    pub(super) grants: Grants,
    pub(super) limits: Limits,
    /// What the plugin is called in the log: its file's name.
    pub(super) label: Arc<str>,
    pub(super) denials: Arc<Denials>,
}

pub(super) struct Instance {
    store: Store<State>,
    name: Func,
    publish: Func,
    close: Func,
    template: Arc<Template>,
}

impl Instance {
    /// Starts an instance and asks for its name.
    pub(super) async fn start(template: Arc<Template>) -> Result<(Instance, String), LoadError> {
        let Template {
            component,
            grants,
            limits,
            label,
            denials,
        } = &*template;
        let state = State::new(label, grants, limits, denials)?;
        let mut store = Store::new(&component.engine.inner().engine, state);
        store.limiter(|state| &mut state.memory);
        store.epoch_deadline_async_yield_and_update(1);
        store.set_hostcall_fuel(MAX_COPIED_BYTES);
        let started = {
            store.set_epoch_deadline(1);
            let instantiate = component.pre.instantiate_async(&mut store);
            tokio::time::timeout(limits.timeout, instantiate).await
        };
        let instance = match started {
            Ok(Ok(instance)) => instance,
            Ok(Err(error)) => {
                return Err(LoadError::Start(CallError::from_trap(
                    "start", error, &store, limits,
                )));
            }
            Err(_) => {
                return Err(LoadError::Start(CallError::timeout(
                    "start",
                    limits.timeout,
                )));
            }
        };
        let mut function = |index| {
            instance
                .get_func(&mut store, index)
                .expect("the component was checked to export it")
        };
        let functions = component.functions;
        let (name, publish, close) = (
            function(functions.name),
            function(functions.publish),
            function(functions.close),
        );
        let mut instance = Instance {
            store,
            name,
            publish,
            close,
            template: template.clone(),
        };
        instance.check_types()?;
        let name = instance.name().await.map_err(LoadError::Start)?;
        Ok((instance, name))
    }

    /// Compares the functions' types with the contract's.
    fn check_types(&self) -> Result<(), LoadError> {
        let wrong = |function: &str, error: wasmtime::Error| {
            LoadError::WrongWorld(format!(
                "its function `{function}` has another type than in {}: {error:#}",
                self.template.component.world().interface(),
            ))
        };
        self.name
            .typed::<(), NameResult>(&self.store)
            .map_err(|e| wrong("name", e))?;
        self.publish
            .typed::<PublishParams<'_>, PublishResult>(&self.store)
            .map_err(|e| wrong("publish", e))?;
        self.close
            .typed::<(), CloseResult>(&self.store)
            .map_err(|e| wrong("close", e))?;
        Ok(())
    }

    async fn name(&mut self) -> Result<String, CallError> {
        let function = self
            .name
            .typed::<(), NameResult>(&self.store)
            .expect("checked at start");
        let (name,) = self
            .call("name", async |store| function.call_async(store, ()).await)
            .await?;
        if !is_name(&name) {
            return Err(CallError::new(
                "name",
                format!(
                    "its name is \"{}\", {} bytes; a name has 1 to {MAX_NAME} characters of a-z, 0-9, `.`, `_`, `-`",
                    printable(&name, MAX_NAME),
                    name.len(),
                ),
            ));
        }
        Ok(name)
    }

    /// Publishes a batch. The outer error means that the instance is broken,
    /// and that nothing is known of any event.
    pub(super) async fn publish(
        &mut self,
        events: &[Event],
    ) -> Result<Result<(), Vec<Failure>>, CallError> {
        let lent: Vec<WitEvent<'_>> = events.iter().map(WitEvent::from).collect();
        let function = self
            .publish
            .typed::<PublishParams<'_>, PublishResult>(&self.store)
            .expect("checked at start");
        let call = async |store: &mut Store<State>| function.call_async(store, (&lent[..],)).await;
        let (result,) = self.call("publish", call).await?;
        match result {
            Ok(()) => Ok(Ok(())),
            Err(failures) => Ok(Err(checked(failures, events.len())?)),
        }
    }

    /// Calls `close` and ends the instance.
    pub(super) async fn close(mut self) -> Result<(), CallError> {
        let function = self
            .close
            .typed::<(), CloseResult>(&self.store)
            .expect("checked at start");
        let (closed,) = self
            .call("close", async |store| function.call_async(store, ()).await)
            .await?;
        closed.map_err(|text| CallError::new("close", printable(&text, MAX_ERROR_TEXT)))
    }

    /// Calls a function within the time limit.
    async fn call<R>(
        &mut self,
        function: &'static str,
        call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        let limits = &self.template.limits;
        self.store.set_epoch_deadline(1);
        // A refusal the guest coped with is not why a later call traps.
        self.store.data_mut().memory.refused = false;
        match tokio::time::timeout(limits.timeout, call(&mut self.store)).await {
            Ok(Ok(result)) => Ok(result),
            Ok(Err(error)) => Err(CallError::from_trap(function, error, &self.store, limits)),
            Err(_) => Err(CallError::timeout(function, limits.timeout)),
        }
    }
}

/// The failures a guest reports, if they can be what the contract says.
fn checked(failures: Vec<WitFailure>, batch: usize) -> Result<Vec<Failure>, CallError> {
    let mut seen = HashSet::new();
    let check = |WitFailure { index, error }| {
        let index = index as usize;
        if index >= batch || !seen.insert(index) {
            let problem = if index >= batch {
                "outside the batch"
            } else {
                "twice"
            };
            return Err(CallError::new(
                "publish",
                format!(
                    "it reports a failure of event {index} {problem} (of {batch} events), so nothing it says of \
                 the batch can be relied on"
                ),
            ));
        }
        let error = match error {
            WitPublishError::Retryable(text) => {
                PublishError::Retryable(printable(&text, MAX_ERROR_TEXT))
            }
            WitPublishError::Permanent(text) => {
                PublishError::Permanent(printable(&text, MAX_ERROR_TEXT))
            }
        };
        Ok(Failure { index, error })
    };
    failures.into_iter().map(check).collect()
}

/// A call into a plugin that did not come back as the contract says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    function: &'static str,
    problem: String,
}

impl CallError {
    fn new(function: &'static str, problem: String) -> CallError {
        CallError { function, problem }
    }

    fn timeout(function: &'static str, limit: Duration) -> CallError {
        CallError::new(
            function,
            format!(
                "it was not done after {limit:?} and was stopped; see `timeout` under [limits]"
            ),
        )
    }

    fn from_trap(
        function: &'static str,
        error: wasmtime::Error,
        store: &Store<State>,
        limits: &Limits,
    ) -> CallError {
        // Wasmtime's own text goes on with a backtrace of the guest.
        let cause = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => printable(&error.root_cause().to_string(), MAX_ERROR_TEXT),
        };
        tracing::debug!(function, error = format!("{error:?}"), "a plugin trapped");
        let handles = error.downcast_ref::<ResourceTableError>();
        let problem = match store.data().memory.refused {
            _ if matches!(handles, Some(ResourceTableError::Full)) => format!(
                "it ran over the limit of {MAX_HANDLES} open files, sockets and streams together"
            ),
            true => format!(
                "it ran over its limit of {} MiB of memory; see `memory` under [limits] ({cause})",
                limits.memory >> 20
            ),
            false => format!("it trapped: {cause}"),
        };
        CallError::new(function, problem)
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in `{}`, {}", self.function, self.problem)
    }
}

impl std::error::Error for CallError {}
