//! `/metrics` says what the host did, in a form that is read everywhere.

use std::io::{Read, Write};
use std::net::TcpStream;

use backhaul_tests::books::{Metrics, book, wait_until_settled};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::load::{Load, LoadOptions};
use backhaul_tests::wait_for;

const FILE: (&str, &str) = ("backend", "file");

/// The bounds of the histogram's buckets, as labels.
const ENDS: [&str; 20] = [
    "0.00025", "0.0005", "0.001", "0.002", "0.004", "0.008", "0.016", "0.032", "0.064", "0.125",
    "0.25", "0.5", "1.0", "2.0", "4.0", "8.0", "16.0", "32.0", "60.0", "+Inf",
];

fn get(metrics: &Metrics, name: &str, labels: &[(&str, &str)]) -> f64 {
    let value = metrics.get(name, labels);
    value.unwrap_or_else(|| panic!("no {name} with {labels:?}"))
}

/// Asks under a host name of one's own choice; returns the head and the body.
fn ask(host: &Host, path: &str, name: &str) -> (String, String) {
    let mut stream = TcpStream::connect(host.address()).expect("a connection");
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nhost: {name}\r\nconnection: close\r\n\r\n"
    )
    .expect("it is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    (head.to_owned(), body.to_owned())
}

#[test]
fn what_was_delivered_is_counted_and_in_the_histogram() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve();
    assert_eq!(host.post_batch("a", 50).status, 202);
    assert_eq!(host.post_event("b", "after:signup", "1").status, 202);
    let books = wait_until_settled(&host);
    assert_eq!((books.len(), books[0].delivered), (1, 51));

    // A batch is counted as delivered first, and in the histogram right after.
    let metrics = wait_for("all events in the histogram", || {
        let metrics = Metrics::of(&host);
        let count = metrics.get("backhaul_delivery_latency_seconds_count", &[FILE]);
        (count == Some(51.0)).then_some(metrics)
    });
    let up_to = ENDS.map(|end| {
        let labels = [FILE, ("le", end)];
        get(
            &metrics,
            "backhaul_delivery_latency_seconds_bucket",
            &labels,
        )
    });
    assert!(up_to.is_sorted(), "{up_to:?}");
    assert_eq!(up_to.last(), Some(&51.0));
    let sum = get(&metrics, "backhaul_delivery_latency_seconds_sum", &[FILE]);
    assert!(sum > 0.0 && sum < 51.0 * 60.0, "{sum}");

    let plugin = ("plugin", "file");
    for (name, labels, value) in [
        ("backhaul_plugin_state", vec![("state", "ready")], 1.0),
        ("backhaul_plugin_state", vec![("state", "quarantined")], 0.0),
        ("backhaul_plugin_denied_total", vec![], 0.0),
        ("backhaul_plugin_instances_started_total", vec![], 1.0),
        ("backhaul_plugin_instances_broken_total", vec![], 0.0),
    ] {
        let labels = [labels, vec![plugin]].concat();
        assert_eq!(get(&metrics, name, &labels), value, "{name} {labels:?}");
    }
    let ok = [("state", "ok")];
    assert_eq!(get(&metrics, "backhaul_journal_state", &ok), 1.0);
    let size = get(&metrics, "backhaul_journal_size_bytes", &[]);
    let max = get(&metrics, "backhaul_journal_max_size_bytes", &[]);
    assert!(0.0 < size && size < max, "{size} of {max}");
    let groups = get(&metrics, "backhaul_journal_groups_total", &[]);
    assert!((1.0..=51.0).contains(&groups), "{groups}");
    assert_eq!(host.stop().0.code(), Some(0));
}

#[test]
fn the_books_balance_in_every_scrape_while_events_flow() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve();
    let options = LoadOptions {
        pause: std::time::Duration::ZERO,
        ..LoadOptions::default()
    };
    let load = Load::start(&host, options);
    let mut last = 0.0;
    while last < 5000.0 {
        let metrics = Metrics::of(&host);
        let count = |name: &str| get(&metrics, name, &[FILE]);
        let accepted = count("backhaul_events_accepted_total");
        let settled = count("backhaul_events_delivered_total")
            + count("backhaul_events_dead_total")
            + count("backhaul_events_dropped_total");
        let pending = count("backhaul_events_pending");
        assert_eq!(accepted, settled + pending);
        assert!(accepted >= last, "a counter went back: {accepted}, {last}");
        last = accepted;
    }
    let posted = load.stop();
    let books = wait_until_settled(&host);
    assert_eq!(books[0].accepted as usize, posted.fates.len());
    assert_eq!(host.stop().0.code(), Some(0));
}

#[test]
fn whoever_reaches_the_host_gets_open_metrics_and_only_neighbours_the_rest() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve();
    let (head, body) = ask(&host, "/metrics", "backhaul.example.com:7070");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let content_type =
        "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n";
    assert!(format!("{head}\r\n").contains(content_type), "{head}");
    assert!(body.ends_with("\n# EOF\n"), "{body}");
    assert_eq!(body.matches("# EOF").count(), 1);

    let (head, _) = ask(&host, "/api/backends", "backhaul.example.com:7070");
    assert!(head.starts_with("HTTP/1.1 403 "), "{head}");
    let (head, _) = ask(&host, "/api/backends", "localhost:7070");
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    assert_eq!(book(&host, "file").accepted, 0);
    assert_eq!(host.stop().0.code(), Some(0));
}

#[test]
fn without_a_journal_its_figures_are_missing_and_dead_letters_are_counted_in_memory() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve_with(&["--journal", "off"]);
    assert_eq!(host.post_batch("a", 5).status, 202);
    wait_until_settled(&host);
    let metrics = Metrics::of(&host);
    assert_eq!(metrics.get("backhaul_journal_state", &[]), None);
    assert_eq!(metrics.get("backhaul_journal_size_bytes", &[]), None);
    assert_eq!(get(&metrics, "backhaul_dead_letters", &[FILE]), 0.0);
    assert_eq!(
        get(&metrics, "backhaul_events_delivered_total", &[FILE]),
        5.0
    );
    assert_eq!(host.stop().0.code(), Some(0));
}
