//! Dead letters for a terminal. What comes from events and plugins is shown
//! without the characters that would control it.

use std::array;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io::IsTerminal;

use anyhow::Context;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::wasm::{is_invisible, printable};

/// A dead letter, as the host gives it.
#[derive(Deserialize)]
pub(super) struct Letter {
    id: u64,
    backend: String,
    error: String,
    attempts: u32,
    first_try: Timestamp,
    last_try: Timestamp,
    /// The members of a CloudEvent in JSON.
    event: BTreeMap<String, Box<RawValue>>,
}

/// The attributes every event has, or most, in the order they are shown in.
const COMMON: [&str; 6] = ["id", "source", "type", "time", "subject", "datacontenttype"];

/// The widest columns, in characters: a plugin's name, an event type, a UUID.
const BACKEND: usize = 24;
const TYPE: usize = 32;
const EVENT: usize = 36;

/// A row for each letter, and below it its error, cut to `width` characters if
/// there is a limit.
pub(super) fn table(letters: &[Letter], width: Option<usize>) -> String {
    let heads = ["ID", "BACKEND", "TYPE", "EVENT", "ATTEMPTS", "LAST TRY"];
    let heads = heads.map(str::to_owned);
    let rows: Vec<[String; 6]> = letters.iter().map(Letter::row).collect();
    let all = || rows.iter().chain([&heads]);
    let widths: [usize; 6] = array::from_fn(|column| {
        let widest = all().map(|row| length(&row[column])).max();
        widest.unwrap_or_default()
    });
    let mut table = aligned(&heads, &widths);
    for (letter, row) in letters.iter().zip(&rows) {
        table.push_str(&aligned(row, &widths));
        let error = format!("  {}", line(&letter.error));
        table.push_str(&cut(&error, width.unwrap_or(usize::MAX)));
        table.push('\n');
    }
    table
}

fn aligned(row: &[String; 6], widths: &[usize; 6]) -> String {
    let cells = row.iter().zip(widths);
    let cells: Vec<String> = cells
        .map(|(cell, width)| format!("{cell:<width$}"))
        .collect();
    format!("{}\n", cells.join("  ").trim_end())
}

/// All there is of a letter.
pub(super) fn letter(letter: &Letter) -> anyhow::Result<String> {
    let shown = [
        ("backend", line(&letter.backend)),
        ("error", line(&letter.error)),
        ("attempts", letter.attempts.to_string()),
        ("first try", letter.first_try.to_string()),
        ("last try", letter.last_try.to_string()),
    ];
    let mut text = format!("dead letter {}\n", letter.id);
    for (name, value) in shown {
        writeln!(text, "  {name:<16} {value}")?;
    }
    text.push_str("event\n");
    for name in letter.names() {
        let value = line(&letter.attribute(name));
        writeln!(text, "  {:<16} {value}", line(name))?;
    }
    text.push_str(&letter.data()?);
    Ok(text)
}

/// JSON with the characters escaped that JSON itself lets through.
pub(super) fn json(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            // Between tokens there are no others, so this one is in a string.
            c if (c.is_control() || is_invisible(c)) && !"\n\r\t".contains(c) => {
                escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
            }
            c => escaped.push(c),
        }
    }
    escaped
}

/// How many characters go into a line of the terminal, if it is one.
pub(super) fn width() -> Option<usize> {
    if !std::io::stdout().is_terminal() {
        return None;
    }
    let mut size = libc::winsize {
        ws_row: 0,
        ws_col: 0,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: it fills in a `winsize`, which is what it is given.
    let answer = unsafe { libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &raw mut size) };
    (answer == 0 && size.ws_col > 0).then(|| size.ws_col.into())
}

impl Letter {
    fn row(&self) -> [String; 6] {
        [
            self.id.to_string(),
            cut(&line(&self.backend), BACKEND),
            cut(&line(&self.attribute("type")), TYPE),
            cut(&line(&self.attribute("id")), EVENT),
            self.attempts.to_string(),
            format!("{:.0}", self.last_try),
        ]
    }

    /// The names of its event's attributes.
    fn names(&self) -> impl Iterator<Item = &str> {
        let has = |name: &&str| self.event.contains_key(*name);
        let rest = self.event.keys().map(String::as_str);
        let passed_over = ["specversion", "data", "data_base64"];
        let rest = rest.filter(move |name| !COMMON.contains(name) && !passed_over.contains(name));
        COMMON.into_iter().filter(has).chain(rest)
    }

    /// An attribute of its event; all of them are strings.
    fn attribute(&self, name: &str) -> String {
        let value = self.event.get(name);
        value
            .and_then(|value| serde_json::from_str(value.get()).ok())
            .unwrap_or_default()
    }

    fn data(&self) -> anyhow::Result<String> {
        if let Some(base64) = self.event.get("data_base64") {
            let base64: String = serde_json::from_str(base64.get())?;
            let bytes = STANDARD.decode(&base64).context("the data are no base64")?;
            // What only claims to be JSON is easier to put right when it can be read.
            return Ok(match String::from_utf8(bytes) {
                Ok(text) if !text.contains('\0') => format!("data\n{}", lines(&text)),
                _ => format!("data, in base64\n{base64}\n"),
            });
        }
        let Some(data) = self.event.get("data") else {
            return Ok("no data\n".to_owned());
        };
        let content_type = self.attribute("datacontenttype");
        let is_json = content_type.is_empty() || crate::http::is_json(&content_type);
        let text = match is_json {
            true => data.get().to_owned(),
            false => serde_json::from_str(data.get())?,
        };
        Ok(format!("data\n{}", lines(&text)))
    }
}

/// `text` as one line.
fn line(text: &str) -> String {
    printable(text, usize::MAX)
}

/// `text` as it is, but for what would control the terminal.
fn lines(text: &str) -> String {
    text.lines().map(|part| line(part) + "\n").collect()
}

fn length(text: &str) -> usize {
    text.chars().count()
}

fn cut(text: &str, max: usize) -> String {
    if length(text) <= max {
        return text.to_owned();
    }
    let kept = text.chars().take(max.saturating_sub(3));
    kept.chain("...".chars()).take(max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dead(error: &str, event: &str) -> Letter {
        let error = serde_json::to_string(error).unwrap();
        let head = r#""specversion":"1.0","id":"e-1","source":"/s","type":"after:meal""#;
        let json = format!(
            r#"{{"id":7,"backend":"picky","error":{error},"attempts":3,
                "first_try":"2026-01-31T12:00:00.25Z","last_try":"2026-01-31T12:00:01.5Z",
                "event":{{{head}{event}}}}}"#
        );
        serde_json::from_str(&json).expect(&json)
    }

    #[test]
    fn a_table_has_a_row_for_each_letter_with_its_error_below() {
        let letters = [dead("poison", ""), dead("no\nmore", "")];
        assert_eq!(
            table(&letters, None),
            "ID  BACKEND  TYPE        EVENT  ATTEMPTS  LAST TRY\n\
             7   picky    after:meal  e-1    3         2026-01-31T12:00:01Z\n\
             \x20 poison\n\
             7   picky    after:meal  e-1    3         2026-01-31T12:00:01Z\n\
             \x20 no\\u{a}more\n"
        );
        let head = "ID  BACKEND  TYPE  EVENT  ATTEMPTS  LAST TRY\n";
        assert_eq!(table(&[], None), head);
    }

    #[test]
    fn an_error_is_cut_to_the_width_of_the_terminal() {
        let table = table(&[dead(&"é".repeat(500), "")], Some(72));
        let error = table.lines().last().expect("its line");
        assert_eq!(length(error), 72, "{table}");
        assert!(error.ends_with("éé..."), "{table}");
        assert_eq!(cut("abcdef", 2), "..");
    }

    #[test]
    fn a_letter_is_shown_with_all_its_attributes() {
        let event = r#","dataschema":"https://x","time":"2026-01-31T11:00:00Z","data":{"a": 1.50}"#;
        assert_eq!(
            letter(&dead("poison", event)).unwrap(),
            "dead letter 7\n\
             \x20 backend          picky\n\
             \x20 error            poison\n\
             \x20 attempts         3\n\
             \x20 first try        2026-01-31T12:00:00.25Z\n\
             \x20 last try         2026-01-31T12:00:01.5Z\n\
             event\n\
             \x20 id               e-1\n\
             \x20 source           /s\n\
             \x20 type             after:meal\n\
             \x20 time             2026-01-31T11:00:00Z\n\
             \x20 dataschema       https://x\n\
             data\n\
             {\"a\": 1.50}\n"
        );
    }

    #[test]
    fn data_are_shown_as_what_they_are() {
        let data = |event: &str| dead("no", event).data().unwrap();
        assert_eq!(data(""), "no data\n");
        assert_eq!(data(r#","data":"a string""#), "data\n\"a string\"\n");
        assert_eq!(
            data(r#","datacontenttype":"text/plain","data":"two\r\n\u001b[31mlines""#),
            "data\ntwo\n\\u{1b}[31mlines\n"
        );
        assert_eq!(data(r#","data_base64":"eyJhIjo=""#), "data\n{\"a\":\n");
        assert_eq!(data(r#","data_base64":"/wA=""#), "data, in base64\n/wA=\n");
    }

    #[test]
    fn nothing_that_controls_a_terminal_is_printed() {
        let hostile = "\x1b[2J\u{9b}1m\u{202e}\x07\r\n";
        let event = serde_json::to_string(hostile).unwrap();
        let event = format!(r#","datacontenttype":"text/plain","data":{event}"#);
        let letters = [dead(hostile, &event)];
        let raw = serde_json::to_string(hostile).unwrap();
        for shown in [
            table(&letters, None),
            letter(&letters[0]).unwrap(),
            json(&raw),
        ] {
            let controls = |c: char| (c.is_control() && c != '\n') || is_invisible(c);
            assert!(!shown.contains(controls), "{shown:?}");
        }
        let back: String = serde_json::from_str(&json(&raw)).unwrap();
        assert_eq!(back, hostile);
    }
}
