//! The plugin `redis-streams` with wrong settings, and with servers that are none.

use backhaul_tests::components;
use backhaul_tests::host::Workspace;
use backhaul_tests::hostile_server::{HostileServer, Misbehaviour, assert_survived};

/// A folder with the plugin, aimed at `address`; `env` are further variables as the
/// manifest writes them.
fn workspace(address: &str, env: &str) -> Workspace {
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [\"{address}\"]\n[grants.env]\nREDIS_URL = \"redis://{address}\"\n{env}\n"
    );
    let component = components::plugin("redis-streams");
    workspace.add_plugin("redis-streams", &component, &manifest);
    workspace
}

fn assert_says(misbehaviour: Misbehaviour, text: &str) {
    let server = HostileServer::start(misbehaviour);
    assert_survived(&workspace(server.address(), ""), "redis-streams", text);
}

#[test]
fn a_setting_that_is_wrong_is_named() {
    for (env, text) in [
        (
            "REDIS_STREAM = \"events:{typ}\"",
            "the setting REDIS_STREAM is",
        ),
        (
            "REDIS_STREAM = \"events:{type\"",
            "the setting REDIS_STREAM is",
        ),
        (
            "REDIS_FIELDS = \"all\"",
            "expected attributes or cloudevent",
        ),
        ("REDIS_MAXLEN = \"0\"", "the setting REDIS_MAXLEN is"),
        ("REDIS_MAXAGE = \"a while\"", "the setting REDIS_MAXAGE is"),
        (
            "REDIS_MAXLEN = \"1\"\nREDIS_MAXAGE = \"1h\"",
            "Redis trims a stream by one of them",
        ),
    ] {
        let workspace = workspace("127.0.0.1:1", env);
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log(text);
    }
}

#[test]
fn an_address_that_cannot_be_used_is_said_so_without_its_password() {
    for url in [
        "redis:/ada:hush-hush@127.0.0.1",
        "rediss://ada:hush-hush@127.0.0.1",
    ] {
        let workspace = Workspace::new();
        let component = components::plugin("redis-streams");
        let manifest = format!("[grants.env]\nREDIS_URL = \"{url}\"\n");
        workspace.add_plugin("redis-streams", &component, &manifest);
        let host = workspace.serve_with(&["--drain", "100ms"]);
        assert_eq!(host.post_event("1", "t", "1").status, 202);
        host.wait_for_log("the setting REDIS_URL cannot be used");
        assert!(!host.log().contains("hush-hush"), "{}", host.log());
    }
}

#[test]
fn a_server_of_another_protocol_is_said_so() {
    for text in [
        &b"SSH-2.0-OpenSSH_9.6\r\n"[..],
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"",
    ] {
        assert_says(Misbehaviour::Says(text), "cannot connect to Redis at");
    }
}

#[test]
fn a_server_that_never_answers_or_byte_by_byte_runs_out_of_time() {
    assert_says(Misbehaviour::Silence, "it does not answer in time");
    // Every byte is in time, so it is the host that ends it.
    assert_says(Misbehaviour::Drips(b"+PO"), "it was not done after 5s");
}

#[test]
fn answers_without_end_or_larger_than_sane_are_cut_off() {
    for (flood, text) in [
        // A line and a text of 2 GB, which the client keeps until they end: the host stops
        // it. Lists in lists.
        (
            Misbehaviour::Floods(b"+", b"x"),
            "it ran over its limit of 64 MiB of memory",
        ),
        (
            Misbehaviour::Floods(b"$2000000000\r\n", b"x"),
            "it ran over its limit of 64 MiB of memory",
        ),
        (
            Misbehaviour::Floods(b"", b"*1\r\n"),
            "cannot connect to Redis",
        ),
        // Each of them is an answer to something else.
        (
            Misbehaviour::Floods(b"", b"+PONG\r\n"),
            "is it a Redis server?",
        ),
    ] {
        assert_says(flood, text);
    }
}
