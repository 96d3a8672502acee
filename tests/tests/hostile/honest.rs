//! The honest plugin, and how it fares: what reaches it, and how long the host
//! takes to answer.
//!
//! Two programs post batches of [`BATCH`] events to the host, each its next one
//! when the one before was answered, all the time. What is counted is what the
//! `file` plugin has *written* in a window, so whatever holds up the host's
//! HTTP, its queues or the plugin is in the figure.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::Scope;
use std::time::{Duration, Instant};

use backhaul_tests::host::Host;

/// How many post at once.
const POSTERS: usize = 2;

/// How many events are in a batch.
const BATCH: usize = 20;

/// How long one measurement takes. Short, so that what else the machine does
/// meets some and not all.
const WINDOW: Duration = Duration::from_millis(200);

/// What it did in some windows.
#[derive(Clone, Default)]
pub(crate) struct Measured {
    /// Events a second of each window.
    pub(crate) rates: Vec<f64>,
    /// The longest a post was not answered.
    pub(crate) slowest: Duration,
}

pub(crate) struct Honest<'a> {
    host: &'a Host,
    stopped: &'a AtomicBool,
    slowest: &'a AtomicU64,
}

impl<'a> Honest<'a> {
    /// Starts to post, until `stopped`.
    pub(crate) fn start<'scope>(
        scope: &'scope Scope<'scope, 'a>,
        host: &'a Host,
        stopped: &'a AtomicBool,
        slowest: &'a AtomicU64,
    ) -> Honest<'a> {
        let event = serde_json::json!({
            "specversion": "1.0", "id": "1", "source": "/tests", "type": "honest",
            "data": { "user": 1 },
        });
        let body = serde_json::to_vec(&vec![event; BATCH]).expect("JSON");
        for _ in 0..POSTERS {
            let body = body.clone();
            scope.spawn(move || {
                let headers = [("content-type", "application/cloudevents-batch+json")];
                while !stopped.load(Ordering::Relaxed) {
                    let started = Instant::now();
                    let answer = host.post(&headers, &body);
                    let took = started.elapsed().as_micros() as u64;
                    slowest.fetch_max(took, Ordering::Relaxed);
                    match answer.status {
                        202 => {}
                        // It has been given more than it can write.
                        429 => std::thread::sleep(Duration::from_millis(5)),
                        _ => panic!("{answer:?}"),
                    }
                }
            });
        }
        Honest {
            host,
            stopped,
            slowest,
        }
    }

    /// Its figures, for instance `delivered`.
    pub(crate) fn count(&self, figure: &str) -> u64 {
        let status = self.host.get("/api/plugins/file").body;
        status["delivery"][figure].as_u64().expect("a number")
    }

    /// Measures `windows` windows, one after the other.
    pub(crate) fn measure(&self, windows: usize) -> Measured {
        self.slowest.store(0, Ordering::Relaxed);
        let mut rates = Vec::new();
        for _ in 0..windows {
            let (started, before) = (Instant::now(), self.count("delivered"));
            std::thread::sleep(WINDOW);
            let delivered = self.count("delivered") - before;
            rates.push(delivered as f64 / started.elapsed().as_secs_f64());
        }
        let slowest = Duration::from_micros(self.slowest.load(Ordering::Relaxed));
        assert_eq!(self.host.get("/health/ready").status, 200);
        Measured { rates, slowest }
    }
}

impl Drop for Honest<'_> {
    fn drop(&mut self) {
        // Or the posters would keep a failed test from ending.
        self.stopped.store(true, Ordering::Relaxed);
    }
}

impl Measured {
    pub(crate) fn and(&self, other: &Measured) -> Measured {
        Measured {
            rates: [&self.rates[..], &other.rates[..]].concat(),
            slowest: self.slowest.max(other.slowest),
        }
    }

    /// The median of the rates.
    pub(crate) fn rate(&self) -> f64 {
        let mut rates = self.rates.clone();
        rates.sort_by(f64::total_cmp);
        let middle = rates.len() / 2;
        match rates.len() % 2 {
            0 => (rates[middle - 1] + rates[middle]) / 2.0,
            _ => rates[middle],
        }
    }
}
