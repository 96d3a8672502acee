//! The README's first command, checked: `cargo xtask run` in a fresh copy of
//! the repository, events posted in every content mode and read back, and a
//! stop by SIGTERM.
//!
//! The copy keeps the developer's own plugins/ and data/ out of it. It has the
//! files git tracks, as they stand in the working tree, and shares the target
//! folder, so that the dependencies are not built again.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xshell::{Shell, cmd};

use crate::workspace::Workspace;

/// For the host to be built, dependencies included, and to listen.
const START: Duration = Duration::from_secs(30 * 60);
/// For an accepted event to be in the file.
const DELIVERY: Duration = Duration::from_secs(10);
/// For the host to end after SIGTERM.
const STOP: Duration = Duration::from_secs(30);

/// Starts, posts, reads back, stops.
pub(crate) fn check(workspace: &Workspace) -> Result<()> {
    let folder = workspace.sh.create_temp_dir()?;
    let copy = folder.path().join("backhaul");
    copy_tracked(workspace, &copy)?;

    let mut host = Host::start(&copy, &workspace.target)?;
    let address = host.wait_for_address()?;
    let events = copy.join("data/out/events.ndjson");
    let sh = &workspace.sh;
    post_each_mode(sh, &format!("http://{address}/events"))?;
    for (id, user) in [
        ("first-binary", 1),
        ("first-structured", 2),
        ("first-batched-1", 3),
        ("first-batched-2", 4),
    ] {
        let event =
            wait_for(&events, |event| event["id"] == id).with_context(|| format!("posted {id}"))?;
        ensure!(
            event["type"] == "after:signup"
                && event["source"] == "/first-run"
                && event["data"]["user"] == user,
            "{id} came out changed: {event}"
        );
    }

    // What the host tells its user to type must work as it is.
    let line = host.curl_line()?;
    cmd!(sh, "sh -c {line}")
        .read()
        .context("the curl line that the host printed does not work")?;
    wait_for(&events, |event| {
        !event["id"]
            .as_str()
            .unwrap_or_default()
            .starts_with("first-")
    })
    .context("posted with the curl line that the host printed")?;

    let status = host.stop()?;
    ensure!(
        status.success(),
        "stopped by SIGTERM with everything delivered, the host ended with {status}"
    );
    let count = fs::read_to_string(&events)?.lines().count();
    ensure!(
        count == 5,
        "5 events were posted, and {count} are in the file"
    );
    Ok(())
}

fn copy_tracked(workspace: &Workspace, copy: &Path) -> Result<()> {
    let sh = &workspace.sh;
    let files = cmd!(sh, "git ls-files -z")
        .quiet()
        .read()
        .context("cannot list the files git tracks")?;
    let mut count = 0;
    for file in files.split_terminator('\0') {
        let from = workspace.root.join(file);
        // Deleted, and not yet committed so.
        if from.exists() {
            let to = copy.join(file);
            sh.create_dir(to.parent().unwrap_or(copy))?;
            sh.copy_file(&from, to)?;
            count += 1;
        }
    }
    ensure!(count > 0, "git tracks no files here: `git add` them first");
    eprintln!(
        "first run: {count} tracked files copied to {}",
        copy.display()
    );
    Ok(())
}

/// Posts four events: binary, structured, and two batched.
fn post_each_mode(sh: &Shell, url: &str) -> Result<()> {
    let event = |id: &str, user: u32| {
        format!(
            r#"{{"specversion":"1.0","id":"{id}","source":"/first-run","type":"after:signup","datacontenttype":"application/json","data":{{"user":{user}}}}}"#
        )
    };
    let binary = [
        "content-type: application/json",
        "ce-specversion: 1.0",
        "ce-id: first-binary",
        "ce-source: /first-run",
        "ce-type: after:signup",
    ];
    post(sh, url, &binary, r#"{"user":1}"#).context("binary mode")?;
    post(
        sh,
        url,
        &["content-type: application/cloudevents+json"],
        &event("first-structured", 2),
    )
    .context("structured mode")?;
    let batch = format!(
        "[{},{}]",
        event("first-batched-1", 3),
        event("first-batched-2", 4)
    );
    post(
        sh,
        url,
        &["content-type: application/cloudevents-batch+json"],
        &batch,
    )
    .context("batched mode")
}

fn post(sh: &Shell, url: &str, headers: &[&str], body: &str) -> Result<()> {
    let headers = headers.iter().flat_map(|header| ["--header", header]);
    let answer = cmd!(
        sh,
        "curl --silent --show-error --max-time 10 --write-out '\n%{http_code}' --data-binary {body}"
    )
    .args(headers)
    .arg(url)
    .quiet()
    .read()?;
    let (answer, status) = answer.rsplit_once('\n').context("curl printed no status")?;
    ensure!(
        status == "202",
        "expected 202, and the host answered {status}: {answer}"
    );
    Ok(())
}

/// Waits until one of the events in the file is the one that is looked for.
fn wait_for(file: &Path, wanted: impl Fn(&Value) -> bool) -> Result<Value> {
    let deadline = Instant::now() + DELIVERY;
    loop {
        let events = fs::read_to_string(file).unwrap_or_default();
        // The last line may be half written.
        let found = events
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .find(&wanted);
        if let Some(event) = found {
            return Ok(event);
        }
        if Instant::now() > deadline {
            bail!(
                "the event is not in {} after {DELIVERY:?}; there is:\n{events}",
                file.display()
            );
        }
        thread::sleep(Duration::from_millis(20));
    }
}

/// A host started by `cargo xtask run`. Killed when dropped, so that a failed
/// check leaves none behind.
struct Host {
    process: Child,
    lines: Receiver<String>,
    printed: Vec<String>,
}

impl Host {
    fn start(copy: &Path, target: &Path) -> Result<Self> {
        let mut run = Command::new("cargo");
        run.args(["xtask", "run", "--", "--listen", "127.0.0.1:0"])
            .current_dir(copy)
            .env("CARGO_TARGET_DIR", target)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        // A fresh machine has no settings.
        for (name, _) in
            std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("BACKHAUL_"))
        {
            run.env_remove(name);
        }
        let mut process = run.spawn().context("cannot start cargo")?;

        let stderr = process.stderr.take().context("standard error is piped")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                eprintln!("  | {line}");
                // Once nobody listens, the lines are still worth showing.
                let _ = sender.send(line);
            }
        });
        Ok(Self {
            process,
            lines,
            printed: Vec::new(),
        })
    }

    fn wait_for_address(&mut self) -> Result<String> {
        let deadline = Instant::now() + START;
        loop {
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => {
                    let address = line
                        .split_once("listening on ")
                        .map(|(_, address)| address.trim().to_owned());
                    self.printed.push(line);
                    if let Some(address) = address {
                        return Ok(address);
                    }
                }
                Err(RecvTimeoutError::Timeout) => bail!("the host does not listen after {START:?}"),
                Err(RecvTimeoutError::Disconnected) => {
                    bail!(
                        "`cargo xtask run` ended with {} before it listened",
                        self.process.wait()?
                    )
                }
            }
        }
    }

    /// The line to copy that the host has printed, continuation lines included.
    fn curl_line(&mut self) -> Result<String> {
        let deadline = Instant::now() + DELIVERY;
        loop {
            if let Some(line) = curl_line(&self.printed) {
                return Ok(line);
            }
            match self
                .lines
                .recv_timeout(deadline.saturating_duration_since(Instant::now()))
            {
                Ok(line) => self.printed.push(line),
                Err(_) => bail!("the host printed no curl line to copy"),
            }
        }
    }

    /// Asks the host to stop. Cargo and xtask have become the host (exec), so
    /// the process is the host's.
    fn stop(&mut self) -> Result<ExitStatus> {
        let sent = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -TERM {}", self.process.id()))
            .status()?;
        ensure!(sent.success(), "cannot send SIGTERM to the host");
        let deadline = Instant::now() + STOP;
        while Instant::now() < deadline {
            if let Some(status) = self.process.try_wait()? {
                return Ok(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        bail!("the host still runs {STOP:?} after SIGTERM")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A complete shell command that starts with `curl`, among the lines printed.
fn curl_line(printed: &[String]) -> Option<String> {
    let mut lines = printed
        .iter()
        .map(|line| line.trim())
        .skip_while(|line| !line.starts_with("curl "));
    let mut command = String::new();
    loop {
        let line = lines.next()?;
        match line.strip_suffix('\\') {
            Some(continued) => command += continued,
            None => return Some(command + line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(lines: &[&str]) -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).collect()
    }

    #[test]
    fn the_curl_line_is_found_among_the_others() {
        let lines = printed(&[
            "listening on 127.0.0.1:1",
            "  curl -d '{}' http://127.0.0.1:1/events",
            "more",
        ]);
        assert_eq!(
            curl_line(&lines).unwrap(),
            "curl -d '{}' http://127.0.0.1:1/events"
        );
        assert_eq!(curl_line(&printed(&["listening on 127.0.0.1:1"])), None);
    }

    #[test]
    fn a_curl_command_over_several_lines_is_taken_whole_or_not_yet() {
        let lines = printed(&[
            "post with:",
            "  curl -H 'ce-id: 1' \\",
            "    -d '{}' \\",
            "    http://a/events",
            "more",
        ]);
        assert_eq!(
            curl_line(&lines).unwrap(),
            "curl -H 'ce-id: 1' -d '{}' http://a/events"
        );
        assert_eq!(curl_line(&lines[..3]), None);
    }
}
