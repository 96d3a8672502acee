//! The `backhaul` program as a child process, in a folder of its own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use crate::process::pid;
use crate::{compiled_code, components, wait_for};

/// A temporary folder to run the program in, with `plugins/` in it, and one for
/// what the host keeps. Hosts that are started here one after the other are one
/// machine: each finds what the one before has kept.
pub struct Workspace {
    folder: TempDir,
    /// The hosts' `--data`. It is not in `folder`, where plugins are granted folders.
    data: PathBuf,
    /// Holds `data`, unless it was chosen.
    own_data: Option<TempDir>,
}

/// A running `backhaul serve`.
pub struct Host {
    process: Child,
    address: String,
    log: Arc<Mutex<String>>,
    reader: Option<JoinHandle<()>>,
}

/// What the host answered.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body, as JSON (null if it is not).
    pub body: serde_json::Value,
    /// The header `Retry-After`.
    pub retry_after: Option<String>,
}

/// The built program.
pub fn program() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let program = test
        .ancestors()
        .nth(2)
        .expect("target/PROFILE")
        .join("backhaul");
    components::assert_built(&program);
    program
}

impl Workspace {
    /// An empty workspace.
    pub fn new() -> Workspace {
        let data = TempDir::with_prefix("backhaul-data").expect("a temporary folder");
        Workspace {
            own_data: Some(data),
            ..Workspace::with_data(Path::new(""))
        }
    }

    /// An empty workspace whose hosts keep what they keep in `data`.
    pub fn with_data(data: &Path) -> Workspace {
        let folder = TempDir::with_prefix("backhaul-test").expect("a temporary folder");
        fs::create_dir(folder.path().join("plugins")).expect("the plugins folder");
        Workspace {
            folder,
            data: data.to_owned(),
            own_data: None,
        }
    }

    /// The workspace's path.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The hosts' data folder.
    pub fn data(&self) -> &Path {
        self.own_data.as_ref().map_or(&self.data, TempDir::path)
    }

    /// The folder of the hosts' journal.
    pub fn journal(&self) -> PathBuf {
        self.data().join("journal")
    }

    /// Drops a component into the plugins folder as `NAME.wasm`, with a manifest
    /// unless it is empty.
    pub fn add_plugin(&self, name: &str, component: &Path, manifest: &str) {
        let bytes = fs::read(component).expect("the component");
        self.add_bytes(name, &bytes, manifest);
    }

    /// The same with any bytes.
    pub fn add_bytes(&self, name: &str, bytes: &[u8], manifest: &str) {
        let plugins = self.path().join("plugins");
        fs::write(plugins.join(format!("{name}.wasm")), bytes).expect("NAME.wasm");
        if !manifest.is_empty() {
            fs::write(plugins.join(format!("{name}.toml")), manifest).expect("NAME.toml");
        }
    }

    /// Drops the `file` plugin in, with its example manifest.
    pub fn add_file_plugin(&self) {
        let manifest = components::plugin("file").with_extension("toml");
        let manifest = fs::read_to_string(manifest).expect("the example manifest");
        self.add_plugin("file", &components::plugin("file"), &manifest);
    }

    /// What the `file` plugin has written, line by line.
    pub fn file_lines(&self) -> Vec<serde_json::Value> {
        let text =
            fs::read_to_string(self.path().join("data/out/events.ndjson")).unwrap_or_default();
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect("a line of JSON"))
            .collect()
    }

    /// Waits until the `file` plugin has written `count` lines.
    pub fn wait_for_file_lines(&self, count: usize) -> Vec<serde_json::Value> {
        wait_for(&format!("{count} lines in the file"), || {
            Some(self.file_lines()).filter(|lines| lines.len() >= count)
        })
    }

    /// A command of the program, to be run here. A host has the data folder of
    /// this workspace, unless `arguments` name another.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).current_dir(self.path());
        let ours = std::env::vars_os()
            .map(|(name, _)| name)
            .filter(|name| name.to_string_lossy().starts_with("BACKHAUL_"));
        for name in ours {
            command.env_remove(name);
        }
        command.env("BACKHAUL_DATA", self.data());
        command.env("XDG_CACHE_HOME", components::target().join("test-cache"));
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("the program runs")
    }

    /// Starts the host here, on a free port.
    pub fn serve(&self) -> Host {
        self.serve_with(&[])
    }

    /// The same with further arguments.
    pub fn serve_with(&self, arguments: &[&str]) -> Host {
        let mut host = self.spawn(arguments);
        host.wait_until_it_listens();
        compiled_code::keep(self.data());
        host
    }

    /// Starts the host, and does not wait until it listens.
    pub fn spawn(&self, arguments: &[&str]) -> Host {
        self.spawn_as(arguments, |_| {})
    }

    /// The same with a command that was changed.
    pub fn spawn_as(&self, arguments: &[&str], change: impl FnOnce(&mut Command)) -> Host {
        compiled_code::lay_out(&self.path().join("plugins"), self.data());
        let all = [&["serve", "--listen", "127.0.0.1:0"], arguments].concat();
        let mut command = self.command(&all);
        change(&mut command);
        command.stderr(Stdio::piped());
        let mut process = command.spawn().expect("the program starts");
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(process.stderr.take().expect("its standard error"));
        let reader = std::thread::spawn({
            let log = log.clone();
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let mut log = log.lock().expect("the log");
                    log.push_str(&line);
                    log.push('\n');
                }
            }
        });
        Host {
            process,
            address: String::new(),
            log,
            reader: Some(reader),
        }
    }
}

impl Default for Workspace {
    fn default() -> Workspace {
        Workspace::new()
    }
}

impl Host {
    /// Waits until it listens, and knows its address from then on.
    pub fn wait_until_it_listens(&mut self) {
        self.address = wait_for("`listening on`", || {
            let ended = self.process.try_wait().expect("its state");
            assert!(ended.is_none(), "the host ended at once:\n{}", self.log());
            let log = self.log();
            let line = log
                .lines()
                .find_map(|line| line.strip_prefix("listening on "));
            line.map(str::to_owned)
        });
    }

    /// `HOST:PORT`
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://HOST:PORT`
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What it has written to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("the log").clone()
    }

    /// Waits until its log holds `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), || {
            self.log().contains(text).then_some(())
        });
    }

    /// Posts to `/events`.
    pub fn post(&self, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        post(&format!("{}/events", self.url()), headers, body)
    }

    /// Posts one event in binary mode, with JSON data.
    pub fn post_event(&self, id: &str, event_type: &str, data: &str) -> Answer {
        let headers = [
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", id),
            ("ce-source", "/tests"),
            ("ce-type", event_type),
        ];
        self.post(&headers, data)
    }

    /// Posts a batch of `count` small events with ids `PREFIX-0`, `PREFIX-1`, ...
    pub fn post_batch(&self, prefix: &str, count: usize) -> Answer {
        let event = |n| {
            serde_json::json!({
                "specversion": "1.0", "id": format!("{prefix}-{n}"), "source": "/tests",
                "type": "after:signup", "data": { "n": n },
            })
        };
        let batch: Vec<_> = (0..count).map(event).collect();
        let body = serde_json::to_vec(&batch).expect("JSON");
        self.post(
            &[("content-type", "application/cloudevents-batch+json")],
            body,
        )
    }

    /// Gets a path, for instance `/health/ready`.
    pub fn get(&self, path: &str) -> Answer {
        answer(agent().get(format!("{}{path}", self.url())).call())
    }

    /// Gets a path that does not answer in JSON, for instance `/metrics`: the
    /// status and the body.
    pub fn get_text(&self, path: &str) -> (u16, String) {
        let response = agent().get(format!("{}{path}", self.url())).call();
        let mut response = response.expect("the host answers");
        let body = response.body_mut().read_to_string().expect("a body");
        (response.status().as_u16(), body)
    }

    /// Posts JSON to a path, for instance `/api/dead/retry`.
    pub fn post_json(&self, path: &str, body: &serde_json::Value) -> Answer {
        let headers = [("content-type", "application/json")];
        post(&format!("{}{path}", self.url()), &headers, body.to_string())
    }

    /// Sends `DELETE` to a path, for instance `/api/backends/NAME`.
    pub fn delete(&self, path: &str) -> Answer {
        answer(agent().delete(format!("{}{path}", self.url())).call())
    }

    /// What `GET /api/plugins` says of the plugin called `name`; `None` if it is
    /// not in use.
    pub fn plugin(&self, name: &str) -> Option<serde_json::Value> {
        let answer = self.get("/api/plugins");
        assert_eq!(answer.status, 200, "{answer:?}");
        let plugins = answer.body["plugins"].as_array().expect("a list");
        plugins.iter().find(|p| p["name"] == name).cloned()
    }

    /// The files `GET /api/plugins` says were refused, each with the reason.
    pub fn refused_files(&self) -> Vec<(String, String)> {
        let body = self.get("/api/plugins").body;
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        let refused = body["refused"].as_array().expect("a list").iter();
        refused
            .map(|refused| (text(&refused["file"]), text(&refused["reason"])))
            .collect()
    }

    /// Has a plugin that was set aside try again.
    pub fn release(&self, name: &str) -> Answer {
        post(
            &format!("{}/api/plugins/{name}/release", self.url()),
            &[],
            "",
        )
    }

    /// The memory it occupies now, in bytes.
    pub fn resident_bytes(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most memory it has occupied, in bytes, since
    /// [`forget_peak`](Self::forget_peak).
    pub fn peak_bytes(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Has [`peak_bytes`](Self::peak_bytes) begin anew.
    pub fn forget_peak(&self) {
        fs::write(self.proc("clear_refs"), "5").expect("the peak is reset");
    }

    fn memory(&self, field: &str) -> u64 {
        let status = fs::read_to_string(self.proc("status")).expect("the status of the host");
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kilobytes.expect("a size in kB") * 1024
    }

    fn proc(&self, file: &str) -> PathBuf {
        format!("/proc/{}/{file}", self.process.id()).into()
    }

    /// Ends it at once, as a crash does; returns what it has logged.
    pub fn kill(mut self) -> String {
        self.process.kill().expect("the host gets SIGKILL");
        self.wait().1
    }

    /// Asks it to stop, without waiting.
    pub fn terminate(&self) {
        kill_process(pid(&self.process), Signal::TERM).expect("the host gets SIGTERM");
    }

    /// Waits until it has ended; returns how, and all it has logged.
    pub fn wait(mut self) -> (ExitStatus, String) {
        let status = wait_for("the host to end", || {
            self.process.try_wait().expect("its state")
        });
        if let Some(reader) = self.reader.take() {
            reader.join().expect("the log's reader");
        }
        (status, self.log())
    }

    /// Asks it to stop, and waits.
    pub fn stop(self) -> (ExitStatus, String) {
        self.terminate();
        self.wait()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if std::thread::panicking() {
            eprintln!("the log of the host:\n{}", self.log());
        }
    }
}

/// Posts to a URL.
pub fn post(url: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
    let mut request = agent().post(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    answer(request.send(body.as_ref()))
}

fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(60)))
        .proxy(None);
    ureq::Agent::new_with_config(config.build())
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.expect("the host answers");
    let retry_after = response.headers().get("retry-after").cloned();
    let body = response.body_mut().read_to_string().expect("a body");
    Answer {
        status: response.status().as_u16(),
        retry_after: retry_after.map(|value| value.to_str().expect("text").to_owned()),
        body: serde_json::from_str(&body).unwrap_or_default(),
    }
}
