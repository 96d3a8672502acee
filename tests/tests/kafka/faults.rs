//! Brokers that go away, and answers that are lost.

use std::sync::OnceLock;

use crate::{assert_each_once, ids, the_book, topic, wait_for_delivery, workspace, workspace_for};
use backhaul_tests::kafka_server::KafkaServer;
use backhaul_tests::proxy::{Fault, Proxy};
use backhaul_tests::wait_for;

#[test]
fn nothing_is_lost_or_doubled_while_the_broker_is_killed_and_comes_back() {
    let Some(mut server) = KafkaServer::start() else {
        return;
    };
    let topic = topic(&server, 1);
    let workspace = workspace_for(&server, &topic, "");
    server.kill();
    let host = workspace.serve();
    assert_eq!(host.post_batch("early", 100).status, 202);
    host.wait_for_log("cannot connect to Kafka");
    server.start_again();
    wait_for_delivery(&host, 100);
    let mut expected = ids("early", 100);
    for round in 0..2 {
        // Some are under way when it ends.
        assert_eq!(host.post_batch(&format!("up-{round}"), 300).status, 202);
        server.kill();
        assert_eq!(host.post_batch(&format!("down-{round}"), 100).status, 202);
        server.start_again();
        expected.extend(ids(&format!("up-{round}"), 300));
        expected.extend(ids(&format!("down-{round}"), 100));
        wait_for_delivery(&host, expected.len() as u64);
    }
    assert!(server.ids(&topic) == expected);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn what_was_stored_without_an_answer_is_not_stored_again() {
    let proxy = OnceLock::new();
    let advertise = |address: &str| proxy.get_or_init(|| Proxy::to(address)).address();
    let Some(server) = KafkaServer::with(advertise) else {
        return;
    };
    let proxy = proxy.get().expect("a proxy");
    let topic = topic(&server, 3);
    // Of the producer the broker knows, the events know nothing.
    let env = format!("KAFKA_TOPIC = \"{topic}\"\nKAFKA_TIMEOUT = \"1s\"");
    let workspace = workspace(&proxy.address(), &env);
    let host = workspace.serve();
    let mut expected: Vec<String> = Vec::new();
    for round in 0..3 {
        let before = format!("before-{round}");
        assert_eq!(host.post_batch(&before, 10).status, 202);
        expected.extend(ids(&before, 10));
        wait_for_delivery(&host, expected.len() as u64);
        // What is sent arrives, and no answer comes back.
        let retries = the_book(&host).retries;
        proxy.set(match round {
            0 => Fault::CutReplies(1),
            1 => Fault::CutReplies(20),
            _ => Fault::CutReplies(40),
        });
        for part in ["during", "more"] {
            let during = format!("{part}-{round}");
            assert_eq!(host.post_batch(&during, 100).status, 202);
            expected.extend(ids(&during, 100));
        }
        wait_for("another try", || {
            (the_book(&host).retries > retries + 1).then_some(())
        });
        proxy.set(Fault::None);
        wait_for_delivery(&host, expected.len() as u64);
    }
    assert_each_once(server.ids(&topic), expected);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn an_advertised_address_that_is_not_granted_is_said_with_the_grant_it_needs() {
    let proxy = OnceLock::new();
    let advertise = |address: &str| proxy.get_or_init(|| Proxy::to(address)).address();
    let Some(server) = KafkaServer::with(advertise) else {
        return;
    };
    let topic = topic(&server, 1);
    // Where it listens, and not where it says it is reached.
    let workspace = workspace_for(&server, &topic, "");
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    let advertised = proxy.get().expect("a proxy").address();
    host.wait_for_log("which is what the broker 1 advertises");
    host.wait_for_log(&format!("tcp = [\\\"{advertised}\\\"]"));
    assert_eq!(the_book(&host).pending, 1);
}

#[test]
fn one_of_several_brokers_is_enough_to_find_the_others() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    // A port that the system gives to nobody.
    let gone = "127.0.0.1:1";
    let address = server.address();
    let workspace = backhaul_tests::host::Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"{gone}\", \"{address}\"]\n[grants.env]\nKAFKA_BROKERS = \"{gone}, {address}\"\nKAFKA_TOPIC = \"{topic}\"\n"
    );
    let component = backhaul_tests::components::plugin("kafka");
    workspace.add_plugin("kafka", &component, &manifest);
    let host = workspace.serve();
    assert_eq!(host.post_batch("e", 10).status, 202);
    wait_for_delivery(&host, 10);
    assert_eq!(server.ids(&topic), ids("e", 10));
}
