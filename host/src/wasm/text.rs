//! Text that comes from a guest, made fit to be shown, and bytes as text.

/// `text` cut off after `max` bytes, with control characters escaped, so that
/// a guest can neither flood a log line nor forge one.
pub(crate) fn printable(text: &str, max: usize) -> String {
    let mut shown = String::with_capacity(text.len().min(max));
    for c in text.chars() {
        if shown.len() >= max {
            shown.push_str("...");
            break;
        }
        match c {
            '\t' => shown.push(' '),
            c if c.is_control() || is_invisible(c) => shown.extend(c.escape_unicode()),
            c => shown.push(c),
        }
    }
    shown
}

/// Characters that change the direction or the look of what stands around them.
pub(crate) fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Bytes in hexadecimal digits, as `sha256sum` prints them.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The longest name of a plugin, in characters.
pub(crate) const MAX_NAME: usize = 64;

/// Whether `text` is a name of a plugin.
pub(crate) fn is_name(text: &str) -> bool {
    let valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    (1..=MAX_NAME).contains(&text.len()) && text.chars().all(valid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_could_forge_a_line_is_escaped_and_what_could_flood_is_cut() {
        assert_eq!(printable("plain, ünïcode", 100), "plain, ünïcode");
        assert_eq!(
            printable("a\nb\x1b[31m\u{202e}", 100),
            "a\\u{a}b\\u{1b}[31m\\u{202e}"
        );
        assert_eq!(
            printable(&"x".repeat(50), 10),
            format!("{}...", "x".repeat(10))
        );
        assert!(printable(&"\u{1}".repeat(1000), 100).len() < 120);
    }
}
