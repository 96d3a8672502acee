//! Events are in a topic of a real Kafka broker, carried by the `kafka` plugin, also
//! when the broker comes late, goes away, or its answers are lost.

mod cluster;
mod delivery;
mod faults;
mod hostile;
mod login;
mod refusals;

use std::sync::atomic::{AtomicUsize, Ordering};

use backhaul_tests::books::{Book, book};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::kafka_server::KafkaServer;
use backhaul_tests::{components, wait_for};

const STRUCTURED: [(&str, &str); 1] = [("content-type", "application/cloudevents+json")];

/// A folder with the plugin, aimed at `address`; `env` are further variables as the
/// manifest writes them.
fn workspace(address: &str, env: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"{address}\"]\n[grants.env]\nKAFKA_BROKERS = \"{address}\"\n{env}\n"
    );
    workspace.add_plugin("kafka", &components::plugin("kafka"), &manifest);
    workspace
}

/// The same with a topic.
fn workspace_for(server: &KafkaServer, topic: &str, env: &str) -> Workspace {
    let env = format!("KAFKA_TOPIC = \"{topic}\"\n{env}");
    workspace(&server.address(), &env)
}

/// A topic that no other test has.
fn topic(server: &KafkaServer, partitions: i32) -> String {
    static TOPICS: AtomicUsize = AtomicUsize::new(0);
    let topic = format!("topic-{}", TOPICS.fetch_add(1, Ordering::SeqCst));
    server.create_topic(&topic, partitions);
    topic
}

fn wait_for_messages(server: &KafkaServer, topic: &str, count: usize) {
    wait_for(&format!("{count} messages"), || {
        (server.count(topic) >= count).then_some(())
    });
}

fn wait_for_delivery(host: &Host, count: u64) {
    wait_for(&format!("{count} deliveries"), || {
        (the_book(host).delivered >= count).then_some(())
    });
}

fn the_book(host: &Host) -> Book {
    book(host, "kafka")
}

/// Ids `PREFIX-0` to `PREFIX-(count-1)`.
fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

/// All of these arrived, each once, in any order.
fn assert_each_once(mut arrived: Vec<String>, mut expected: Vec<String>) {
    arrived.sort_unstable();
    expected.sort_unstable();
    let (count, all) = (arrived.len(), expected.len());
    assert!(arrived == expected, "{count} of {all}");
}
