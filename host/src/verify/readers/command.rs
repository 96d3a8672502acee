//! Asks a program: the reader of a backend that is not ours.
//!
//! The program gets the plugin's variables, and `BACKHAUL_VERIFY_RUN`, which the
//! `source` of every event of the run holds. It prints the line `ready` once it
//! misses nothing any more, then each event it finds as one line of CloudEvents'
//! JSON format, and ends when its standard input does. What it prints to standard
//! error is shown.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, TryRecvError};
use std::thread;
use std::time::{Duration, Instant};

use super::{PATIENCE, Reader, ReaderError, Setup, from_json};
use crate::event::Event;

/// What the program prints when it misses nothing any more.
const READY: &str = "ready";

/// How long it may take until then.
const START: Duration = Duration::from_secs(60);

/// How much of a line is shown that is no event.
const SHOWN: usize = 200;

pub(super) struct Command {
    program: String,
    child: Child,
    /// Open for as long as the program is to read.
    input: Option<ChildStdin>,
    lines: Receiver<std::io::Result<String>>,
    /// Why nothing that comes is to be relied on.
    failed: Option<ReaderError>,
}

impl Command {
    pub(super) fn open(command: &[String], setup: &Setup<'_>) -> Result<Command, ReaderError> {
        let program = &command[0];
        let place = format!("the reader {program}");
        let started = std::process::Command::new(program)
            .args(&command[1..])
            .envs(&setup.env)
            .env("BACKHAUL_VERIFY_RUN", setup.run)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.map_err(|error| ReaderError::at("start", &place, error))?;
        let input = child.stdin.take();
        let output = child.stdout.take().expect("it was asked for");
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(output).lines() {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut reader = Command {
            program: program.clone(),
            child,
            input,
            lines,
            failed: None,
        };
        match reader.lines.recv_timeout(START) {
            Ok(Ok(line)) if line.trim() == READY => Ok(reader),
            Ok(Ok(line)) => Err(reader.failed(&format!(
                "its first line is {:?} and not `{READY}`",
                line.chars().take(SHOWN).collect::<String>()
            ))),
            Ok(Err(error)) => Err(reader.failed(&error.to_string())),
            Err(RecvTimeoutError::Timeout) => {
                Err(reader.failed(&format!("it has not printed `{READY}` within {START:?}")))
            }
            Err(RecvTimeoutError::Disconnected) => Err(reader.failed("")),
        }
    }

    /// What is wrong, or how it ended.
    fn failed(&mut self, problem: &str) -> ReaderError {
        let ended = match problem.is_empty() {
            true => self.child.wait().ok(),
            false => None,
        };
        let problem = match ended {
            Some(status) => format!("it has ended ({status})"),
            None => problem.to_owned(),
        };
        ReaderError(format!("the reader {}: {problem}", self.program))
    }
}

impl Reader for Command {
    fn read(&mut self) -> Result<Vec<Event>, ReaderError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let mut events = Vec::new();
        let problem = loop {
            match self.lines.try_recv() {
                Ok(Ok(line)) => match from_json(line.clone()) {
                    Ok(event) => events.push(event),
                    Err(error) => {
                        let start: String = line.chars().take(SHOWN).collect();
                        break format!("it printed {start:?}: {error}");
                    }
                },
                Ok(Err(error)) => break error.to_string(),
                Err(TryRecvError::Disconnected) if events.is_empty() => break String::new(),
                Err(_) => return Ok(events),
            }
        };
        let error = self.failed(&problem);
        self.failed = Some(error.clone());
        Err(error)
    }

    fn longest_outage(&self) -> Duration {
        Duration::ZERO
    }

    fn place(&self) -> String {
        format!("what {} prints", self.program)
    }

    fn quiet(&self) -> Duration {
        Duration::from_millis(500)
    }

    fn close(&mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
