//! An attacking plugin in the folder of a running host.

use std::collections::VecDeque;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backhaul_tests::host::{Host, Workspace, post};
use backhaul_tests::wait_for;
use serde_json::Value;

use crate::attacks::{Attack, When};
use crate::honest::Measured;

/// How many instances an attacker may have.
const INSTANCES: u64 = 2;

/// How much memory each of them may have.
const MEMORY: u64 = 16 << 20;

/// How much one call may have the host copy out of it.
const COPIED: u64 = 16 << 20;

/// How many files an attack at loading is made of.
const COPIES: usize = 3;

/// How often an attack at loading is dropped into the folder anew.
const AGAIN: Duration = Duration::from_millis(700);

/// How often an attacker is given events, and is forgiven that it broke.
const STEP: Duration = Duration::from_millis(50);

/// How many events each time.
const EVENTS: usize = 10;

pub(crate) struct Attacker<'a> {
    workspace: &'a Workspace,
    host: &'a Host,
    attack: &'a Attack,
    label: String,
    order: String,
    grants: String,
    wasm: Vec<u8>,
    /// Where the host's log stood.
    logged: usize,
}

impl<'a> Attacker<'a> {
    pub(crate) fn new(
        workspace: &'a Workspace,
        host: &'a Host,
        server: &Server,
        attack: &'a Attack,
        label: String,
    ) -> Attacker<'a> {
        let out = workspace.path().join("out").join(&label);
        let fill = |text: &str| {
            text.replace("{server}", &server.address)
                .replace("{host}", host.address())
                .replace("{out}", &out.display().to_string())
        };
        fs::create_dir_all(&out).expect("a folder");
        Attacker {
            workspace,
            host,
            attack,
            order: fill(attack.order),
            grants: fill(attack.grants),
            wasm: attack.wasm(),
            logged: host.log().len(),
            label,
        }
    }

    /// Attacks for as long as `meanwhile` takes, and until there is a sign of it:
    /// what the host says became of it.
    pub(crate) fn attack(
        &self,
        meanwhile: impl FnOnce() -> Measured,
    ) -> (Measured, Option<String>) {
        self.add();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| self.go_on(&over));
            // A failed measurement is to end this thread's loop, too.
            let _over = Over(&over);
            let measured = meanwhile();
            (measured, self.sign())
        })
    }

    /// How much memory it may take from the host: that of its instances, and what
    /// calls of them may have copied. Of what is loaded again and again there are
    /// the files and their code, too.
    pub(crate) fn memory(&self) -> u64 {
        let instance = MEMORY + COPIED;
        let file = self.wasm.len() as u64;
        match self.attack.when {
            When::Publish => INSTANCES * instance,
            // The one before and the one after.
            When::Replace => 2 * INSTANCES * instance,
            When::Load => COPIES as u64 * (instance + 2 * file),
        }
    }

    /// Puts it into the folder, and waits until it is loaded, or refused.
    pub(crate) fn add(&self) {
        self.write(0);
        wait_for(&format!("{} to be loaded or refused", self.label), || {
            let status = self.status();
            (status["state"].is_string() || status["reason"].is_string()).then_some(())
        });
    }

    /// Has the host accept `count` events for it.
    pub(crate) fn give_events(&self, count: usize) {
        let event = serde_json::json!({
            "specversion": "1.0", "id": "1", "source": "/tests", "type": self.label,
            "datacontenttype": "text/plain", "data": self.order,
        });
        let body = serde_json::to_vec(&vec![event; count]).expect("JSON");
        let headers = [("content-type", "application/cloudevents-batch+json")];
        let answer = self.host.post(&headers, body);
        assert!(matches!(answer.status, 202 | 422 | 429), "{answer:?}");
    }

    fn go_on(&self, over: &AtomicBool) {
        let mut written = Instant::now();
        let mut version = 0;
        while !over.load(Ordering::Relaxed) {
            if self.attack.when != When::Load {
                self.give_events(EVENTS);
                // Or it would be given longer and longer pauses.
                let release = format!("{}/api/plugins/{}/release", self.host.url(), self.label);
                post(&release, &[], "");
            }
            if self.attack.when != When::Publish && written.elapsed() > AGAIN {
                version += 1;
                self.write(version);
                written = Instant::now();
            }
            std::thread::sleep(STEP);
        }
    }

    /// The host's word for what became of the attack.
    fn sign(&self) -> Option<String> {
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            let (status, log) = (self.status(), self.host.log());
            if self.attack.sign.is_there(&status, &log[self.logged..]) {
                return Some(outcome(&status));
            }
            std::thread::sleep(STEP);
        }
        eprintln!("{}: {}", self.attack.name, self.describe());
        None
    }

    pub(crate) fn is_quarantined(&self) -> bool {
        let status = self.status();
        status["state"] == "quarantined"
            && status["instances"]["broken_in_a_row"].as_u64() >= Some(10)
    }

    pub(crate) fn describe(&self) -> String {
        format!("{} {}", self.attack.name, self.status())
    }

    /// Takes it out of the folder, and waits until it is gone.
    pub(crate) fn remove(&self) {
        let status = self.status();
        for (wasm, manifest) in self.files() {
            fs::remove_file(wasm).expect("it is there");
            fs::remove_file(manifest).expect("it is there");
        }
        let name = format!("plugin=\"{}\"", self.label);
        wait_for(
            &format!("{} to be gone", self.label),
            || match status["state"] {
                Value::Null => self.status().is_null().then_some(()),
                _ => {
                    let log = &self.host.log()[self.logged..];
                    let ended = |line: &str| line.contains(" ended: ") && line.contains(&name);
                    log.lines().any(ended).then_some(())
                }
            },
        );
    }

    /// What the host says of it, as a plugin or as a refused file.
    fn status(&self) -> Value {
        let mut folder = self.host.get("/api/plugins").body;
        let mut find = |list: &str, key: &str, like: &str| {
            let found = folder[list].as_array_mut()?.iter_mut();
            let mut found =
                found.filter(|one| one[key].as_str().is_some_and(|text| text.ends_with(like)));
            found.next().map(Value::take)
        };
        let file = format!("/{}.wasm", self.label);
        find("plugins", "name", &self.label)
            .or_else(|| find("refused", "file", &file))
            .unwrap_or_default()
    }

    fn files(&self) -> Vec<(PathBuf, PathBuf)> {
        let copies = match self.attack.when {
            When::Load => COPIES,
            _ => 1,
        };
        let path = |n| {
            let name = match n {
                0 => self.label.clone(),
                n => format!("{}-{n}", self.label),
            };
            let file = self.workspace.path().join("plugins").join(name);
            (file.with_extension("wasm"), file.with_extension("toml"))
        };
        (0..copies).map(path).collect()
    }

    fn write(&self, version: usize) {
        let manifest = format!(
            "name = \"{0}\"\nevents = [\"{0}\"]\n[grants]\n{1}\n[limits]\n\
             memory = \"16MiB\"\ninstances = {INSTANCES}\ntimeout = \"1s\"\nstart_timeout = \"2s\"\n\
             cpu = \"200ms\"\ncompile_timeout = \"1s\"\nlog = {2}\n",
            self.label,
            self.grants,
            100 + version
        );
        for (wasm, toml) in self.files() {
            fs::write(toml, &manifest).expect("the manifest");
            fs::write(wasm, &self.wasm).expect("the component");
        }
    }
}

/// In short, for the table.
fn outcome(status: &Value) -> String {
    let count = |path: &str| status.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    if let Some(reason) = status["reason"].as_str() {
        return format!("not loaded: {reason}");
    }
    let parts = [
        ("broken", count("/instances/broken")),
        ("denied", count("/denied/total")),
        ("delivered", count("/delivery/delivered")),
        ("dead", count("/delivery/dead")),
        ("lines dropped", count("/output/dropped")),
    ];
    let parts = parts.into_iter().filter(|(_, count)| *count > 0);
    let mut text: Vec<String> = parts
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    text.extend(
        status["instances"]["last_error"]
            .as_str()
            .map(str::to_owned),
    );
    text.join(", ")
}

/// Says that it is over when it is dropped.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A server that takes connections, and neither reads nor writes.
pub(crate) struct Server {
    address: String,
}

impl Server {
    pub(crate) fn start() -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port").to_string();
        // Ends with the process.
        std::thread::spawn(move || {
            let mut open: VecDeque<TcpStream> = VecDeque::new();
            for stream in listener.incoming().flatten() {
                open.push_back(stream);
                // More than an attacker may have; this process has its limit, too.
                if open.len() > 400 {
                    open.pop_front();
                }
            }
        });
        Server { address }
    }
}
