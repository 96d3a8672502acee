//! A plugin is replaced over and over under load: nothing is lost, nothing
//! comes twice, the order is kept.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};

use crate::scene::{marked, wait_for_plugin, wait_long_for};

/// How many events a request carries, and how often one is due.
const EVENTS: usize = 100;
const EVERY: Duration = Duration::from_millis(5);

const REPLACEMENTS: u8 = 10;

/// How long to post: `BACKHAUL_TEST_LOAD_SECONDS`, or ten seconds.
fn duration() -> Duration {
    let seconds = std::env::var("BACKHAUL_TEST_LOAD_SECONDS").ok();
    let seconds = seconds.map_or(10, |text| text.parse().expect("a number of seconds"));
    Duration::from_secs(seconds)
}

#[derive(Debug, Default)]
struct Posted {
    events: usize,
    /// Requests that were answered 429 and posted again.
    refused: usize,
    took: Duration,
}

/// Posts batches of events with the ids 0, 1, ... for as long as `going` says.
fn post(host: &Host, going: &AtomicBool) -> Posted {
    let agent = ureq::Agent::new_with_config(
        ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None)
            .build(),
    );
    let url = format!("{}/events", host.url());
    let mut posted = Posted::default();
    let began = Instant::now();
    for n in 0.. {
        if !going.load(Ordering::Relaxed) {
            break;
        }
        let event = |id| format!(r#"{{"specversion":"1.0","id":"{id}","source":"/t","type":"t"}}"#);
        let events: Vec<String> = (n * EVENTS..(n + 1) * EVENTS).map(event).collect();
        let body = format!("[{}]", events.join(","));
        loop {
            let mut answer = agent
                .post(&url)
                .header("content-type", "application/cloudevents-batch+json")
                .send(&body)
                .expect("the host answers");
            let text = answer.body_mut().read_to_string().expect("a body");
            match answer.status().as_u16() {
                202 => break,
                429 => posted.refused += 1,
                status => panic!("{status}: {text}"),
            }
            std::thread::sleep(EVERY);
        }
        posted.events += EVENTS;
        let due = EVERY * u32::try_from(n + 1).expect("some thousands");
        std::thread::sleep(due.saturating_sub(began.elapsed()));
    }
    posted.took = began.elapsed();
    posted
}

/// The longest time in which the plugin's file did not grow, until `going` ends.
fn longest_pause(workspace: &Workspace, going: &AtomicBool) -> Duration {
    let file = workspace.path().join("data/out/events.ndjson");
    let (mut size, mut grown, mut longest) = (0, None::<Instant>, Duration::ZERO);
    while going.load(Ordering::Relaxed) {
        let now = fs::metadata(&file).map_or(0, |metadata| metadata.len());
        if now != size {
            size = now;
            let before = grown.replace(Instant::now());
            longest = longest.max(before.map_or(Duration::ZERO, |before| before.elapsed()));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    longest
}

#[test]
fn nothing_is_lost_doubled_or_reordered_while_a_plugin_is_replaced_under_load() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let good = fs::read(components::plugin("file")).unwrap();
    let host = workspace.serve();
    let going = AtomicBool::new(true);
    let every = duration() / u32::from(REPLACEMENTS);

    let (posted, pause) = std::thread::scope(|scope| {
        let posting = scope.spawn(|| post(&host, &going));
        let looking = scope.spawn(|| longest_pause(&workspace, &going));
        for number in 0..REPLACEMENTS {
            let began = Instant::now();
            let before = host.plugin("file").unwrap();
            let broken = number == 3 || number == 7;
            let bytes = match broken {
                true => b"garbage".to_vec(),
                false => marked(good.clone(), number),
            };
            fs::write(workspace.path().join("plugins/file.wasm"), bytes).unwrap();
            wait_for_plugin(&host, "file", "the replacement", |now| match broken {
                true => now["problem"].is_string() && now["loaded"] == before["loaded"],
                false => now["problem"].is_null() && now["loaded"] != before["loaded"],
            });
            std::thread::sleep(every.saturating_sub(began.elapsed()));
        }
        going.store(false, Ordering::Relaxed);
        (
            posting.join().expect("every batch is accepted"),
            looking.join().expect("the file is looked at"),
        )
    });
    let delivery = wait_long_for("all of it to be delivered", || {
        let now = host.plugin("file")?;
        (now["delivery"]["pending"] == 0).then(|| now["delivery"].clone())
    });
    let (status, log) = host.stop();
    assert!(status.success(), "{log}");
    eprintln!(
        "{} events in {:.1?}, {:.0} a second, {} requests answered 429; \
         replaced {REPLACEMENTS} times; longest pause between arrivals {pause:.1?}; {delivery}",
        posted.events,
        posted.took,
        posted.events as f64 / posted.took.as_secs_f64(),
        posted.refused
    );
    assert_eq!(log.matches(": replaced ").count(), 8, "{log}");
    assert_eq!(log.matches("not replaced").count(), 2, "{log}");

    let lines = workspace.file_lines();
    let wrong = lines
        .iter()
        .enumerate()
        .find(|(n, line)| line["id"].as_str() != Some(n.to_string().as_str()));
    assert!(wrong.is_none(), "{wrong:?}");
    assert_eq!(lines.len(), posted.events);
}
