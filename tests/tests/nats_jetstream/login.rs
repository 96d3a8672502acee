//! Each way to log in, right and wrong.

use crate::{STREAM, wait_for_messages, workspace};
use backhaul_tests::nats_server::NatsServer;
use serde_json::{Value, json};

/// The example pair of NATS' documentation.
const SEED: &str = "SUACSSL3UAHUDXKFSNVUZRF5UHPMWZ6BFDTJ7M6USDXIEDNPPQYYYCU3VY";
const PUBLIC: &str = "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4";

/// Another user's.
const WRONG_SEED: &str = "SUAAAAICAMCAKBQHBAEQUCYMBUHA6EARCIJRIFIWC4MBSGQ3DQOR4H776Y";

fn server(authorization: &str, login: Value) -> Option<NatsServer> {
    let configuration = format!("jetstream {{}}\nauthorization {{ {authorization} }}");
    let server = NatsServer::with(&configuration, login)?;
    server.create_stream(STREAM, &["events.>"], &json!({}));
    Some(server)
}

fn assert_right_and_wrong(server: &NatsServer, right: &str, wrong: &str, secret: &str) {
    for wrong in [wrong, ""] {
        let workspace = workspace(&server.address(), wrong);
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("0", "t", "1").status, 202);
        host.wait_for_log("refused the login: Authorization Violation");
        let (_, log) = host.stop();
        assert!(!log.contains(secret), "{log}");
    }
    let workspace = workspace(&server.address(), right);
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    wait_for_messages(server, 1);
    assert_eq!(server.ids(STREAM), ["1"]);
}

#[test]
fn with_user_and_password() {
    let login = json!({ "user": "ada", "pass": "right-password" });
    let Some(server) = server("user: ada, password: right-password", login) else {
        return;
    };
    let env = |password| format!("NATS_USER = \"ada\"\nNATS_PASSWORD = \"{password}\"");
    let (right, wrong) = (env("right-password"), env("wrong-password"));
    assert_right_and_wrong(&server, &right, &wrong, "wrong-password");
}

#[test]
fn with_a_token() {
    let login = json!({ "auth_token": "right-token" });
    let Some(server) = server("token: right-token", login) else {
        return;
    };
    let (right, wrong) = (
        "NATS_TOKEN = \"right-token\"",
        "NATS_TOKEN = \"wrong-token\"",
    );
    assert_right_and_wrong(&server, right, wrong, "wrong-token");
}

#[test]
fn with_an_nkey() {
    let login = json!({ "user": "admin", "pass": "admin" });
    let users = format!("users: [{{ nkey: {PUBLIC} }}, {{ user: admin, password: admin }}]");
    let Some(server) = server(&users, login) else {
        return;
    };
    let (right, wrong) = (
        format!("NATS_NKEY = \"{SEED}\""),
        format!("NATS_NKEY = \"{WRONG_SEED}\""),
    );
    assert_right_and_wrong(&server, &right, &wrong, WRONG_SEED);
}

#[test]
fn a_user_who_may_not_publish_is_said_so_and_nothing_is_lost() {
    let login = json!({ "user": "admin", "pass": "admin" });
    let users = "users: [{ user: ada, password: p, permissions: { publish: \"other\" } }, { user: admin, password: admin }]";
    let Some(server) = server(users, login) else {
        return;
    };
    let env = "NATS_USER = \"ada\"\nNATS_PASSWORD = \"p\"";
    let workspace = workspace(&server.address(), env);
    let host = workspace.serve_with(&["--drain", "100ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("Permissions Violation for Publish");
    assert_eq!(crate::the_book(&host).pending, 1);
}
