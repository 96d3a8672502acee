//! The host is killed, again and again, under load.

use std::time::{Duration, Instant};

use backhaul_tests::host::Workspace;
use backhaul_tests::load::{Fate, Load, LoadOptions};
use backhaul_tests::redis_server::RedisServer;

use crate::scene::{BATCH, Random, add_redis_plugin, judge_redis, of, stop, wait_until_settled};

/// How often: `BACKHAUL_TEST_KILLS`, or 50.
fn kills() -> u64 {
    let kills = std::env::var("BACKHAUL_TEST_KILLS").ok();
    kills.map_or(50, |text| text.parse().expect("a number of kills"))
}

#[test]
fn what_was_answered_202_arrives_in_order_however_often_the_host_is_killed() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let workspace = Workspace::new();
    add_redis_plugin(&workspace, &redis.address(), "", "");
    let mut random = Random::new();
    let began = Instant::now();
    let mut host = workspace.serve();
    let load = Load::start(&host, LoadOptions::default());
    let (mut killed, mut while_starting) = (0, 0);
    let mut started = Duration::ZERO;
    while killed < kills() {
        std::thread::sleep(random.milliseconds(200));
        load.expect_the_end();
        host.kill();
        killed += 1;
        // One in four is killed again before it is there: while it reads what
        // it finds.
        if random.below(4) == 0 && killed < kills() {
            let early = workspace.spawn(&[]);
            std::thread::sleep(random.milliseconds(150));
            early.kill();
            killed += 1;
            while_starting += 1;
        }
        let start = Instant::now();
        host = workspace.serve();
        started = started.max(start.elapsed());
        load.aim(&host);
    }
    let posted = load.stop();
    let books = wait_until_settled(&host);
    let verdict = judge_redis(&posted, &redis);
    eprintln!(
        "{killed} kills ({while_starting} while starting) in {:.1?}; {} answered 202, {} not answered; \
         {verdict}; {:.2} duplicates a kill; slowest start {started:.2?}; slowest answer {:.2?}",
        began.elapsed(),
        posted.count(Fate::Accepted),
        posted.count(Fate::Unknown),
        verdict.duplicates() as f64 / killed as f64,
        posted.longest,
    );
    assert!(posted.count(Fate::Accepted) > 1000, "there was no load");
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    verdict.assert_repeats_only_repeat();
    // With one instance one publish is under way. What the host noted as
    // delivered before it was killed, the system has.
    let most = usize::try_from(killed).expect("some") * BATCH;
    verdict.assert_duplicates_at_most(most, "a batch for each kill");
    assert!(verdict.longest_repeat() <= BATCH, "{verdict}");
    of(&books, "redis-streams").assert_agrees(&posted, &verdict);
    stop(host);
}
