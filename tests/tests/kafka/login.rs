//! Each way to log in, right and wrong.

use crate::{the_book, topic, wait_for_delivery, workspace};
use backhaul_tests::kafka_server::KafkaServer;

fn env(topic: &str, mechanism: &str, user: &str, password: &str) -> String {
    format!(
        "KAFKA_TOPIC = \"{topic}\"\nKAFKA_SASL = \"{mechanism}\"\nKAFKA_USER = \"{user}\"\nKAFKA_PASSWORD = \"{password}\""
    )
}

/// The plugin with these settings says this, and the event waits.
fn assert_refused(address: &str, env: &str, text: &str) {
    let workspace = workspace(address, env);
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log(text);
    let book = the_book(&host);
    assert_eq!((book.pending, book.dead), (1, 0));
    let (_, log) = host.stop();
    assert!(!log.contains("hush-hush"), "{log}");
}

fn assert_right_and_wrong(mechanism: &str) {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let address = server.sasl_address();
    for user in ["ada", "nobody, =x"] {
        let env = env(&topic, mechanism, user, "hush-hush");
        assert_refused(
            &address,
            &env,
            "it refused the login: Authentication failed",
        );
    }
    let workspace = workspace(&address, &env(&topic, mechanism, "ada", "right"));
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    wait_for_delivery(&host, 1);
    assert_eq!(server.ids(&topic), ["1"]);
}

#[test]
fn with_plain() {
    assert_right_and_wrong("PLAIN");
}

#[test]
fn with_scram_sha_256() {
    assert_right_and_wrong("SCRAM-SHA-256");
}

#[test]
fn with_scram_sha_512() {
    assert_right_and_wrong("SCRAM-SHA-512");
}

#[test]
fn a_mechanism_the_broker_does_not_know_is_said_with_those_it_does() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let env = env("events", "SCRAM-SHA-256", "ada", "right");
    let text = "it does not know the mechanism SCRAM-SHA-256, but PLAIN;";
    assert_refused(&server.only_plain_address(), &env, text);
}

#[test]
fn a_login_where_none_is_wanted_and_none_where_one_is_are_said_so() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let login = env("events", "PLAIN", "ada", "right");
    assert_refused(&server.address(), &login, "wants no login at this port");
    assert_refused(&server.sasl_address(), "", "set KAFKA_SASL");
}

#[test]
fn a_user_who_may_not_write_is_said_so_and_nothing_is_lost() {
    let Some(server) = KafkaServer::shared() else {
        return;
    };
    let topic = topic(&server, 1);
    let env = env(&topic, "PLAIN", "bob", "right");
    let text = "TOPIC_AUTHORIZATION_FAILED: allow the user to write to it";
    assert_refused(&server.sasl_address(), &env, text);
}
