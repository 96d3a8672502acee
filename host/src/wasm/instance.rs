//! One running instance of a component: a store, and the three functions.
//!
//! Every call has the plugin's limits of time and processor time. A call that
//! traps, or runs over one of them, leaves the instance broken: the caller drops
//! it, store and all, and with it whatever host call the guest was in.
//!
//! Every text a guest gives is made printable here, without the plugin's secrets.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use wasmtime::component::{Func, ResourceTableError};
use wasmtime::{Store, Trap};

use super::LoadError;
use super::bindings::{
    CloseResult, NameResult, PublishParams, PublishResult, WitEvent, WitFailure, WitPublishError,
};
use super::component::Component;
use super::cpu::{CpuExceeded, CpuMeter};
use super::grants::{Denials, Grants, Network, OpenFolder};
use super::limits::{Limits, MAX_COPIED_BYTES, MAX_TABLE_ELEMENTS};
use super::output::OutputLog;
use super::secrets::Secrets;
use super::state::State;
use super::text::{MAX_NAME, is_name, printable};
use crate::backend::{Failure, PublishError};
use crate::event::Event;

/// The longest text of a failure that is kept, in bytes.
const MAX_ERROR_TEXT: usize = 1024;

/// How the text ends in which Wasmtime refuses a component another handle, for
/// which it has no type.
const HANDLES_EXCEEDED: &str = "store handle limit exceeded";

/// What the instances of one plugin have in common.
pub(super) struct Template {
    pub(super) component: Component,
    pub(super) grants: Grants,
    /// The granted folders, opened once: between two instances a plugin may have
    /// put links where they were.
    pub(super) folders: Arc<[OpenFolder]>,
    pub(super) limits: Limits,
    /// What the plugin is called in the log: its file's name.
    pub(super) label: Arc<str>,
    pub(super) denials: Arc<Denials>,
    pub(super) network: Arc<Network>,
    pub(super) secrets: Arc<Secrets>,
    pub(super) output: Arc<OutputLog>,
}

impl Template {
    /// What the instances of `component` get. `label` names it in the log.
    pub(super) fn new(
        component: Component,
        label: Arc<str>,
        grants: Grants,
        folders: Arc<[OpenFolder]>,
        limits: Limits,
        denials: Arc<Denials>,
    ) -> Template {
        let secrets = Arc::new(Secrets::of(&grants));
        let output = OutputLog::new(label.clone(), secrets.clone(), limits.log);
        let reroute = component.engine.inner().reroute.clone();
        let network = Arc::new(Network::new(&grants, denials.clone(), reroute));
        Template {
            component,
            grants,
            folders,
            limits,
            label,
            denials,
            network,
            secrets,
            output: Arc::new(output),
        }
    }
}

pub(super) struct Instance {
    store: Store<State>,
    cpu: CpuMeter,
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
            folders,
            limits,
            denials,
            network,
            output,
            ..
        } = &*template;
        let state = State::new(grants, folders, limits, denials, network, output);
        let mut store = Store::new(&component.engine.inner().engine, state);
        store.limiter(|state| &mut state.memory);
        store.set_hostcall_fuel(MAX_COPIED_BYTES);
        store.set_max_component_handles(limits.handles);
        let cpu = CpuMeter::new(limits.cpu, &mut store);
        let time = TimeLimit::new(limits.start_timeout, "start_timeout");
        let instantiate = async |store: &mut _| component.pre.instantiate_async(store).await;
        let started = run(&mut store, &cpu, &template, "start", time, instantiate).await;
        let instance = started.map_err(LoadError::Start)?;
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
            cpu,
            name,
            publish,
            close,
            template: template.clone(),
        };
        instance.check_types()?;
        let name = instance.name(time).await.map_err(LoadError::Start)?;
        Ok((instance, name))
    }

    /// Compares the functions' types with the contract's.
    fn check_types(&self) -> Result<(), LoadError> {
        let wrong = |function: &str, error: wasmtime::Error| {
            LoadError::WrongWorld(format!(
                "its function `{function}` has another type than in {}: {}",
                self.template.component.world().interface(),
                printable(&format!("{error:#}"), MAX_ERROR_TEXT),
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

    async fn name(&mut self, time: TimeLimit) -> Result<String, CallError> {
        let function = self
            .name
            .typed::<(), NameResult>(&self.store)
            .expect("checked at start");
        let call = async |store: &mut _| function.call_async(store, ()).await;
        let (name,) = self.call("name", time, call).await?;
        if !is_name(&name) {
            return Err(CallError::bad_answer(
                "name",
                format!(
                    "its name is \"{}\", {} bytes; a name has 1 to {MAX_NAME} characters of a-z, 0-9, `.`, `_`, `-`",
                    self.template.secrets.printable(&name, MAX_NAME),
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
        let (result,) = self.call("publish", self.timeout(), call).await?;
        match result {
            Ok(()) => Ok(Ok(())),
            Err(failures) => Ok(Err(self.checked(failures, events.len())?)),
        }
    }

    /// How many bytes of memory it has.
    pub(super) fn memory(&self) -> u64 {
        self.store.data().memory.used()
    }

    /// Calls `close` and ends the instance.
    pub(super) async fn end(mut self) -> Result<(), CallError> {
        self.close().await
    }

    /// Calls `close`.
    pub(super) async fn close(&mut self) -> Result<(), CallError> {
        let function = self
            .close
            .typed::<(), CloseResult>(&self.store)
            .expect("checked at start");
        let call = async |store: &mut _| function.call_async(store, ()).await;
        let (closed,) = self.call("close", self.timeout(), call).await?;
        closed.map_err(|text| CallError {
            function: "close",
            kind: CallErrorKind::CloseFailed,
            problem: self.template.secrets.printable(&text, MAX_ERROR_TEXT),
        })
    }

    /// The limit of a call that begins now.
    fn timeout(&self) -> TimeLimit {
        TimeLimit::new(self.template.limits.timeout, "timeout")
    }

    /// Calls a function within the limits.
    async fn call<R>(
        &mut self,
        function: &'static str,
        time: TimeLimit,
        call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<R>,
    ) -> Result<R, CallError> {
        run(
            &mut self.store,
            &self.cpu,
            &self.template,
            function,
            time,
            call,
        )
        .await
    }

    /// The failures the guest reports, if they can be what the contract says.
    fn checked(&self, failures: Vec<WitFailure>, batch: usize) -> Result<Vec<Failure>, CallError> {
        let mut seen = HashSet::new();
        let shown = |text: String| self.template.secrets.printable(&text, MAX_ERROR_TEXT);
        let check = |WitFailure { index, error }| {
            let index = index as usize;
            if index >= batch || !seen.insert(index) {
                let problem = if index >= batch {
                    "outside the batch"
                } else {
                    "twice"
                };
                return Err(CallError::bad_answer(
                    "publish",
                    format!(
                        "it reports a failure of event {index} {problem} (of {batch} events), so \
                         nothing it says of the batch can be relied on"
                    ),
                ));
            }
            let error = match error {
                WitPublishError::Retryable(text) => PublishError::Retryable(shown(text)),
                WitPublishError::Permanent(text) => PublishError::Permanent(shown(text)),
            };
            Ok(Failure { index, error })
        };
        failures.into_iter().map(check).collect()
    }
}

/// Runs what is called in a store within the limits of time and processor time.
async fn run<R>(
    store: &mut Store<State>,
    cpu: &CpuMeter,
    template: &Template,
    function: &'static str,
    time: TimeLimit,
    call: impl AsyncFnOnce(&mut Store<State>) -> wasmtime::Result<R>,
) -> Result<R, CallError> {
    store.set_epoch_deadline(1);
    // A refusal the guest coped with is not why a later call traps.
    let memory = &mut store.data_mut().memory;
    (memory.refused, memory.tables_refused) = (false, false);
    let called = tokio::time::timeout_at(time.end, cpu.measure(call(store))).await;
    template.output.report_dropped();
    match called {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(CallError::from_trap(function, error, store, template)),
        Err(_) => Err(CallError::timeout(function, time)),
    }
}

/// Until when a call may take.
#[derive(Clone, Copy)]
struct TimeLimit {
    end: Instant,
    limit: Duration,
    /// The key of the manifest that sets it.
    key: &'static str,
}

impl TimeLimit {
    fn new(limit: Duration, key: &'static str) -> TimeLimit {
        TimeLimit {
            end: Instant::now() + limit,
            limit,
            key,
        }
    }
}

/// A call into a plugin that did not come back as the contract says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallError {
    function: &'static str,
    kind: CallErrorKind,
    problem: String,
}

/// What kind of thing went wrong in a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CallErrorKind {
    /// The component trapped: it panicked, for one, or went too deep.
    Trap,
    /// It ran over `limits.memory` or the limit of tables.
    Memory,
    /// It ran over `limits.handles`.
    Handles,
    /// It ran over `limits.cpu`.
    Cpu,
    /// It ran over `limits.timeout` or `limits.start_timeout`. A server it waited
    /// for may be to blame.
    Timeout,
    /// It answered what the contract does not allow.
    BadAnswer,
    /// Its `close` says that it failed.
    CloseFailed,
}

impl CallError {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> CallErrorKind {
        self.kind
    }

    /// Whether the call took too long, for which a server may be to blame.
    pub fn is_timeout(&self) -> bool {
        self.kind == CallErrorKind::Timeout
    }

    fn bad_answer(function: &'static str, problem: String) -> CallError {
        CallError {
            function,
            kind: CallErrorKind::BadAnswer,
            problem,
        }
    }

    fn timeout(function: &'static str, TimeLimit { limit, key, .. }: TimeLimit) -> CallError {
        CallError {
            function,
            kind: CallErrorKind::Timeout,
            problem: format!(
                "it was not done after {limit:?} and was stopped; see `{key}` under [limits]"
            ),
        }
    }

    fn from_trap(
        function: &'static str,
        error: wasmtime::Error,
        store: &Store<State>,
        Template {
            limits, secrets, ..
        }: &Template,
    ) -> CallError {
        tracing::debug!(
            function,
            error = &*secrets.redact(&format!("{error:?}")),
            "a plugin trapped"
        );
        // Wasmtime's own text goes on with a backtrace of the guest.
        let root = error.root_cause().to_string();
        let cause = match error.downcast_ref::<Trap>() {
            Some(trap) => trap.to_string(),
            None => secrets.printable(&root, MAX_ERROR_TEXT),
        };
        let no_handles = matches!(
            error.downcast_ref::<ResourceTableError>(),
            Some(ResourceTableError::Full)
        ) || root.ends_with(HANDLES_EXCEEDED);
        let (kind, problem) = if error.is::<CpuExceeded>() {
            let problem = format!(
                "it used more than {:?} of processor time in one call; see `cpu` under [limits]",
                limits.cpu
            );
            (CallErrorKind::Cpu, problem)
        } else if no_handles {
            let problem = format!(
                "it ran over the limit of {} open files, sockets and streams together; see \
                 `handles` under [limits]",
                limits.handles
            );
            (CallErrorKind::Handles, problem)
        } else if store.data().memory.refused {
            let problem = format!(
                "it ran over its limit of {} MiB of memory; see `memory` under [limits] ({cause})",
                limits.memory >> 20
            );
            (CallErrorKind::Memory, problem)
        } else if store.data().memory.tables_refused {
            let problem = format!(
                "it ran over the limit of {MAX_TABLE_ELEMENTS} elements of all its tables ({cause})"
            );
            (CallErrorKind::Memory, problem)
        } else {
            (CallErrorKind::Trap, format!("it trapped: {cause}"))
        };
        CallError {
            function,
            kind,
            problem,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "in `{}`, {}", self.function, self.problem)
    }
}

impl std::error::Error for CallError {}
