//! Which plugins get an event.
//!
//! A batch is taken by all plugins concerned or by none: with a journal it is
//! written there once for all of them, else each must have room for it. An event
//! that no plugin takes is refused: carrying it nowhere would be losing it.

use std::path::Path;
use std::sync::Arc;

use super::plugin::Plugin;
use crate::backend::{Failure, PublishError};
use crate::event::Event;
use crate::journal::{BackendId, Journal, Targets};
use crate::pattern::Pattern;

/// The plugins in use, with the events each gets. Never changed: replaced.
#[derive(Clone, Debug, Default)]
pub(super) struct Routes(Vec<Route>);

#[derive(Clone, Debug)]
struct Route {
    plugin: Arc<Plugin>,
    events: Vec<Pattern>,
}

impl Routes {
    /// Routes to `plugins`, ordered by their files.
    pub(super) fn to(plugins: impl IntoIterator<Item = Arc<Plugin>>) -> Routes {
        let route = |plugin: Arc<Plugin>| Route {
            events: plugin.events(),
            plugin,
        };
        let mut routes: Vec<Route> = plugins.into_iter().map(route).collect();
        routes.sort_by_cached_key(|route| route.plugin.file());
        Routes(routes)
    }

    pub(super) fn plugins(&self) -> impl Iterator<Item = &Arc<Plugin>> {
        self.0.iter().map(|route| &route.plugin)
    }

    /// Writes `events` into `journal`, each for every plugin concerned.
    pub(super) async fn keep(
        &self,
        events: &[Event],
        journal: &Journal,
    ) -> Result<(), Vec<Failure>> {
        self.check(events)?;
        let mut records: Vec<(Event, Targets)> = Vec::with_capacity(events.len());
        for event in events {
            let leading = self.0.iter().filter(|route| route.leads(event));
            let to = leading.filter_map(|route| route.plugin.backend_id());
            // Nearly always the next goes where the last one went.
            let targets = match records.last() {
                Some((_, last)) if to.clone().eq(last.iter().copied()) => last.clone(),
                _ => to.collect::<Vec<BackendId>>().into(),
            };
            records.push((event.clone(), targets));
        }
        let kept = journal.append(records).await;
        kept.map_err(|error| Failure::all(events.len(), &error))
    }

    /// Takes `events` for every plugin concerned.
    pub(super) fn take(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        self.check(events)?;
        let mut places = Vec::with_capacity(self.0.len());
        for route in &self.0 {
            let taken: Vec<Event> = events
                .iter()
                .filter(|event| route.leads(event))
                .cloned()
                .collect();
            if taken.is_empty() {
                continue;
            }
            // If a later plugin has no room, the places taken so far are free
            // again when `places` is dropped.
            let delivery = route.plugin.delivery();
            let place = delivery.reserve(&taken);
            let place = place.map_err(|error| Failure::all(events.len(), &error))?;
            places.push((delivery, place, taken));
        }
        for (delivery, place, taken) in places {
            delivery.accept(place, taken);
        }
        Ok(())
    }

    /// Every event must have a plugin that takes it.
    fn check(&self, events: &[Event]) -> Result<(), Vec<Failure>> {
        if self.0.is_empty() {
            let error = PublishError::Retryable("no plugin is loaded".to_owned());
            return Err(Failure::all(events.len(), &error));
        }
        let unrouted = |event: &Event| !self.0.iter().any(|route| route.leads(event));
        if !events.iter().any(unrouted) {
            return Ok(());
        }
        let failure = |(index, event): (usize, &Event)| {
            let error = match unrouted(event) {
                true => PublishError::Permanent(format!(
                    "no plugin takes events of type `{}`; see `events` in the plugins' manifests",
                    event.event_type()
                )),
                false => PublishError::Retryable(
                    "another event of the batch was refused, and a batch is taken whole".to_owned(),
                ),
            };
            Failure { index, error }
        };
        Err(events.iter().enumerate().map(failure).collect())
    }
}

impl Route {
    fn leads(&self, event: &Event) -> bool {
        self.events
            .iter()
            .any(|pattern| pattern.matches(event.event_type()))
    }
}

/// The plugin that was loaded from `file`.
pub(super) fn of_file<'a>(
    plugins: impl IntoIterator<Item = &'a Arc<Plugin>>,
    file: &Path,
) -> Option<&'a Arc<Plugin>> {
    plugins.into_iter().find(|plugin| plugin.file() == file)
}
