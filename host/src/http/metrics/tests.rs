//! What is printed, read again as Prometheus' older text format.

use std::collections::{BTreeMap, HashSet};

use super::*;
use crate::delivery::{BreakerState, DeliveryStats, Dropped, LatencySnapshot};
use crate::journal::JournalState;
use crate::plugins::BackendState;

/// A name that needs every escape there is.
const ODD: &str = "a \"b\"\\c\nd, e=\"f\"} 7";

type Labels = BTreeMap<String, String>;

/// The value of each series.
struct Read(Vec<(String, Labels, f64)>);

impl Read {
    /// Reads the answer, strictly: each family is declared once, with a type the
    /// older format has, and all its samples follow.
    fn from(text: &str) -> Read {
        let lines = text.strip_suffix("# EOF\n").expect("the end is marked");
        let (mut samples, mut declared, mut seen) = (Vec::new(), HashSet::new(), HashSet::new());
        let mut family = "";
        for line in lines.lines() {
            let words: Vec<&str> = line.splitn(4, ' ').collect();
            match words[..] {
                ["#", "HELP", name, help] => {
                    assert!(declared.insert(name), "{name} is declared twice");
                    assert!(help.ends_with('.'), "{line}");
                    family = name;
                }
                ["#", "TYPE", name, kind] => {
                    assert_eq!(name, family);
                    assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                }
                ["#", "UNIT", name, unit] => {
                    assert_eq!(name, family);
                    assert!(name.ends_with(&format!("_{unit}")), "{line}");
                }
                _ => {
                    let (name, labels, value) = sample(line);
                    let suffix = name.strip_prefix(family).expect(line);
                    assert!(["", "_total", "_sum", "_count", "_bucket"].contains(&suffix));
                    assert!(seen.insert((name.clone(), labels.clone())), "twice: {line}");
                    samples.push((name, labels, value));
                }
            }
        }
        Read(samples)
    }

    fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let pair = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let labels: Labels = labels.iter().map(pair).collect();
        let mut found = self.0.iter();
        let found = found.find(|(own, has, _)| own == name && *has == labels);
        found.map(|(_, _, value)| *value)
    }
}

/// `NAME{LABEL="VALUE",...} NUMBER`
fn sample(line: &str) -> (String, Labels, f64) {
    let end = line.find(['{', ' ']).expect("a value");
    let (name, mut rest) = line.split_at(end);
    let mut labels = Labels::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").expect(line);
            let (value, after) = quoted(after);
            assert!(labels.insert(label.to_owned(), value).is_none(), "{line}");
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = &rest[1..];
    }
    let value = rest.strip_prefix(' ').expect(line);
    (name.to_owned(), labels, value.parse().expect(line))
}

/// A label's value up to its closing quote, and what follows that.
fn quoted(text: &str) -> (String, &str) {
    let (mut value, mut characters) = (String::new(), text.char_indices());
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match characters.next().map(|(_, escaped)| escaped) {
                Some('n') => '\n',
                Some(same @ ('\\' | '"')) => same,
                other => panic!("no escape: {other:?}"),
            }),
            other => value.push(other),
        }
    }
    panic!("no closing quote: {text}");
}

fn backend(name: &str, state: BackendState) -> BackendStatus {
    let mut latency = LatencySnapshot::default();
    latency.counts[2] = 3;
    *latency.counts.last_mut().expect("the open one") = 1;
    (latency.count, latency.sum_seconds) = (4, 61.5);
    BackendStatus {
        name: name.to_owned(),
        present: true,
        state,
        delivery: DeliveryStats {
            accepted: 100,
            delivered: 50,
            dead: 20,
            dropped: Dropped {
                closed: 4,
                unreadable: 3,
                forgotten: 2,
            },
            pending: 21,
            retries: 7,
            breaker: match state {
                BackendState::Failing => BreakerState::Open,
                _ => BreakerState::Closed,
            },
            ..DeliveryStats::default()
        },
        dead_letters: if name == ODD { 5 } else { 0 },
        latency,
    }
}

fn read(journal: Option<JournalStatus>) -> Read {
    let snapshot = Snapshot {
        backends: vec![
            backend(ODD, BackendState::Failing),
            backend("plain", BackendState::Ok),
        ],
        journal,
        plugins: Vec::new(),
    };
    Read::from(&snapshot.into_text().expect("text"))
}

#[test]
fn every_figure_of_a_backend_is_there_under_its_name_whatever_that_is() {
    let read = read(None);
    let own = ("backend", ODD);
    for (name, value) in [
        ("backhaul_events_accepted_total", 100.0),
        ("backhaul_events_delivered_total", 50.0),
        ("backhaul_events_dead_total", 20.0),
        ("backhaul_events_pending", 21.0),
        ("backhaul_delivery_retries_total", 7.0),
        ("backhaul_backend_breaker_open", 1.0),
        ("backhaul_dead_letters", 5.0),
    ] {
        assert_eq!(read.get(name, &[own]), Some(value), "{name}");
    }
    for (reason, value) in [("closed", 4.0), ("unreadable", 3.0), ("forgotten", 2.0)] {
        let labels = [own, ("reason", reason)];
        let dropped = read.get("backhaul_events_dropped_total", &labels);
        assert_eq!(dropped, Some(value), "{reason}");
    }
    let plain = [("backend", "plain")];
    assert_eq!(read.get("backhaul_backend_breaker_open", &plain), Some(0.0));
    assert_eq!(read.get("backhaul_dead_letters", &plain), Some(0.0));
    let version = [("version", env!("CARGO_PKG_VERSION"))];
    assert_eq!(read.get("backhaul_build_info", &version), Some(1.0));
}

#[test]
fn the_histogram_is_cumulative_and_ends_with_all_events() {
    let read = read(None);
    let name = "backhaul_delivery_latency_seconds";
    let own = ("backend", ODD);
    let up_to = |end: &str| read.get(&format!("{name}_bucket"), &[own, ("le", end)]);
    for (end, count) in [
        ("0.00025", 0.0),
        ("0.0005", 0.0),
        ("0.001", 3.0),
        ("1.0", 3.0),
        ("60.0", 3.0),
        ("+Inf", 4.0),
    ] {
        assert_eq!(up_to(end), Some(count), "{end}");
    }
    assert_eq!(read.get(&format!("{name}_count"), &[own]), Some(4.0));
    assert_eq!(read.get(&format!("{name}_sum"), &[own]), Some(61.5));
}

#[test]
fn a_journal_is_in_one_state_and_there_are_no_figures_of_none() {
    let status = JournalStatus {
        folder: "/journal".into(),
        state: JournalState::Full,
        problem: Some("full".to_owned()),
        size: 900,
        max_size: 1000,
        oldest: 1,
        next: 9,
        unreadable: 2,
        groups: 3,
    };
    let with = read(Some(status));
    let state = |state| with.get("backhaul_journal_state", &[("state", state)]);
    let states = [state("ok"), state("full"), state("failing")];
    assert_eq!(states, [Some(0.0), Some(1.0), Some(0.0)]);
    for (name, value) in [
        ("backhaul_journal_size_bytes", 900.0),
        ("backhaul_journal_max_size_bytes", 1000.0),
        ("backhaul_journal_groups_total", 3.0),
        ("backhaul_journal_unreadable_events_total", 2.0),
    ] {
        assert_eq!(with.get(name, &[]), Some(value), "{name}");
    }
    let without = read(None);
    let named = |(name, _, _): &(String, Labels, f64)| name.starts_with("backhaul_journal");
    assert!(!without.0.iter().any(named));
}
