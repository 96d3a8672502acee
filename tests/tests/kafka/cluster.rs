//! Two brokers, and partitions that change their leader.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::kafka_server::KafkaServer;
use backhaul_tests::wait_for;

use crate::{assert_each_once, ids, wait_for_delivery};

const TOPIC: &str = "replicated";
const PARTITIONS: i32 = 4;

/// A plugin that knows one broker, and may go to both.
fn workspace(first: &KafkaServer, second: &KafkaServer) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"{0}\", \"{1}\"]\n[grants.env]\nKAFKA_BROKERS = \"{0}\"\n\
         KAFKA_TOPIC = \"{TOPIC}\"\n",
        first.address(),
        second.address()
    );
    workspace.add_plugin("kafka", &components::plugin("kafka"), &manifest);
    workspace
}

/// Waits until the second broker leads so many partitions, and both have all of them, or
/// the first alone.
fn wait_for_leaders(first: &KafkaServer, of_second: usize) {
    let copies = if of_second == 0 { 1 } else { 2 };
    let all = usize::try_from(PARTITIONS).expect("a count");
    wait_for("the partitions to change their leader", || {
        let partitions = first.cluster_view(TOPIC).ok()?;
        let second = partitions.iter().filter(|p| p.leader == 2).count();
        let first = partitions.iter().filter(|p| p.leader == 1).count();
        let in_sync = partitions.iter().all(|p| p.in_sync == copies);
        (second == of_second && first + second == all && in_sync).then_some(())
    });
}

#[test]
fn nothing_is_lost_doubled_or_reordered_while_partitions_change_their_leader() {
    let Some((first, mut second)) = KafkaServer::pair() else {
        return;
    };
    first.create_topic_with(TOPIC, PARTITIONS, 2);
    wait_for_leaders(&first, 2);
    let workspace = workspace(&first, &second);
    let host = workspace.serve();

    /// Ends the posting, also when this test fails.
    struct End<'a>(&'a AtomicBool);
    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::SeqCst);
        }
    }

    let is_over = AtomicBool::new(false);
    let batches = std::thread::scope(|scope| {
        // Events come all the time.
        let posting = scope.spawn(|| {
            let mut batches = 0;
            while !is_over.load(Ordering::SeqCst) {
                let answer = host.post_batch(&format!("event-{batches}"), 50);
                assert_eq!(answer.status, 202);
                batches += 1;
                std::thread::sleep(Duration::from_millis(10));
            }
            batches
        });
        let end = End(&is_over);
        // A crash, and an orderly end, which hands the partitions over first. Each time
        // they come back while their leader of the meantime is there.
        for go in [KafkaServer::kill, KafkaServer::stop] {
            go(&mut second);
            wait_for_leaders(&first, 0);
            second.start_again();
            wait_for_leaders(&first, 2);
        }
        drop(end);
        posting.join().expect("all were taken")
    });

    let expected: Vec<String> = (0..batches)
        .flat_map(|batch| ids(&format!("event-{batch}"), 50))
        .collect();
    wait_for_delivery(&host, expected.len() as u64);
    let messages = first.messages(TOPIC);
    for partition in 0..PARTITIONS {
        let in_it = messages.iter().filter(|m| m.partition == partition);
        let places: Vec<(u32, u32)> = in_it.map(|m| place(m.id())).collect();
        assert!(places.is_sorted(), "partition {partition}: {places:?}");
        assert!(!places.is_empty(), "partition {partition}");
    }
    let arrived = messages.iter().map(|m| m.id().to_owned()).collect();
    assert_each_once(arrived, expected);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// The batch an event was posted in, and which of it it was.
fn place(id: &str) -> (u32, u32) {
    let mut numbers = id.split('-').skip(1).map(|n| n.parse().expect("a number"));
    let mut next = || numbers.next().expect("two numbers");
    (next(), next())
}
