//! Grants, patterns, and the parts of an event: what is accepted keeps its
//! promises, and means the same when it is written and read again.
//!
//! Input: texts, one a line.

use std::fmt::{Debug, Display};
use std::str::FromStr;

use backhaul::wasm::{HttpGrant, SocketGrant};
use backhaul::{Event, MAX_ATTRIBUTES, Pattern};

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    let texts: Vec<&str> = text.split('\n').collect();
    for text in &texts {
        grant::<SocketGrant>(text);
        grant::<HttpGrant>(text);
        for other in &texts {
            pattern(text, other);
        }
    }
    event(&texts);
}

fn grant<T>(text: &str)
where
    T: FromStr<Err: Display> + Display + Debug + PartialEq,
{
    let grant = match text.parse::<T>() {
        Ok(grant) => grant,
        Err(error) => {
            let shown = error.to_string();
            return assert!(shown.len() < 8 * text.len() + 512, "{shown}");
        }
    };
    let written = grant.to_string();
    let again: T = written.parse().unwrap_or_else(|error| {
        panic!("{text:?} is a grant, but not as it is written, {written:?}: {error}")
    });
    assert_eq!(again, grant, "{text:?} as {written:?}");
    assert!(
        written.bytes().all(|byte| byte.is_ascii_graphic()),
        "{written:?}"
    );
}

fn pattern(text: &str, event_type: &str) {
    let Ok(pattern) = text.parse::<Pattern>() else {
        assert!(
            text.is_empty() || text.len() > 1024 || text.chars().any(char::is_control),
            "{text:?} should be a pattern"
        );
        return;
    };
    assert_eq!(pattern.as_str(), text);
    // The slow way takes time and room of both lengths together.
    if text.len() * event_type.len() < 100_000 {
        assert_eq!(
            pattern.matches(event_type),
            matches_slowly(text, event_type),
            "{text:?} over {event_type:?}"
        );
    }
    assert!(text.contains('*') || pattern.matches(event_type) == (text == event_type));
}

/// What a pattern means, without a thought to speed: `reached[n]` says whether
/// the pattern so far can stand for the first `n` bytes.
fn matches_slowly(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for byte in pattern.bytes() {
        let mut next = vec![false; text.len() + 1];
        for at in 0..=text.len() {
            next[at] = match byte {
                b'*' => reached[at] || at > 0 && next[at - 1],
                byte => at > 0 && reached[at - 1] && text[at - 1] == byte,
            };
        }
        reached = next;
    }
    reached[text.len()]
}

/// The first lines are id, source, type, subject and content type; then come
/// names of attributes and their values in turn.
fn event(texts: &[&str]) {
    let part = |at: usize| texts.get(at).copied().unwrap_or("x").to_owned();
    let mut builder = Event::builder(part(2))
        .id(part(0))
        .source(part(1))
        .subject(part(3))
        .content_type(part(4));
    for pair in texts.get(5..).unwrap_or_default().chunks_exact(2) {
        builder = builder.attribute(pair[0], pair[1]);
    }
    if let Ok(event) = builder.build() {
        check_event(&event);
    }
}

/// Panics if what every backend relies on does not hold.
pub(crate) fn check_event(event: &Event) {
    let attributes = event.attributes();
    let required = [event.id(), event.source(), event.event_type()];
    let optional = [event.subject(), event.content_type()];
    for text in required.into_iter().chain(optional.into_iter().flatten()) {
        assert!(!text.is_empty(), "{event:?}");
        assert!(text.chars().all(is_allowed), "{event:?}");
    }
    assert!(attributes.len() <= MAX_ATTRIBUTES);
    for (at, (name, value)) in attributes.iter().enumerate() {
        let letters = |c: char| matches!(c, 'a'..='z' | '0'..='9');
        assert!(!name.is_empty() && name.chars().all(letters), "{event:?}");
        assert!(value.chars().all(is_allowed), "{event:?}");
        assert!(!matches!(
            name.as_str(),
            "specversion"
                | "id"
                | "source"
                | "type"
                | "subject"
                | "time"
                | "datacontenttype"
                | "data"
        ));
        assert!(attributes[..at].iter().all(|(earlier, _)| earlier != name));
    }
}

/// What CloudEvents calls a String: no control characters, no non-characters.
fn is_allowed(c: char) -> bool {
    let number = u32::from(c);
    let control = number <= 0x1f || (0x7f..=0x9f).contains(&number);
    let no_character =
        (0xfdd0..=0xfdef).contains(&number) || matches!(number & 0xffff, 0xfffe | 0xffff);
    !control && !no_character
}
