//! A server that goes away, stands still or hangs up.

use std::collections::HashSet;

use backhaul_tests::rabbitmq_server::RabbitMqServer;
use backhaul_tests::wait_for;

use crate::{assert_delivers_all_and_stops, exchange_with_queue, ids, ids_of, workspace};

#[test]
fn nothing_is_lost_while_the_server_goes_away_and_comes_back() {
    let Some(mut server) = RabbitMqServer::with("") else {
        return;
    };
    exchange_with_queue(&server, "kept");
    let workspace = workspace(&server, &[("RABBITMQ_EXCHANGE", "kept")]);
    let host = workspace.serve();
    let mut expected = Vec::new();
    for round in 0..2 {
        let (up, down) = (format!("up-{round}"), format!("down-{round}"));
        assert_eq!(host.post_batch(&up, 500).status, 202);
        if round == 0 {
            server.stop();
        } else {
            server.kill();
        }
        assert_eq!(host.post_batch(&down, 500).status, 202);
        host.wait_for_log("cannot connect to RabbitMQ");
        server.start_again();
        expected.extend([ids(&up, 500), ids(&down, 500)].concat());
    }
    let messages = server.take_until("kept", |messages| {
        ids_of(messages).iter().collect::<HashSet<_>>().len() == expected.len()
    });
    // At least once: what had no confirm when the server ended was sent again.
    let mut seen = HashSet::new();
    let mut arrived = ids_of(&messages);
    let duplicates = arrived.len() - expected.len();
    assert!(duplicates <= 1000, "{duplicates} duplicates");
    arrived.retain(|id| seen.insert(id.clone()));
    assert!(arrived == expected, "in order, but for duplicates");
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_server_that_stands_still_is_waited_for_and_nothing_is_lost() {
    let Some(server) = RabbitMqServer::with("") else {
        return;
    };
    exchange_with_queue(&server, "still");
    let settings = [("RABBITMQ_EXCHANGE", "still"), ("RABBITMQ_TIMEOUT", "0.5")];
    let workspace = workspace(&server, &settings);
    workspace.add_file_plugin();
    let host = workspace.serve();
    assert_eq!(host.post_batch("before", 10).status, 202);
    server.take_count("still", 10);
    server.freeze();
    assert_eq!(host.post_batch("during", 10).status, 202);
    host.wait_for_log("it does not answer in time");
    workspace.wait_for_file_lines(20); // The other plugin does not feel it.
    server.thaw();
    server.take_until("still", |messages| {
        let arrived: HashSet<String> = ids_of(messages).into_iter().collect();
        ids("during", 10).iter().all(|id| arrived.contains(id))
    });
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_connection_the_server_closed_for_want_of_heartbeats_costs_no_try() {
    let Some(server) = RabbitMqServer::with("") else {
        return;
    };
    exchange_with_queue(&server, "beats");
    let settings = [("RABBITMQ_EXCHANGE", "beats"), ("RABBITMQ_HEARTBEAT", "1")];
    let workspace = workspace(&server, &settings);
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    server.take_count("beats", 1);
    // The plugin runs only while it publishes.
    wait_for("the server to miss the heartbeats", || {
        server
            .output()
            .contains("missed heartbeats from client")
            .then_some(())
    });
    assert_eq!(host.post_event("2", "t", "2").status, 202);
    assert_eq!(ids_of(&server.take_count("beats", 1)), ["2"]);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(!log.contains("tried again"), "{log}");
}
