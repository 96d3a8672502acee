//! Reports a thousand failures whose texts are the same 8 MiB of its memory:
//! 8 GB for a host that copies what it is told to.

use backhaul_guest::Failure;

test_guests::export_publish!("overlapping-errors", |_| {
    let text: &'static str = "x".repeat(8 << 20).leak();
    let failure = |index| Failure::retryable(index, alias(text));
    Err((0..1000).map(failure).collect())
});

/// A string that believes to own `text`.
fn alias(text: &'static str) -> String {
    let length = text.len();
    // SAFETY: the memory was allocated with this length as its capacity, and
    // lives as long as the instance. The strings are handed to the host, which
    // gives up on them; nothing drops or changes them.
    unsafe { String::from_raw_parts(text.as_ptr().cast_mut(), length, length) }
}
