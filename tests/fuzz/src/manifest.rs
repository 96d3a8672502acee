//! A plugin's manifest: whatever stands in it, it is read or refused with one
//! line that gives no secret away.
//!
//! Input: what follows a secret in the text of a manifest.

use std::path::Path;
use std::time::Duration;

use backhaul::plugins::Manifest;

/// As generators make them: with characters that mean something to TOML.
const SECRET: &str = "c2VjcmV0/1fQ==";

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else {
        return;
    };
    // A device would be read for ever. That one is not to be granted is another
    // question than what is asked here.
    if text.contains("/dev") || text.contains("/proc") || text.contains("\\") {
        return;
    }
    // A fuzzer learns the secret, and puts it where anything may be shown.
    if text.contains(&SECRET[..8]) {
        return;
    }
    for text in [
        text.to_owned(),
        // Right behind the secret, and on lines of its own.
        format!("[grants.env]\nPLANTED = \"{SECRET}\"{text}"),
        format!("[grants]\nenv = {{ PLANTED = \"{SECRET}\", {text}"),
    ] {
        let planted = text.contains(SECRET);
        match Manifest::parse(Path::new("fuzz.toml"), &text) {
            Ok(manifest) => {
                let shown = format!("{manifest:?}");
                assert!(!planted || !shown.contains(&SECRET[..8]), "{shown}");
                check(&manifest);
            }
            Err(error) => {
                let shown = error.to_string();
                assert!(!planted || !shown.contains(&SECRET[..8]), "{shown}");
                assert!(shown.starts_with("fuzz.toml"), "{shown}");
                assert!(shown.len() < 2 * text.len() + 1024, "{} bytes", shown.len());
            }
        }
    }
}

fn check(manifest: &Manifest) {
    assert!(!manifest.events.is_empty());
    assert!((1..=10_000).contains(&manifest.batch));
    let limits = &manifest.limits;
    assert!((1 << 20..=4 << 30).contains(&limits.memory));
    let times = [
        limits.timeout,
        limits.start_timeout,
        limits.compile_timeout,
        limits.cpu,
    ];
    let allowed = Duration::from_millis(1)..=Duration::from_secs(3600);
    assert!(times.iter().all(|time| allowed.contains(time)));
    assert!((1..=64).contains(&limits.instances));
    assert!((16..=4096).contains(&limits.handles));
    assert!((1..=10_000).contains(&limits.log));
    for (at, folder) in manifest.grants.files.iter().enumerate() {
        assert!(folder.guest.starts_with('/'));
        let same = |other: &&backhaul::wasm::FileGrant| {
            other.guest.trim_end_matches('/') == folder.guest.trim_end_matches('/')
        };
        assert!(!manifest.grants.files[..at].iter().any(|other| same(&other)));
    }
    if let Some(name) = &manifest.name {
        assert!((1..=64).contains(&name.len()) && name.is_ascii());
    }
}
