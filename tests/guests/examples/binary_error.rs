//! Reports a failure whose text is not UTF-8.

use backhaul_guest::Failure;

test_guests::export_publish!("binary-error", |_| {
    // SAFETY: not sound as Rust has it, which is the point; the text goes to
    // the host as it is and nothing here looks at it.
    let text = unsafe { String::from_utf8_unchecked(vec![0xff, 0xfe, 0x00]) };
    Err(vec![Failure::retryable(0, text)])
});
