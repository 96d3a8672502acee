//! A host that is asked to stop under load: it ends in time, and what it could
//! not deliver is delivered by the next one.

use std::time::{Duration, Instant};

use backhaul_tests::host::Workspace;
use backhaul_tests::load::{Fate, Load, LoadOptions};
use backhaul_tests::oracle::judge;
use backhaul_tests::proxy::{Fault, Proxy};
use backhaul_tests::redis_server::RedisServer;

use crate::scene::{
    BATCH, add_guest, add_redis_plugin, judge_redis, of, published, stop, wait_long_for,
    wait_until_settled,
};

const DRAIN: Duration = Duration::from_secs(1);

#[test]
fn what_a_stopped_host_has_not_delivered_the_next_one_delivers_once() {
    let workspace = Workspace::new();
    // Some 160 events a second at most.
    let limits = "batch = 8";
    add_guest(
        &workspace,
        ("slow", "note_life"),
        "",
        "PAUSE = \"50\"",
        limits,
    );
    add_guest(&workspace, ("fast", "note_life"), "", "", "");
    let arguments = ["--drain", "1s"];
    let mut host = workspace.serve_with(&arguments);
    let load = Load::start(&host, LoadOptions::default());
    for _ in 0..2 {
        let before = load.accepted();
        wait_long_for("events to pile up", || {
            (load.accepted() > before + 1000).then_some(())
        });
        load.expect_the_end();
        let began = Instant::now();
        let (status, log) = host.stop();
        let took = began.elapsed();
        eprintln!("stopped after {took:.2?}");
        assert_eq!(status.code(), Some(0), "what is left is kept: {log}");
        assert!(took < DRAIN + Duration::from_secs(2), "{took:?}");
        host = workspace.serve_with(&arguments);
        load.aim(&host);
    }
    let posted = load.stop();
    let books = wait_until_settled(&host);
    for name in ["slow", "fast"] {
        let verdict = judge(&posted, &published(&workspace, name));
        eprintln!("{name}: {verdict}");
        verdict.assert_nothing_lost();
        verdict.assert_in_order();
        // A publish that was under way when the time was up was given up.
        let most = if name == "slow" { 2 * 8 } else { 0 };
        verdict.assert_duplicates_at_most(most, "a batch for each stop");
        of(&books, name).assert_agrees(&posted, &verdict);
    }
    stop(host);
}

#[test]
fn a_host_stops_in_time_though_its_server_does_not_answer_and_loses_nothing() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let proxy = Proxy::to(&redis.address());
    let workspace = Workspace::new();
    add_redis_plugin(&workspace, &proxy.address(), "", "");
    let host = workspace.serve_with(&["--drain", "1s"]);
    let load = Load::start(&host, LoadOptions::default());
    wait_long_for("events to be accepted", || {
        (load.accepted() > 500).then_some(())
    });
    proxy.set(Fault::Silence);
    let before = load.accepted();
    wait_long_for("more events to be accepted", || {
        (load.accepted() > before + 500).then_some(())
    });
    load.expect_the_end();
    let began = Instant::now();
    let (status, log) = host.stop();
    let took = began.elapsed();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(took < DRAIN + Duration::from_secs(3), "{took:?}: {log}");
    let posted = load.stop();
    assert_eq!(posted.count(Fate::Refused), 0, "{:?}", posted.refusals);

    proxy.set(Fault::None);
    let host = workspace.serve();
    let books = wait_until_settled(&host);
    let verdict = judge_redis(&posted, &redis);
    eprintln!("stopped after {took:.2?}; {verdict}");
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    // What was on its way when the silence began arrives when it ends; each try
    // may have been a batch.
    let most = 4 * BATCH;
    verdict.assert_duplicates_at_most(most, "a batch for each try");
    of(&books, "redis-streams").assert_agrees(&posted, &verdict);
    stop(host);
}
