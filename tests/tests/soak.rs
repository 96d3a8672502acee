//! Half the top rate for ten minutes: memory and files stay as they are.
//!
//! Not part of a test run: `cargo test --package backhaul-tests --test soak --
//! --ignored --nocapture`, on a machine that does nothing else, after
//! `cargo xtask plugins` and `cargo build --package backhaul`.
//! `BACKHAUL_TEST_SOAK_SECONDS` says for how long (600).

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backhaul_tests::books::{assert_books_balance, book, wait_for_backend};
use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::redis_server::RedisServer;

/// Events in a request.
const BATCH: usize = 100;

/// Connections that post.
const CONNECTIONS: usize = 4;

/// How long the top rate is looked for.
const TOP: Duration = Duration::from_secs(10);

/// What the journal may keep of what is delivered.
const RETAIN_MIB: u64 = 64;

fn seconds() -> u64 {
    let seconds = std::env::var("BACKHAUL_TEST_SOAK_SECONDS").ok();
    seconds.map_or(600, |text| text.parse().expect("a number of seconds"))
}

/// A hundred events of 256 bytes.
fn body() -> String {
    let data = "x".repeat(256);
    let event = |n: usize| {
        format!(
            r#"{{"specversion":"1.0","id":"{n}","source":"/soak","type":"after:signup","data":"{data}"}}"#
        )
    };
    let events: Vec<String> = (0..BATCH).map(event).collect();
    format!("[{}]", events.join(","))
}

/// Posts for so long, at most so many events a second; `watch` is called once a
/// second. Returns how many were accepted.
fn post(host: &Host, time: Duration, rate: Option<f64>, mut watch: impl FnMut(u64)) -> u64 {
    let accepted = AtomicU64::new(0);
    let (body, began) = (body(), Instant::now());
    std::thread::scope(|scope| {
        for connection in 0..CONNECTIONS {
            let (accepted, body) = (&accepted, &body);
            scope.spawn(move || {
                for request in (connection..).step_by(CONNECTIONS) {
                    if let Some(rate) = rate {
                        let due = Duration::from_secs_f64((request * BATCH) as f64 / rate);
                        std::thread::sleep(due.saturating_sub(began.elapsed()));
                    }
                    if began.elapsed() > time {
                        break;
                    }
                    let headers = [("content-type", "application/cloudevents-batch+json")];
                    match host.post(&headers, body).status {
                        202 => accepted.fetch_add(BATCH as u64, Ordering::Relaxed),
                        429 => 0,
                        other => panic!("answered {other}"),
                    };
                }
            });
        }
        let mut second = 0;
        while began.elapsed() < time {
            second += 1;
            std::thread::sleep(Duration::from_secs(second).saturating_sub(began.elapsed()));
            watch(accepted.load(Ordering::Relaxed));
        }
    });
    accepted.load(Ordering::Relaxed)
}

#[derive(Clone, Copy)]
struct Sample {
    memory_mib: u64,
    journal_mib: u64,
    redis_mib: u64,
    pending: u64,
}

fn folder_mib(folder: &std::path::Path) -> u64 {
    let files = walk(folder).into_iter();
    files.map(|length| length >> 10).sum::<u64>() >> 10
}

/// The lengths of the files in and under `folder`.
fn walk(folder: &std::path::Path) -> Vec<u64> {
    let mut lengths = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(found) if found.is_dir() => lengths.extend(walk(&entry.path())),
            Ok(found) => lengths.push(found.len()),
            // Removed in between.
            Err(_) => {}
        }
    }
    lengths
}

#[test]
#[ignore = "takes ten minutes; run by hand"]
fn at_half_the_top_rate_memory_and_files_stay_level() {
    let Some(redis) = RedisServer::with(&["--appendonly", "no"]) else {
        return;
    };
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"{0}\"]\nenv = {{ REDIS_URL = \"redis://{0}\", REDIS_MAXLEN = \"10000\" }}\n",
        redis.address()
    );
    workspace.add_plugin(
        "redis-streams",
        &components::plugin("redis-streams"),
        &manifest,
    );
    let retain = format!("{RETAIN_MIB}MiB");
    let host = workspace.serve_with(&["--journal-retain-size", &retain]);
    let journal = workspace.data().join("journal");

    let began = Instant::now();
    let mut accepted = post(&host, TOP, None, |_| {});
    wait_for_backend(&host, "redis-streams", Duration::from_secs(60));
    let top = accepted as f64 / began.elapsed().as_secs_f64();
    println!("top: {top:.0} events/s accepted and delivered");

    let mut samples = Vec::new();
    let time = Duration::from_secs(seconds());
    println!(
        "{:>6} {:>10} {:>10} {:>10} {:>10} {:>10}",
        "s", "accepted", "memory MiB", "files MiB", "redis MiB", "pending"
    );
    accepted += post(&host, time, Some(top / 2.0), |count| {
        let info: String = redis::cmd("INFO")
            .arg("memory")
            .query(&mut redis.connect())
            .expect("INFO");
        let used = info
            .lines()
            .find_map(|line| line.strip_prefix("used_memory:"));
        let sample = Sample {
            memory_mib: host.resident_bytes() >> 20,
            journal_mib: folder_mib(&journal),
            redis_mib: used
                .and_then(|used| used.trim().parse::<u64>().ok())
                .unwrap_or(0)
                >> 20,
            pending: book(&host, "redis-streams").pending,
        };
        samples.push(sample);
        if samples.len() % 10 == 0 {
            println!(
                "{:>6} {count:>10} {:>10} {:>10} {:>10} {:>10}",
                samples.len(),
                sample.memory_mib,
                sample.journal_mib,
                sample.redis_mib,
                sample.pending
            );
        }
    });
    wait_for_backend(&host, "redis-streams", Duration::from_secs(60));
    let books = assert_books_balance(&host);
    assert_eq!(
        (books[0].accepted, books[0].delivered),
        (accepted, accepted)
    );

    let most = |of: fn(&Sample) -> u64, part: &[Sample]| part.iter().map(of).max().unwrap_or(0);
    let third = samples.len() / 3;
    let (first, last) = (&samples[..third.max(1)], &samples[2 * third..]);
    for (name, of, slack) in [
        ("memory", (|s| s.memory_mib) as fn(&Sample) -> u64, 16),
        ("files", |s| s.journal_mib, 2 * RETAIN_MIB),
    ] {
        let (before, after) = (most(of, first), most(of, last));
        println!("{name}: at most {before} MiB in the first third, {after} MiB in the last");
        assert!(
            after <= before + slack,
            "{name} grows: {before} to {after} MiB"
        );
    }
    assert!(most(|s| s.journal_mib, last) <= 4 * RETAIN_MIB);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}
