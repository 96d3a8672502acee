//! Text that comes from a plugin and is shown to people: what it may look like.

use std::fmt;
use std::sync::{Mutex, Once, PoisonError};

use tracing::field::{Field, Visit};
use tracing::span;
use tracing::{Event, Level, Metadata, Subscriber};

/// The longest field of a log line, in bytes: a guest's line of 4,096 with the
/// mark that it was cut, or one escape.
const MAX_LOGGED: usize = 4096 + 16;

/// What is wrong with `text` as something shown, if it is.
pub(crate) fn problem(text: &str, max: usize) -> Option<String> {
    if text.len() > max {
        return Some(format!("{} bytes, more than {max}", text.len()));
    }
    // Bidirectional and invisible characters can forge as well.
    let hidden = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    let found = text.chars().find(|c| c.is_control() || hidden(*c))?;
    Some(format!("it holds U+{:04X}", u32::from(found)))
}

/// Panics if `text` is not fit to be shown.
#[track_caller]
pub(crate) fn check(what: &str, text: &str, max: usize) {
    if let Some(problem) = problem(text, max) {
        panic!("{what}: {problem}: {text:?}");
    }
}

static UNFIT: Mutex<Option<String>> = Mutex::new(None);

/// From now on looks at every log line.
pub(crate) fn watch_log() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Taken if a test has set another.
        drop(tracing::subscriber::set_global_default(Watch));
    });
}

/// Panics if a log line was not fit to be shown. A log line's own place may
/// not: it could be on a thread, or under a lock, that takes it amiss.
pub(crate) fn check_log() {
    let unfit = UNFIT.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(unfit) = unfit {
        panic!("a log line: {unfit}");
    }
}

struct Watch;

impl Subscriber for Watch {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() <= Level::INFO && metadata.target().starts_with("backhaul")
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Fields);
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

struct Fields;

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_str(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if let Some(problem) = problem(value, MAX_LOGGED) {
            let unfit = format!("{field}: {problem}: {value:?}");
            *UNFIT.lock().unwrap_or_else(PoisonError::into_inner) = Some(unfit);
        }
    }
}
