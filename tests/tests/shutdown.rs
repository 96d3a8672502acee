//! Starting and stopping: what is accepted is delivered first, and the exit
//! code says whether all was.

use std::io::{Read, Write};
use std::net::TcpStream;

use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::redis_server::RedisServer;
use backhaul_tests::{components, process, wait_for};

fn redis_manifest(address: &str) -> String {
    format!("[grants]\ntcp = [\"{address}\"]\nenv = {{ REDIS_URL = \"redis://{address}\" }}\n")
}

#[test]
fn sigterm_under_load_delivers_everything_that_was_answered_202() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve();
    let (mut accepted, mut terminated) = (0, false);
    for n in 0.. {
        // The connection may be refused once the host stops.
        let posted = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            host.post_batch(&n.to_string(), 100).status
        }));
        match posted {
            Ok(202) => accepted += 100,
            Ok(429) => {}
            Ok(503) | Err(_) => break,
            Ok(other) => panic!("{other}"),
        }
        if accepted >= 2000 && !terminated {
            host.terminate();
            terminated = true;
        }
    }
    let (status, log) = host.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(workspace.file_lines().len(), accepted);
}

/// A host with 7 events for a server that is not there.
fn serve_in_vain(workspace: &Workspace, arguments: &[&str]) -> Host {
    let nowhere = format!("127.0.0.1:{}", process::free_port());
    let component = components::plugin("redis-streams");
    workspace.add_plugin("redis-streams", &component, &redis_manifest(&nowhere));
    let host = workspace.serve_with(arguments);
    assert_eq!(host.post_batch("a", 7).status, 202);
    host
}

#[test]
fn what_cannot_be_delivered_in_time_is_in_the_journal_and_that_is_no_error() {
    let workspace = Workspace::new();
    let host = serve_in_vain(&workspace, &["--drain", "300ms"]);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(
        log.contains("what was not delivered is in the journal") && log.contains("kept=7"),
        "{log}"
    );
}

#[test]
fn without_a_journal_what_cannot_be_delivered_is_counted_and_the_exit_code_says_so() {
    let workspace = Workspace::new();
    let host = serve_in_vain(&workspace, &["--journal", "off", "--drain", "300ms"]);
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(3), "{log}");
    assert!(log.contains("not delivered: 7 event(s)"), "{log}");
}

#[test]
fn a_stopping_host_delivers_to_a_redis_that_comes_back_in_time() {
    let Some(mut redis) = RedisServer::start() else {
        return;
    };
    redis.stop();
    let workspace = Workspace::new();
    let component = components::plugin("redis-streams");
    workspace.add_plugin(
        "redis-streams",
        &component,
        &redis_manifest(&redis.address()),
    );
    let host = workspace.serve_with(&["--drain", "30s"]);
    assert_eq!(host.post_batch("a", 7).status, 202);
    host.terminate();
    host.wait_for_log("delivering what was accepted");
    redis.start_again();
    let (status, log) = host.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(redis.len("backhaul:events"), 7);
}

#[test]
fn a_second_signal_ends_a_host_that_drains() {
    let workspace = Workspace::new();
    for (journal, code) in [("off", 3), ("on", 0)] {
        let host = serve_in_vain(&workspace, &["--journal", journal, "--drain", "1h"]);
        host.terminate();
        host.wait_for_log("delivering what was accepted");
        host.terminate();
        let (status, log) = host.wait();
        assert_eq!(status.code(), Some(code), "{log}");
        assert!(log.contains("undelivered=7"), "{log}");
    }
}

#[test]
fn a_request_under_way_is_answered_before_the_host_stops() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve();
    let body = r#"{"specversion":"1.0","id":"1","source":"/","type":"t"}"#;
    let mut stream = TcpStream::connect(host.address()).unwrap();
    write!(
        stream,
        "POST /events HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n\
         content-type: application/cloudevents+json\r\ncontent-length: {}\r\n\r\n",
        body.len()
    )
    .unwrap();
    // The host asks for the body: it has the request.
    let mut go_on = [0; 25];
    stream.read_exact(&mut go_on).unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100 "));
    host.terminate();
    host.wait_for_log("stopping: no new events are taken");
    wait_for("new connections to be refused", || {
        TcpStream::connect(host.address()).err()
    });
    stream.write_all(body.as_bytes()).unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    assert!(response.starts_with("HTTP/1.1 202 "), "{response}");
    let (status, log) = host.wait();
    assert_eq!(status.code(), Some(0), "{log}");
    assert_eq!(workspace.file_lines().len(), 1);
}

#[test]
fn a_host_that_cannot_start_says_why() {
    let workspace = Workspace::new();
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let cases: [(&[&str], i32, &str); 5] = [
        (
            &["serve", "--listen", &address],
            1,
            "another process listens there",
        ),
        (
            &["serve", "--listen", "127.0.0.1:0", "--plugins", "nowhere"],
            1,
            "the plugins folder nowhere",
        ),
        (
            &["serve", "--config", "nowhere.toml"],
            1,
            "nowhere.toml cannot be read",
        ),
        (&["serve", "--listen", "here"], 2, "invalid value 'here'"),
        (&["server"], 2, "unrecognized subcommand"),
    ];
    for (arguments, code, problem) in cases {
        let output = workspace.run(arguments);
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{error}");
        assert!(error.contains(problem), "{error}");
    }
}

#[test]
fn flags_win_over_the_environment_and_the_environment_over_the_file() {
    let workspace = Workspace::new();
    let file = "plugins = \"from-file\"\nlisten = \"127.0.0.1:0\"\n";
    std::fs::write(workspace.path().join("backhaul.toml"), file).unwrap();
    let stderr = |command: &mut std::process::Command| {
        String::from_utf8(command.output().unwrap().stderr).unwrap()
    };
    assert!(stderr(&mut workspace.command(&["serve"])).contains("folder from-file"));
    let mut command = workspace.command(&["serve"]);
    command.env("BACKHAUL_PLUGINS", "from-environment");
    assert!(stderr(&mut command).contains("folder from-environment"));
    let mut command = workspace.command(&["serve", "--plugins", "from-flag"]);
    command.env("BACKHAUL_PLUGINS", "from-environment");
    assert!(stderr(&mut command).contains("folder from-flag"));
}
