//! Which figures there are: their names, what they mean, and where they come from.
//!
//! Only what Prometheus' older text format has as well is used (no info, no state
//! set), for whoever reads it as that. The encoder adds a figure's unit to its
//! name, and `_total` to a counter's.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Unit;

use super::Snapshot;
use crate::delivery::{BreakerState, DeliveryStats, Dropped};
use crate::journal::{JournalState, JournalStatus};
use crate::plugins::{BackendStatus, PluginState, PluginStatus};

/// A label and its value.
type Label<'a> = (&'static str, &'a str);

/// Where a count comes from.
type Count<T> = fn(&T) -> u64;

/// A name and what it means.
struct About(&'static str, &'static str);

const BUILD: About = About("backhaul_build_info", "1, with the version that runs.");
const ACCEPTED: About = About("backhaul_events_accepted", "Events accepted.");
const DELIVERED: About = About("backhaul_events_delivered", "Events the backend took.");
const DEAD: About = About("backhaul_events_dead", "Events that became dead letters.");
const DROPPED: About = About("backhaul_events_dropped", "Events gone for a reason.");
const PENDING: About = About(
    "backhaul_events_pending",
    "Events that wait or are under way.",
);
const RETRIES: About = About(
    "backhaul_delivery_retries",
    "Tries after the first, over all events.",
);
const LATENCY: About = About(
    "backhaul_delivery_latency",
    "Time from accepted to delivered, since the plugin was loaded.",
);
const BREAKER: About = About(
    "backhaul_backend_breaker_open",
    "1 if the backend takes nothing and is asked now and then.",
);
const DEAD_LETTERS: About = About("backhaul_dead_letters", "Dead letters that are kept.");
const PLUGIN_STATE: About = About("backhaul_plugin_state", "1 for the state it is in.");
const DENIED: About = About(
    "backhaul_plugin_denied",
    "What it tried and was not granted.",
);
const STARTED: About = About("backhaul_plugin_instances_started", "Instances started.");
const BROKEN: About = About(
    "backhaul_plugin_instances_broken",
    "Instances that trapped, ran over a limit or broke the contract.",
);
const JOURNAL_STATE: About = About("backhaul_journal_state", "1 for the state it is in.");
const SIZE: About = About("backhaul_journal_size", "Events on disk.");
const MAX_SIZE: About = About("backhaul_journal_max_size", "The most there may be.");
const GROUPS: About = About(
    "backhaul_journal_groups",
    "Groups of events written, with one sync each.",
);
const UNREADABLE: About = About(
    "backhaul_journal_unreadable_events",
    "Events that could not be read any more.",
);

impl Collector for Snapshot {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let to = &mut encoder;
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        gauges(to, BUILD, None, [(version, 1)])?;
        events(&self.backends, to)?;
        latency(&self.backends, to)?;
        backends(&self.backends, to)?;
        plugins(&self.plugins, to)?;
        self.journal.as_ref().map_or(Ok(()), |own| journal(own, to))
    }
}

fn events(backends: &[BackendStatus], to: &mut DescriptorEncoder) -> fmt::Result {
    let counts: [(About, Count<DeliveryStats>); 4] = [
        (ACCEPTED, |stats| stats.accepted),
        (DELIVERED, |stats| stats.delivered),
        (DEAD, |stats| stats.dead),
        (RETRIES, |stats| stats.retries),
    ];
    for (about, count) in counts {
        let samples = backends.iter().map(|b| ([backend(b)], count(&b.delivery)));
        counters(to, about, samples)?;
    }
    let reasons: [(&str, Count<Dropped>); 3] = [
        ("closed", |dropped| dropped.closed),
        ("unreadable", |dropped| dropped.unreadable),
        ("forgotten", |dropped| dropped.forgotten),
    ];
    let dropped = backends.iter().flat_map(|b| {
        reasons.map(|(reason, count)| {
            let labels = [backend(b), ("reason", reason)];
            (labels, count(&b.delivery.dropped))
        })
    });
    counters(to, DROPPED, dropped)?;
    let pending = backends.iter().map(|b| ([backend(b)], b.delivery.pending));
    gauges(to, PENDING, None, pending)
}

fn latency(backends: &[BackendStatus], to: &mut DescriptorEncoder) -> fmt::Result {
    let About(name, help) = LATENCY;
    let mut family =
        to.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
    for status in backends {
        let latency = &status.latency;
        let ends = latency.bounds.iter().copied().chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = ends.zip(latency.counts.iter().copied()).collect();
        let (sum, count) = (latency.sum_seconds, latency.count);
        let labels = [backend(status)];
        let mut sample = family.encode_family(&labels)?;
        sample.encode_histogram::<NoLabelSet>(sum, count, &buckets, None)?;
    }
    Ok(())
}

fn backends(backends: &[BackendStatus], to: &mut DescriptorEncoder) -> fmt::Result {
    let open = |b: &BackendStatus| u64::from(b.delivery.breaker != BreakerState::Closed);
    let breakers = backends.iter().map(|b| ([backend(b)], open(b)));
    gauges(to, BREAKER, None, breakers)?;
    let letters = backends.iter().map(|b| ([backend(b)], b.dead_letters));
    gauges(to, DEAD_LETTERS, None, letters)
}

fn plugins(plugins: &[PluginStatus], to: &mut DescriptorEncoder) -> fmt::Result {
    let states = plugins.iter().flat_map(|p| {
        [PluginState::Ready, PluginState::Quarantined].map(|state| {
            let labels = [plugin(p), ("state", state.as_str())];
            (labels, u64::from(p.state == state))
        })
    });
    gauges(to, PLUGIN_STATE, None, states)?;
    let counts: [(About, Count<PluginStatus>); 3] = [
        (DENIED, |plugin| plugin.denied.total),
        (STARTED, |plugin| plugin.instances.started),
        (BROKEN, |plugin| plugin.instances.broken),
    ];
    for (about, count) in counts {
        let samples = plugins.iter().map(|p| ([plugin(p)], count(p)));
        counters(to, about, samples)?;
    }
    Ok(())
}

fn journal(status: &JournalStatus, to: &mut DescriptorEncoder) -> fmt::Result {
    let states = [JournalState::Ok, JournalState::Full, JournalState::Failing];
    let states = states.map(|state| {
        let is = u64::from(status.state == state);
        ([("state", state.as_str())], is)
    });
    gauges(to, JOURNAL_STATE, None, states)?;
    for (about, bytes) in [(SIZE, status.size), (MAX_SIZE, status.max_size)] {
        gauges(to, about, Some(&Unit::Bytes), [([], bytes)])?;
    }
    counters(to, GROUPS, [([], status.groups)])?;
    counters(to, UNREADABLE, [([], status.unreadable)])
}

fn backend(status: &BackendStatus) -> Label<'_> {
    ("backend", &status.name)
}

fn plugin(status: &PluginStatus) -> Label<'_> {
    ("plugin", &status.name)
}

fn counters<'a, const N: usize>(
    to: &mut DescriptorEncoder,
    About(name, help): About,
    samples: impl IntoIterator<Item = ([Label<'a>; N], u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, count) in samples {
        let mut sample = family.encode_family(&labels)?;
        sample.encode_counter::<NoLabelSet, _, u64>(&count, None)?;
    }
    Ok(())
}

fn gauges<'a, const N: usize>(
    to: &mut DescriptorEncoder,
    About(name, help): About,
    unit: Option<&Unit>,
    samples: impl IntoIterator<Item = ([Label<'a>; N], u64)>,
) -> fmt::Result {
    let mut family = to.encode_descriptor(name, help, unit, MetricType::Gauge)?;
    for (labels, value) in samples {
        family.encode_family(&labels)?.encode_gauge(&value)?;
    }
    Ok(())
}
