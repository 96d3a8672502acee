//! What a backend supports, and how what it published is read: its profile.
//!
//! Shipped backends have theirs here (`shipped`); others bring a file
//! `NAME.verify.toml` beside the component (`file`), which also changes a shipped
//! one's where it says something else.

mod file;
mod shipped;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub(crate) use file::ProfileError;
pub(super) use shipped::REFUSED_TYPE;

/// The variables of a manifest, by name.
pub(super) type Variables = BTreeMap<String, String>;

/// What a backend supports, and how what it published is read.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Profile {
    pub(super) reader: Option<ReaderKind>,
    /// Variables for the reader, in place of the manifest's.
    pub(super) settings: Variables,
    /// The type of the events.
    pub(super) event_type: Option<String>,
    pub(super) order: Order,
    pub(super) attributes: Attributes,
    /// Whether several instances may work side by side.
    pub(super) instances: bool,
    /// Whether it gets over a connection that broke.
    pub(super) reconnects: bool,
    /// Whether an event that is published again is there once all the same.
    pub(super) deduplicates: bool,
    /// Whether the server itself may give an event twice.
    pub(super) repeats: bool,
    /// The largest event the server takes, in bytes of data.
    pub(super) max_event: Option<u64>,
    /// How long after the last one an event may take to be readable.
    pub(super) patience: Duration,
    /// Variables with which the server refuses the login; empty if there are none.
    pub(super) wrong_credentials: Variables,
    /// An event that is refused for good.
    pub(super) refused: Option<Refused>,
}

/// In which order events arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// In the order they were published in.
    All,
    /// In that order among events of the same subject and `partitionkey`.
    Key,
    /// In any.
    None,
}

/// Which attributes arrive, besides the id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Attributes {
    /// Every one.
    All,
    /// Those that are named.
    Some(Vec<String>),
}

impl Attributes {
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Attributes::All => true,
            // Whose event it is tells the source.
            Attributes::Some(names) => name == "source" || names.iter().any(|own| own == name),
        }
    }
}

/// How an event is made that the backend, or its server, refuses for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Refused {
    pub(super) event_type: Option<String>,
    pub(super) content_type: Option<String>,
    /// Attributes it has.
    pub(super) attributes: Variables,
    /// Attributes it lacks and the others have.
    pub(super) lacks: Variables,
    /// Variables for the plugin in this case.
    pub(super) env: Variables,
}

/// What reads what arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ReaderKind {
    /// One of ours, by the name of its backend.
    Shipped(String),
    /// A program, with its arguments.
    Command(Vec<String>),
}

impl Default for Profile {
    fn default() -> Profile {
        Profile {
            reader: None,
            settings: Variables::new(),
            event_type: None,
            order: Order::All,
            attributes: Attributes::All,
            instances: true,
            reconnects: true,
            deduplicates: false,
            repeats: false,
            max_event: None,
            patience: Duration::from_secs(5),
            wrong_credentials: Variables::new(),
            refused: None,
        }
    }
}

impl Profile {
    /// The profile of the backend that calls itself `name` and has these variables:
    /// the shipped one, if it is ours, as changed by `given`, or else by the file
    /// beside the component, if there is one.
    ///
    /// # Errors
    ///
    /// Names file, line and key.
    pub(super) fn read(
        name: &str,
        env: &Variables,
        component: &Path,
        given: Option<&Path>,
    ) -> Result<(Profile, Option<PathBuf>), ProfileError> {
        let beside = component.with_extension("verify.toml");
        let file = match given {
            Some(given) => Some(given.to_owned()),
            None => beside.exists().then_some(beside),
        };
        let Some(file) = file else {
            return Ok((Profile::shipped(name, env), None));
        };
        let text = std::fs::read_to_string(&file);
        let text = text.map_err(|error| ProfileError::unreadable(&file, &error))?;
        let profile = Profile::parse(&file, &text, |reader| match reader {
            Some(ReaderKind::Shipped(reader)) => Profile::shipped(reader, env),
            Some(ReaderKind::Command(_)) => Profile::default(),
            None => Profile::shipped(name, env),
        })?;
        Ok((profile, Some(file)))
    }
}
