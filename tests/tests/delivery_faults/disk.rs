//! The disk under the journal is full, or may not be written to; and the journal
//! has all the room it may have. Events are refused then, and taken again as soon
//! as there is room, without a restart.

use std::time::{Duration, Instant};

use backhaul_tests::books::{Metrics, journal};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::load::{Fate, Load, LoadOptions, Posted};
use backhaul_tests::proxy::{Fault, Proxy};
use backhaul_tests::redis_server::RedisServer;
use backhaul_tests::tmpfs::Tmpfs;

use crate::scene::{
    BATCH, add_redis_plugin, judge_redis, of, stop, wait_long_for, wait_until_settled,
};

/// Events of some size, so that a disk is soon full.
const LARGE: LoadOptions = LoadOptions {
    prefix: "e",
    batches: &[1, 10, 30],
    pause: Duration::from_millis(1),
    data: 2000,
    event_type: "after:signup",
};

fn wait_for_refusals(load: &Load) {
    let before = load.refused();
    wait_long_for("requests to be refused", || {
        (load.refused() > before + 20).then_some(())
    });
}

fn wait_until_it_takes_events(load: &Load) -> Duration {
    let (began, before) = (Instant::now(), load.accepted());
    wait_long_for("events to be taken again", || {
        (load.accepted() > before).then_some(())
    });
    began.elapsed()
}

/// Every refusal says when to come again, and one of `reasons`.
fn assert_clear(posted: &Posted, statuses: &[u16], reasons: &[&str]) {
    assert!(!posted.refusals.is_empty(), "nothing was refused");
    for (status, refusal) in &posted.refusals {
        assert!(statuses.contains(status), "{status}: {refusal:?}");
        assert_eq!(refusal.without_retry_after, 0, "{status}: {refusal:?}");
        let detail = refusal.body["detail"].as_str().expect("a detail");
        assert!(
            reasons.iter().any(|reason| detail.contains(reason)),
            "{status}: {detail}"
        );
    }
}

/// The journal's trouble is told wherever an operator may look.
fn assert_it_shows(host: &Host, state: &str) {
    let journal = journal(host);
    assert_eq!(journal["state"], state, "{journal}");
    assert!(journal["problem"].is_string(), "{journal}");
    let ready = host.get("/health/ready");
    assert_eq!(ready.status, 503, "{ready:?}");
    assert!(ready.body.to_string().contains("journal"), "{ready:?}");
    let metrics = Metrics::of(host);
    let of_state = [("state", state)];
    assert_eq!(metrics.get("backhaul_journal_state", &of_state), Some(1.0));
}

#[test]
fn a_full_disk_refuses_events_loses_none_and_is_good_again_when_there_is_room() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let Some(disk) = Tmpfs::mount(24) else {
        return;
    };
    let proxy = Proxy::to(&redis.address());
    let workspace = Workspace::with_data(&disk.path().join("data"));
    add_redis_plugin(&workspace, &proxy.address(), "", "");
    let arguments = ["--journal-retain-size", "256KiB"];
    let host = workspace.serve_with(&arguments);
    disk.fill(4 << 10);
    proxy.set(Fault::Refuse);
    let load = Load::start(&host, LARGE);
    wait_for_refusals(&load);
    assert_it_shows(&host, "failing");

    // What was accepted is delivered all the same.
    proxy.set(Fault::None);
    wait_long_for("events in the stream", || {
        (!redis.is_empty(crate::scene::STREAM)).then_some(())
    });
    proxy.set(Fault::Refuse);
    wait_for_refusals(&load);

    disk.free();
    let recovered = wait_until_it_takes_events(&load);
    wait_long_for("the host to be ready", || {
        (host.get("/health/ready").status == 200).then_some(())
    });
    assert_eq!(journal(&host)["state"], "ok");
    std::thread::sleep(Duration::from_millis(200));
    proxy.set(Fault::None);
    let posted = load.stop();
    let books = wait_until_settled(&host);
    let verdict = judge_redis(&posted, &redis);
    eprintln!(
        "a full disk: {} accepted, {} refused; taken again {recovered:.2?} after there was room; {verdict}",
        posted.count(Fate::Accepted),
        posted.count(Fate::Refused)
    );
    assert_clear(&posted, &[503], &["No space left", "full"]);
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    of(&books, "redis-streams").assert_agrees(&posted, &verdict);
    stop(host);
}

#[test]
fn a_full_disk_gives_up_delivered_events_that_are_only_kept() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let Some(disk) = Tmpfs::mount(24) else {
        return;
    };
    let workspace = Workspace::with_data(&disk.path().join("data"));
    add_redis_plugin(&workspace, &redis.address(), "", "");
    // More may be kept for backends that come later than there is room for.
    let host = workspace.serve_with(&["--journal-size", "64MiB"]);
    disk.fill(12 << 10);
    let load = Load::start(&host, LARGE);
    let enough = 16 << 20;
    wait_long_for("more to be accepted than there is room for", || {
        (load.accepted() * LARGE.data > enough).then_some(())
    });
    let posted = load.stop();
    let books = wait_until_settled(&host);
    let verdict = judge_redis(&posted, &redis);
    eprintln!(
        "{} accepted on a disk with room for half, {} refused; {verdict}",
        posted.count(Fate::Accepted),
        posted.count(Fate::Refused)
    );
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    of(&books, "redis-streams").assert_agrees(&posted, &verdict);
    stop(host);
}

#[test]
fn a_host_that_is_killed_while_its_disk_is_full_starts_and_delivers() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let Some(disk) = Tmpfs::mount(24) else {
        return;
    };
    let proxy = Proxy::to(&redis.address());
    proxy.set(Fault::Refuse);
    let workspace = Workspace::with_data(&disk.path().join("data"));
    add_redis_plugin(&workspace, &proxy.address(), "", "");
    let arguments = ["--journal-retain-size", "256KiB"];
    let host = workspace.serve_with(&arguments);
    disk.fill(3 << 10);
    let load = Load::start(&host, LARGE);
    wait_for_refusals(&load);
    load.expect_the_end();
    host.kill();
    let posted = load.stop();

    let host = workspace.serve_with(&arguments);
    proxy.set(Fault::None);
    let books = wait_until_settled(&host);
    let verdict = judge_redis(&posted, &redis);
    eprintln!("killed on a full disk: {verdict}");
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    of(&books, "redis-streams").assert_agrees(&posted, &verdict);
    disk.free();
    stop(host);
}

#[test]
fn a_full_journal_answers_429_and_takes_events_again_once_some_are_delivered() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let proxy = Proxy::to(&redis.address());
    proxy.set(Fault::Refuse);
    let workspace = Workspace::new();
    add_redis_plugin(&workspace, &proxy.address(), "", "");
    let arguments = ["--journal-size", "4MiB", "--journal-retain-size", "256KiB"];
    let host = workspace.serve_with(&arguments);
    let load = Load::start(&host, LARGE);
    wait_for_refusals(&load);
    assert_it_shows(&host, "full");
    let size = journal(&host)["size"].as_u64().expect("a size");
    assert!(size <= 4 << 20, "{size}");

    proxy.set(Fault::None);
    let recovered = wait_until_it_takes_events(&load);
    let posted = load.stop();
    let books = wait_until_settled(&host);
    let verdict = judge_redis(&posted, &redis);
    eprintln!("a full journal: taken again {recovered:.2?} after the server was back; {verdict}");
    assert_clear(&posted, &[429], &["journal"]);
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    let retries = of(&books, "redis-streams").retries as usize;
    verdict.assert_duplicates_at_most(retries, "each try after the first may be one");
    of(&books, "redis-streams").assert_agrees(&posted, &verdict);
    stop(host);
}

#[test]
fn a_host_whose_folder_may_not_be_written_to_says_so_and_loses_nothing() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let Some(disk) = Tmpfs::mount(24) else {
        return;
    };
    let proxy = Proxy::to(&redis.address());
    proxy.set(Fault::Refuse);
    let data = disk.path().join("data");
    let workspace = Workspace::with_data(&data);
    add_redis_plugin(&workspace, &proxy.address(), "", "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("e", 100).status, 202);
    host.kill();

    disk.make_read_only();
    let output = workspace.run(&["serve", "--listen", "127.0.0.1:0"]);
    let error = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(
        error.contains(data.to_str().expect("text")) && error.contains("Read-only file system"),
        "{error}"
    );

    disk.make_writable();
    proxy.set(Fault::None);
    let host = workspace.serve();
    let books = wait_until_settled(&host);
    let posted = Posted::accepted((0..100).map(|n| format!("e-{n}")));
    let verdict = judge_redis(&posted, &redis);
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    verdict.assert_duplicates_at_most(BATCH, "a batch for a kill");
    of(&books, "redis-streams").assert_agrees(&posted, &verdict);
    stop(host);
}
