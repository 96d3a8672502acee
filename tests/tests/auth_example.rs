//! The embedding example, with each of its three backends: the handlers do not
//! change, only where async events go.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use backhaul_tests::components;
use backhaul_tests::host::{Answer, Workspace, post};

struct Auth {
    process: Child,
    output: BufReader<ChildStdout>,
    address: String,
}

impl Auth {
    fn start(workspace: &Workspace, events: &str) -> Auth {
        let mut process = Command::new(components::example("auth"))
            .current_dir(workspace.path())
            .env("EVENTS", events)
            .env("LISTEN", "127.0.0.1:0")
            .env("XDG_CACHE_HOME", components::target().join("test-cache"))
            .stdout(Stdio::piped())
            .spawn()
            .expect("the example starts");
        let mut output = BufReader::new(process.stdout.take().expect("its output"));
        let mut line = String::new();
        output.read_line(&mut line).expect("a line");
        let address = line
            .strip_prefix("listening on ")
            .and_then(|rest| rest.split(',').next());
        let address = address.unwrap_or_else(|| panic!("{line}")).to_owned();
        Auth {
            process,
            output,
            address,
        }
    }

    fn post(&self, path: &str, body: &str) -> Answer {
        post(&format!("http://{}{path}", self.address), &[], body)
    }

    fn next_line(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }
}

impl Drop for Auth {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

const ADA: &str = r#"{"user":"ada","password":"right"}"#;
const NOT_ADA: &str = r#"{"user":"ada","password":"wrong"}"#;

#[test]
fn the_pool_runs_the_async_handler_and_a_sync_handler_refuses() {
    let workspace = Workspace::new();
    let mut auth = Auth::start(&workspace, "pool");
    assert_eq!(auth.post("/signup", ADA).status, 201);
    assert_eq!(auth.next_line(), "a welcome mail to ada");
    assert_eq!(auth.post("/login", ADA).status, 200);
    for _ in 0..3 {
        assert_eq!(auth.post("/login", NOT_ADA).status, 401);
    }
    assert_eq!(auth.post("/login", ADA).status, 403, "before:login refuses");
}

#[test]
fn the_plugins_folder_carries_the_event_away() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let auth = Auth::start(&workspace, "plugins");
    assert_eq!(auth.post("/signup", ADA).status, 201);
    assert_eq!(auth.post("/login", ADA).status, 200);
    let lines = workspace.wait_for_file_lines(1);
    assert_eq!(lines.len(), 1, "before:login goes nowhere");
    assert_eq!(lines[0]["type"], "after:signup");
    assert_eq!(lines[0]["data"], serde_json::json!({ "user": "ada" }));
}

#[test]
fn a_backend_of_ones_own_takes_the_event() {
    let workspace = Workspace::new();
    let auth = Auth::start(&workspace, "log-file");
    assert_eq!(auth.post("/signup", ADA).status, 201);
    let written = backhaul_tests::wait_for("the line in events.log", || {
        let text = std::fs::read_to_string(workspace.path().join("events.log")).ok()?;
        text.ends_with('\n').then_some(text)
    });
    assert_eq!(written, "after:signup {\"user\":\"ada\"}\n");
}
