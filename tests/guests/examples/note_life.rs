//! Notes what it lives through: in `/out/published` a line for each event, with
//! the variable `LABEL`, how many came in the same call, and the event's id; in
//! `/out/closed` a line with `LABEL` for each instance that is closed. A call
//! takes `PAUSE` milliseconds, if that is set.

use std::fs::File;
use std::io::Write;
use std::time::Duration;

use backhaul_guest::{Backend, Event, Failure, OpenError, parsed_setting, setting_or};

struct NoteLife {
    label: String,
    pause: Duration,
}

impl Backend for NoteLife {
    const NAME: &'static str = "note-life";

    fn open() -> Result<Self, OpenError> {
        let pause = parsed_setting("PAUSE", "milliseconds")?;
        Ok(NoteLife {
            pause: Duration::from_millis(pause.unwrap_or(0)),
            label: setting_or("LABEL", "-"),
        })
    }

    fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        std::thread::sleep(self.pause);
        let (label, count) = (&self.label, events.len());
        let lines = events
            .iter()
            .map(|event| format!("{label} {count} {}\n", event.id));
        append("/out/published", &lines.collect::<String>());
        Ok(())
    }

    fn close(self) -> Result<(), String> {
        append("/out/closed", &format!("{}\n", self.label));
        Ok(())
    }
}

fn append(path: &str, lines: &str) {
    let opened = File::options().append(true).create(true).open(path);
    let mut file = opened.expect("/out is granted");
    file.write_all(lines.as_bytes()).expect("it can be written");
}

backhaul_guest::export!(NoteLife);
