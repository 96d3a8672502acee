//! Events are in a real Redis stream, carried by the `redis-streams` plugin,
//! also when Redis comes late, goes away, or stands still.

use backhaul_tests::books::wait_until_settled;
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::redis_server::RedisServer;
use backhaul_tests::{components, wait_for};

const STREAM: &str = "backhaul:events";

/// The manifest for a server, with further lines under `[limits]`.
fn manifest(redis: &RedisServer, limits: &str) -> String {
    format!(
        "[grants]\ntcp = [\"{}\"]\nenv = {{ REDIS_URL = \"{}\" }}\n[limits]\n{limits}\n",
        redis.address(),
        redis.url(),
    )
}

fn workspace(redis: &RedisServer, limits: &str) -> Workspace {
    let workspace = Workspace::new();
    let component = components::plugin("redis-streams");
    workspace.add_plugin("redis-streams", &component, &manifest(redis, limits));
    workspace
}

fn wait_for_entries(redis: &RedisServer, count: usize) {
    wait_for(&format!("{count} entries"), || {
        (redis.len(STREAM) >= count).then_some(())
    });
}

/// Ids `PREFIX-0` to `PREFIX-(count-1)`.
fn ids(prefix: &str, count: usize) -> Vec<String> {
    (0..count).map(|n| format!("{prefix}-{n}")).collect()
}

fn assert_delivers_all_and_stops(host: Host) {
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_dropped_in_component_carries_events_to_a_redis_stream() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let workspace = workspace(&redis, "");
    let host = workspace.serve();
    assert!(
        host.log()
            .contains(&format!("may connect to {}", redis.address())),
        "{}",
        host.log()
    );
    let event = r#"{"specversion":"1.0","id":"1","source":"/tests","type":"after:signup",
        "time":"2026-01-31T12:00:00Z","subject":"ada","traceparent":"00-1","data":{"user": 1}}"#;
    let answer = host.post(&[("content-type", "application/cloudevents+json")], event);
    assert_eq!(answer.status, 202, "{answer:?}");
    wait_for_entries(&redis, 1);
    let entry: std::collections::BTreeMap<_, _> =
        redis.entries(STREAM).remove(0).into_iter().collect();
    let expected = [
        ("id", "1"),
        ("type", "after:signup"),
        ("source", "/tests"),
        ("time", "2026-01-31T12:00:00Z"),
        ("data", r#"{"user": 1}"#),
        ("subject", "ada"),
        ("datacontenttype", "application/json"),
        ("traceparent", "00-1"),
    ];
    assert_eq!(
        entry,
        expected.map(|(k, v)| (k.to_owned(), v.to_owned())).into()
    );
    assert_delivers_all_and_stops(host);
}

#[test]
fn the_example_manifest_has_four_lines_and_loads() {
    let manifest = components::plugin("redis-streams").with_extension("toml");
    let manifest = std::fs::read_to_string(manifest).unwrap();
    let lines = manifest
        .lines()
        .filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    assert!(lines.count() <= 4, "{manifest}");
    let workspace = Workspace::new();
    workspace.add_plugin(
        "redis-streams",
        &components::plugin("redis-streams"),
        &manifest,
    );
    let host = workspace.serve();
    assert!(
        host.log()
            .contains("redis-streams (plugins/redis-streams.wasm)"),
        "{}",
        host.log()
    );
}

#[test]
fn the_template_says_which_stream_an_event_goes_to() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let workspace = Workspace::new();
    let manifest = format!(
        "[grants]\ntcp = [{0:?}]\nenv = {{ REDIS_URL = {1:?}, REDIS_STREAM = \"{{subject}}:{{type}}\" }}\n",
        redis.address(),
        redis.url(),
    );
    let component = components::plugin("redis-streams");
    workspace.add_plugin("redis-streams", &component, &manifest);
    let host = workspace.serve();
    let event = |id: &str, event_type: &str| {
        serde_json::json!({
            "specversion": "1.0", "id": id, "source": "/tests", "type": event_type, "subject": "s",
        })
    };
    let mut without = event("without", "a");
    without.as_object_mut().unwrap().remove("subject");
    let batch = [event("1", "a"), without, event("2", "b"), event("3", "a")];
    let headers = [("content-type", "application/cloudevents-batch+json")];
    let body = serde_json::to_vec(&batch).unwrap();
    assert_eq!(host.post(&headers, body).status, 202);
    wait_for("the entries", || {
        (redis.len("s:a") == 2 && redis.len("s:b") == 1).then_some(())
    });
    assert_eq!(redis.field("s:a", "id"), ["1", "3"]);
    assert_eq!(redis.field("s:b", "id"), ["2"]);
    host.wait_for_log("the event lacks what REDIS_STREAM makes a text of, {subject}");
    assert_delivers_all_and_stops(host);
}

#[test]
fn many_events_arrive_once_and_in_order_beside_another_plugin() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let workspace = workspace(&redis, "");
    workspace.add_file_plugin();
    let host = workspace.serve();
    for n in 0..20 {
        assert_eq!(host.post_batch(&format!("{n}"), 250).status, 202);
    }
    wait_for_entries(&redis, 5000);
    let expected: Vec<String> = (0..20).flat_map(|n| ids(&n.to_string(), 250)).collect();
    assert_eq!(redis.field(STREAM, "id"), expected);
    let lines = workspace.wait_for_file_lines(5000);
    assert!(
        lines
            .iter()
            .map(|line| line["id"].as_str().unwrap())
            .eq(&expected)
    );
    assert_delivers_all_and_stops(host);
}

#[test]
fn what_was_accepted_before_redis_was_there_is_delivered_when_it_is() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    redis.stop();
    let workspace = workspace(&redis, "");
    let host = workspace.serve();
    assert_eq!(host.post_batch("early", 300).status, 202);
    host.wait_for_log("events were not taken and are tried again");
    let log = host.log();
    assert!(log.contains("cannot connect to Redis"), "{log}");
    redis.start_again();
    wait_for_entries(&redis, 300);
    host.wait_for_log("the backend takes events again");
    assert_eq!(redis.field(STREAM, "id"), ids("early", 300));
    assert_delivers_all_and_stops(host);
}

#[test]
fn nothing_is_lost_while_redis_goes_away_and_comes_back() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    let workspace = workspace(&redis, "");
    let host = workspace.serve();
    for round in 0..3 {
        assert_eq!(host.post_batch(&format!("up-{round}"), 100).status, 202);
        redis.stop();
        assert_eq!(host.post_batch(&format!("down-{round}"), 100).status, 202);
        redis.start_again();
    }
    let expected: Vec<String> = (0..3)
        .flat_map(|round| {
            [
                ids(&format!("up-{round}"), 100),
                ids(&format!("down-{round}"), 100),
            ]
        })
        .flatten()
        .collect();
    wait_for("every event in the stream", || {
        let mut arrived = redis.field(STREAM, "id");
        arrived.sort_unstable();
        arrived.dedup();
        (arrived.len() == expected.len()).then_some(())
    });
    // At least once: a batch that was cut off is offered again from where its
    // acknowledgements ended.
    let mut arrived = redis.field(STREAM, "id");
    let duplicates = arrived.len() - expected.len();
    assert!(duplicates <= 300, "{duplicates} duplicates");
    let mut seen = std::collections::HashSet::new();
    arrived.retain(|id| seen.insert(id.clone()));
    assert_eq!(arrived, expected, "in order, but for duplicates");
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_redis_that_stands_still_is_waited_for_and_nothing_is_lost() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    let workspace = workspace(&redis, "timeout = \"500ms\"");
    workspace.add_file_plugin();
    let host = workspace.serve();
    assert_eq!(host.post_batch("before", 10).status, 202);
    wait_for_entries(&redis, 10);
    redis.freeze();
    assert_eq!(host.post_batch("during", 10).status, 202);
    host.wait_for_log("events were not taken and are tried again");
    workspace.wait_for_file_lines(20); // the other plugin does not feel it
    redis.thaw();
    wait_for("every event in the stream", || {
        let arrived = redis.field(STREAM, "id");
        ids("during", 10)
            .iter()
            .all(|id| arrived.contains(id))
            .then_some(())
    });
    assert_delivers_all_and_stops(host);
}

#[test]
fn wrong_credentials_are_explained_without_the_password_and_lose_nothing() {
    let Some(redis) = RedisServer::with(&["--requirepass", "right-password"]) else {
        return;
    };
    let workspace = Workspace::new();
    let manifest = |password: &str| {
        format!(
            "[grants]\ntcp = [\"{}\"]\nenv = {{ REDIS_URL = \"redis://:{password}@{}\" }}\n",
            redis.address(),
            redis.address()
        )
    };
    let component = components::plugin("redis-streams");
    workspace.add_plugin("redis-streams", &component, &manifest("wrong-password"));
    let host = workspace.serve_with(&["--drain", "200ms"]);
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("refused user or password");
    let (status, log) = host.stop();
    assert!(!log.contains("wrong-password"), "{log}");
    assert_eq!(status.code(), Some(0), "it is in the journal: {log}");
    assert!(log.contains("kept=1"), "{log}");

    workspace.add_plugin("redis-streams", &component, &manifest("right-password"));
    let host = workspace.serve();
    assert_eq!(wait_until_settled(&host)[0].delivered, 1);
    assert_eq!(host.stop().0.code(), Some(0));
}

#[test]
fn a_user_of_an_acl_writes_to_the_database_of_the_url_and_to_granted_keys_alone() {
    let acl = "ada on >secret ~granted ~ungranted +ping +select +xadd".split(' ');
    let user = "--user".to_owned();
    let arguments: Vec<&str> = std::iter::once(user.as_str()).chain(acl).collect();
    let Some(redis) = RedisServer::with(&arguments) else {
        return;
    };
    let workspace = Workspace::new();
    let manifest = |rights: &str| {
        redis::cmd("ACL")
            .arg(&["SETUSER", "ada", "resetkeys", rights])
            .query::<()>(&mut redis.connect())
            .expect("ACL SETUSER");
        format!(
            "[grants]\ntcp = [{0:?}]\n[grants.env]\nREDIS_URL = \"redis://ada@{0}/3\"\nREDIS_PASSWORD = \"secret\"\nREDIS_STREAM = \"granted\"\n",
            redis.address(),
        )
    };
    let component = components::plugin("redis-streams");
    workspace.add_plugin("redis-streams", &component, &manifest("~ungranted"));
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("allow the user XADD on the key");
    manifest("~granted");
    wait_until_settled(&host);
    let mut connection = redis.connect();
    redis::cmd("SELECT")
        .arg(3)
        .query::<()>(&mut connection)
        .expect("SELECT");
    let length: usize = redis::cmd("XLEN")
        .arg("granted")
        .query(&mut connection)
        .expect("XLEN");
    assert_eq!(length, 1);
    assert!(redis.is_empty("granted"), "in another database");
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_stream_is_trimmed_by_length_or_by_age() {
    let Some(redis) = RedisServer::start() else {
        return;
    };
    // Redis trims whole nodes of its tree; with nodes of one entry, exactly.
    redis::cmd("CONFIG")
        .arg(&["SET", "stream-node-max-entries", "1"])
        .query::<()>(&mut redis.connect())
        .expect("CONFIG SET");
    // An entry of the year 2001.
    for stream in ["by-length", "by-age"] {
        redis::cmd("XADD")
            .arg(&[stream, "1000000000000-0", "id", "old"])
            .query::<()>(&mut redis.connect())
            .expect("XADD");
    }
    let workspace = Workspace::new();
    for (name, setting) in [
        ("by-length", "REDIS_MAXLEN = \"3\""),
        ("by-age", "REDIS_MAXAGE = \"30days\""),
    ] {
        let manifest = format!(
            "name = {name:?}\n[grants]\ntcp = [{0:?}]\n[grants.env]\nREDIS_URL = {1:?}\nREDIS_STREAM = {name:?}\n{setting}\n",
            redis.address(),
            redis.url(),
        );
        workspace.add_plugin(name, &components::plugin("redis-streams"), &manifest);
    }
    let host = workspace.serve();
    assert_eq!(host.post_batch("e", 5).status, 202);
    wait_until_settled(&host);
    assert_eq!(redis.field("by-length", "id"), ["e-2", "e-3", "e-4"]);
    assert_eq!(redis.field("by-age", "id"), ids("e", 5));
    assert_delivers_all_and_stops(host);
}

#[test]
fn a_redirect_of_a_cluster_is_refused_with_what_to_do_and_loses_nothing() {
    let cluster = ["--cluster-enabled", "yes"];
    let (Some(node), Some(other)) = (RedisServer::with(&cluster), RedisServer::with(&cluster))
    else {
        return;
    };
    let run = |server: &RedisServer, command: &[&str]| {
        redis::cmd("CLUSTER")
            .arg(command)
            .query::<redis::Value>(&mut server.connect())
            .expect("CLUSTER")
    };
    // All slots are the other's; both know that once they have met.
    run(&other, &["ADDSLOTSRANGE", "0", "16383"]);
    let (host, port) = other.address().split_once(':').map(owned).expect("a port");
    run(&node, &["MEET", &host, &port]);
    wait_for("the cluster", || {
        let info = run(&node, &["INFO"]);
        format!("{info:?}")
            .contains("cluster_state:ok")
            .then_some(())
    });
    let workspace = workspace(&node, "");
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "t", "1").status, 202);
    host.wait_for_log("Redirects are not followed: name that node in REDIS_URL");
    let to_the_other = manifest(&other, "");
    workspace.add_plugin(
        "redis-streams",
        &components::plugin("redis-streams"),
        &to_the_other,
    );
    wait_for_entries(&other, 1);
    assert_delivers_all_and_stops(host);
}

fn owned((host, port): (&str, &str)) -> (String, String) {
    (host.to_owned(), port.to_owned())
}
