use std::time::Duration;

use super::*;

fn parse(text: &str) -> Result<Manifest, String> {
    Manifest::parse(Path::new("plugins/redis.toml"), text).map_err(|error| error.to_string())
}

#[test]
fn no_manifest_means_every_event_and_no_grant() {
    let manifest = Manifest::read(Path::new("/nonexistent/plugin.toml")).unwrap();
    assert_eq!(manifest.events, [Pattern::any()]);
    assert!(manifest.grants.tcp.is_empty() && manifest.grants.files.is_empty());
    assert!(manifest.grants.env.is_empty());
    assert_eq!(manifest.limits, Limits::default());
    assert_eq!(manifest.batch, 256);
    assert_eq!((manifest.ordered, manifest.from), (true, StartAt::Now));
    assert_eq!(manifest.retry, RetryPolicy::default());
}

#[test]
fn everything_a_manifest_can_say() {
    let secret = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(secret.path(), "hunter2\n").unwrap();
    let manifest = parse(&format!(
        r#"
        name = "redis-eu"
        sha256 = "e0e1e2e3e4e5e6e7e8e9eaebecedeeefF0F1F2F3F4F5F6F7F8F9FAFBFCFDFEFF"
        events = ["after:*", "user.created"]
        ordered = false
        from = "oldest"
        [grants]
        tcp = ["redis.internal:6379", "[::1]:6379"]
        udp = ["statsd.internal:8125"]
        files = [{{ host = "data/out", guest = "/out", write = true }}, {{ host = "/", guest = "/x" }}]
        env = {{ REDIS_URL = "redis://redis.internal", REDIS_PASSWORD = {{ file = "{}" }}, HOST_PATH = {{ env = "PATH" }} }}
        [limits]
        memory = "16MiB"
        timeout = "250ms"
        start_timeout = "1m"
        cpu = "50ms"
        compile_timeout = "2min"
        instances = 4
        handles = 100
        log = 1000
        batch = 64
        "#,
        secret.path().display()
    ))
    .unwrap();
    assert_eq!(manifest.name.as_deref(), Some("redis-eu"));
    assert_eq!(manifest.events.len(), 2);
    assert_eq!((manifest.ordered, manifest.from), (false, StartAt::Oldest));
    assert_eq!(manifest.grants.tcp[1].to_string(), "[::1]:6379");
    assert_eq!(manifest.grants.udp[0].to_string(), "statsd.internal:8125");
    assert!(manifest.grants.files[0].write && !manifest.grants.files[1].write);
    assert_eq!(
        manifest.grants.env,
        [
            EnvGrant::secret("HOST_PATH", std::env::var("PATH").unwrap()),
            EnvGrant::secret("REDIS_PASSWORD", "hunter2"),
            EnvGrant::plain("REDIS_URL", "redis://redis.internal"),
        ]
    );
    let digest: Vec<u8> = (0xe0..=0xff).collect();
    assert_eq!(manifest.sha256.unwrap()[..], digest);
    let expected = Limits {
        memory: 16 << 20,
        timeout: Duration::from_millis(250),
        start_timeout: Duration::from_secs(60),
        cpu: Duration::from_millis(50),
        compile_timeout: Duration::from_secs(120),
        instances: 4,
        handles: 100,
        log: 1000,
    };
    assert_eq!((manifest.limits, manifest.batch), (expected, 64));
}

#[test]
fn what_is_wrong_is_named_with_file_line_and_key() {
    let cases = [
        ("\nevens = [\"*\"]", "line 2", "unknown field `evens`"),
        ("[grants]\nsctp = []", "line 2", "unknown field `sctp`"),
        ("events = []", "line 1", "`events`: names no event type"),
        ("events = [\"\"]", "line 1", "is empty"),
        ("ordered = 1", "line 1", "`ordered`: is not true or false"),
        (
            "from = \"yesterday\"",
            "line 1",
            "`from`: is neither \"now\" nor \"oldest\"",
        ),
        ("events = \"after:*\"", "line 1", "`events`"),
        (
            "[limits]\nmemory = \"64 parsecs\"",
            "line 2",
            "`memory`: is not a size",
        ),
        ("[limits]\nmemory = 64", "line 2", "`memory`: is not a size"),
        ("[limits]\nmemory = \"1KiB\"", "line 2", "1MiB to 4GiB"),
        (
            "[limits]\n\ntimeout = \"soon\"",
            "line 3",
            "`timeout`: is not a time",
        ),
        (
            "[limits]\ninstances = 0",
            "line 2",
            "`instances`: is not a whole number from 1 to 64",
        ),
        (
            "[limits]\nstart_timeout = \"2h\"",
            "line 2",
            "`start_timeout`: is not a time from 1ms to 1h",
        ),
        (
            "[limits]\ncpu = \"1ms\"",
            "line 2",
            "`cpu`: is not a time from 10ms to 1h",
        ),
        (
            "[limits]\ncompile_timeout = 60",
            "line 2",
            "`compile_timeout`: is not a time from 100ms to 1h",
        ),
        (
            "[limits]\nhandles = 15",
            "line 2",
            "`handles`: is not a whole number from 16 to 4096",
        ),
        (
            "[limits]\nlog = 10001",
            "line 2",
            "`log`: is not a whole number from 1 to 10000",
        ),
        (
            "sha256 = \"e0e1\"",
            "line 1",
            "`sha256`: is not 64 hexadecimal digits",
        ),
        (
            "sha256 = \"zze1e2e3e4e5e6e7e8e9eaebecedeeeff0f1f2f3f4f5f6f7f8f9fafbfcfdfeff\"",
            "line 1",
            "`sha256`: is not 64 hexadecimal digits",
        ),
        (
            "[grants.env]\nA = { env = \"BACKHAUL_NO_SUCH\" }",
            "line 2",
            "`A`: the host's environment has no variable \"BACKHAUL_NO_SUCH\"",
        ),
        (
            "[grants.env]\nA = { env = \"A=B\" }",
            "line 2",
            "`A`: the host's environment has no variable \"A=B\"",
        ),
        (
            "[grants.env]\nA = { env = \"B\", file = \"C\" }",
            "line 2",
            "`A`: is neither a text nor { file = ",
        ),
        (
            "[limits]\nbatch = -1",
            "line 2",
            "`batch`: is not a whole number",
        ),
        ("[grants]\ntcp = [\"redis\"]", "line 2", "is not HOST:PORT"),
        (
            "[grants]\ntcp = [\"rediss://redis:1\"]",
            "line 2",
            "with TLS, which is for TCP, it is \"tls://",
        ),
        (
            "[grants]\nudp = [\"tls://redis:1\"]",
            "line 2",
            "has TLS, which is for TCP alone",
        ),
        (
            "[grants]\nfiles = [{ host = \"/nonexistent\", guest = \"/x\" }]",
            "line 2",
            "`host`: /nonexistent is not a folder, or does not exist",
        ),
        (
            "[grants]\nfiles = [{ host = \"/\", guest = \"in\" }]",
            "line 2",
            "`guest`: is not a path from `/` on",
        ),
        (
            "[grants]\nfiles = [{ host = \"x\" }]",
            "line 2",
            "missing field `guest`",
        ),
        (
            "[grants.env]\nA = \"1\"\nB = { file = \"/nonexistent/secret\" }",
            "line 3",
            "`B`: the file /nonexistent/secret cannot be read",
        ),
        (
            "[grants.env]\n\"A=B\" = \"1\"",
            "line 2",
            "may not be empty or hold `=`",
        ),
        (
            "name = \"Not A Name\"",
            "line 1",
            "`name`: a name has 1 to 64",
        ),
        ("events = [", "line 1", ""),
    ];
    for (text, line, problem) in cases {
        let error = parse(text).unwrap_err();
        assert!(
            error.starts_with(&format!("plugins/redis.toml, {line}: ")),
            "{text}: {error}"
        );
        assert!(error.contains(problem), "{text}: {error}");
    }
}

#[test]
fn a_secret_is_in_no_message() {
    for text in [
        "[grants.env]\nPASSWORD = [\"hunter2\"]",
        "[grants.env]\nPASSWORD = \"hunter2\\u0000\"",
        "[grants.env]\nPASSWORD = { text = \"hunter2\" }",
    ] {
        let error = parse(text).unwrap_err();
        assert!(
            !error.contains("hunter2") && error.contains("PASSWORD"),
            "{error}"
        );
    }
    let manifest = parse("[grants.env]\nPASSWORD = \"hunter2\"").unwrap();
    assert!(!format!("{manifest:?}").contains("hunter2"));
}

#[test]
fn a_manifest_that_is_not_text_or_too_large_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), b"events = [\"\xff\"]").unwrap();
    assert!(
        Manifest::read(file.path())
            .unwrap_err()
            .to_string()
            .contains("UTF-8")
    );
    std::fs::write(file.path(), vec![b'\n'; MAX_FILE as usize + 1]).unwrap();
    assert!(
        Manifest::read(file.path())
            .unwrap_err()
            .to_string()
            .contains("more than the 65536 bytes")
    );
}
