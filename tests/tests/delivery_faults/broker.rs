//! The server behind a plugin goes away, stands still, or answers badly, directly
//! and through a proxy that is in the way.
//!
//! The same is done for each fault: it begins under load, is looked at from
//! outside, and ends; nothing is lost, and how long it took from the end of the
//! fault to the first and the last event is printed. A `file` plugin in the same
//! host gets the same events and must not feel it.

use std::time::{Duration, Instant};

use backhaul_tests::books::{Metrics, book, books};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::load::{Fate, Load, LoadOptions};
use backhaul_tests::oracle::judge;
use backhaul_tests::proxy::{Fault, Proxy};
use backhaul_tests::redis_server::RedisServer;

use crate::scene::{
    STREAM, add_redis_plugin, in_file, judge_redis, of, stop, wait_long_for, wait_until_settled,
};

/// How long a fault goes on after it was noticed.
const LASTS: Duration = Duration::from_millis(700);

struct Outage {
    redis: RedisServer,
    proxy: Proxy,
}

/// Whether the breaker has to open.
#[derive(PartialEq, Eq)]
enum Breaker {
    Opens,
    MayOpen,
}

fn outage(
    name: &str,
    breaker: Breaker,
    begin: impl FnOnce(&mut Outage),
    end: impl FnOnce(&mut Outage),
) {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let proxy = Proxy::to(&redis.address());
    let workspace = Workspace::new();
    add_redis_plugin(&workspace, &proxy.address(), "", "");
    workspace.add_file_plugin();
    let host = workspace.serve();
    let load = Load::start(&host, LoadOptions::default());
    let mut outage = Outage { redis, proxy };
    wait_long_for("events in the stream", || {
        (outage.redis.len(STREAM) >= 100).then_some(())
    });

    begin(&mut outage);
    if breaker == Breaker::Opens {
        let began = Instant::now();
        wait_long_for("the breaker to open", || {
            (book(&host, "redis-streams").breaker == "open").then_some(())
        });
        eprintln!("{name}: the breaker is open after {:.2?}", began.elapsed());
        assert_it_shows(&host);
    }
    assert_the_others_go_on(&host, &load);
    std::thread::sleep(LASTS);
    end(&mut outage);

    let mended = Instant::now();
    let before = outage.redis.len(STREAM);
    wait_long_for("a new event in the stream", || {
        (outage.redis.len(STREAM) > before).then_some(())
    });
    let first = mended.elapsed();
    let posted = load.stop();
    let books = wait_until_settled(&host);
    let all = mended.elapsed();

    let verdict = judge_redis(&posted, &outage.redis);
    eprintln!(
        "{name}: the first event {first:.2?} after its end, all after {all:.2?}; {verdict}; {} retries",
        of(&books, "redis-streams").retries
    );
    assert_eq!(posted.count(Fate::Refused), 0, "{:?}", posted.refusals);
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    let book = of(&books, "redis-streams");
    let retries = book.retries as usize;
    verdict.assert_duplicates_at_most(retries, "each try after the first may be one");
    book.assert_agrees(&posted, &verdict);
    assert_eq!(book.breaker, "closed", "{}", book.raw);

    let verdict = judge(&posted, &in_file(&workspace));
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    verdict.assert_duplicates_at_most(0, "its file was there all the time");
    of(&books, "file").assert_agrees(&posted, &verdict);
    stop(host);
}

/// An open breaker is told wherever an operator may look.
fn assert_it_shows(host: &Host) {
    let book = book(host, "redis-streams");
    assert!(book.raw["failing_since"].is_string(), "{}", book.raw);
    assert!(book.raw["last_error"].is_string(), "{}", book.raw);
    let ready = host.get("/health/ready");
    assert_eq!(ready.status, 200, "events are taken: {ready:?}");
    let backends = &ready.body["backends"];
    assert_eq!(
        (&backends["redis-streams"], &backends["file"]),
        (&"failing".into(), &"ok".into()),
        "{ready:?}"
    );
    let open = |name| Metrics::of(host).get("backhaul_backend_breaker_open", &[("backend", name)]);
    assert_eq!(
        (open("redis-streams"), open("file")),
        (Some(1.0), Some(0.0))
    );
}

/// Events are taken, and the file plugin keeps up with them.
fn assert_the_others_go_on(host: &Host, load: &Load) {
    let accepted = load.accepted();
    wait_long_for("more events to be accepted", || {
        (load.accepted() > accepted + 200).then_some(())
    });
    wait_long_for("the file plugin to keep up", || {
        let file = books(host).into_iter().find(|book| book.name == "file")?;
        (file.delivered as usize > accepted).then_some(())
    });
    let file = book(host, "file");
    assert!(file.pending < 2000, "it is behind: {}", file.raw);
    assert_eq!((file.breaker.as_str(), file.retries), ("closed", 0));
}

#[test]
fn a_server_that_is_killed_and_started_again() {
    outage(
        "killed",
        Breaker::Opens,
        |outage| outage.redis.kill(),
        |outage| outage.redis.start_again(),
    );
}

#[test]
fn a_server_that_is_stopped_and_started_again() {
    outage(
        "stopped",
        Breaker::Opens,
        |outage| outage.redis.stop(),
        |outage| outage.redis.start_again(),
    );
}

#[test]
fn a_server_that_stands_still() {
    outage(
        "standing still",
        Breaker::Opens,
        |outage| outage.redis.freeze(),
        |outage| outage.redis.thaw(),
    );
}

#[test]
fn a_port_that_is_closed() {
    through_the_proxy("refusing", Breaker::Opens, Fault::Refuse);
}

#[test]
fn a_network_that_swallows_everything() {
    through_the_proxy("silent", Breaker::Opens, Fault::Silence);
}

#[test]
fn a_network_that_is_slow() {
    through_the_proxy("slow", Breaker::MayOpen, Fault::Slow(4000));
}

#[test]
fn connections_that_end_in_the_middle_of_a_reply() {
    through_the_proxy("cut", Breaker::MayOpen, Fault::CutReplies(100));
}

#[test]
fn a_server_that_answers_rubbish() {
    through_the_proxy("rubbish", Breaker::Opens, Fault::Rubbish);
}

#[test]
fn connections_that_are_cut_over_and_over() {
    outage(
        "cut over and over",
        Breaker::MayOpen,
        |outage| {
            for _ in 0..20 {
                outage.proxy.cut_all();
                std::thread::sleep(Duration::from_millis(50));
            }
        },
        |_| {},
    );
}

fn through_the_proxy(name: &str, breaker: Breaker, fault: Fault) {
    outage(
        name,
        breaker,
        |outage| outage.proxy.set(fault),
        |outage| outage.proxy.set(Fault::None),
    );
}
