//! Workspaces for faults: a plugin with a server that can be broken, one beside it
//! that must not feel it, and figures that are printed.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backhaul_tests::books::{self, Book};
use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::load::Posted;
use backhaul_tests::oracle::{Verdict, ids_in_file, ids_in_record, judge};
use backhaul_tests::redis_server::RedisServer;

pub(crate) const STREAM: &str = "backhaul:events";

/// How many events a publish holds at most, where duplicates are counted: small,
/// so that a bound on them means something.
pub(crate) const BATCH: usize = 64;

/// Adds the plugin `redis-streams` for the server at `address`, with further
/// lines at the top of its manifest and under `[limits]`.
pub(crate) fn add_redis_plugin(workspace: &Workspace, address: &str, top: &str, limits: &str) {
    let manifest = format!(
        "{top}\n[grants]\ntcp = [\"{address}\"]\nenv = {{ REDIS_URL = \"redis://{address}\" }}\n\
         [retry]\nfirst_delay = \"20ms\"\nmax_delay = \"300ms\"\n\
         [limits]\nbatch = {BATCH}\n{limits}\n"
    );
    let component = components::plugin("redis-streams");
    workspace.add_plugin("redis-streams", &component, &manifest);
}

/// Adds a guest of the tests as the plugin `name`, which may write to
/// `out/NAME` as `/out`; with lines at the top of its manifest, entries of `env`
/// and lines under `[limits]`.
pub(crate) fn add_guest(
    workspace: &Workspace,
    (name, guest): (&str, &str),
    top: &str,
    env: &str,
    limits: &str,
) {
    let manifest = guest_manifest(name, top, env, limits);
    workspace.add_plugin(name, &components::test_guest(guest), &manifest);
}

/// The manifest of such a guest.
pub(crate) fn guest_manifest(name: &str, top: &str, env: &str, limits: &str) -> String {
    format!(
        "name = \"{name}\"\n{top}\n[grants]\n\
         files = [{{ host = \"out/{name}\", guest = \"/out\", write = true }}]\n\
         env = {{ {env} }}\n[limits]\n{limits}\n"
    )
}

/// The folder a guest sees as `/out`.
pub(crate) fn out(workspace: &Workspace, name: &str) -> PathBuf {
    workspace.path().join("out").join(name)
}

/// The ids of the events that a guest has published, in order.
pub(crate) fn published(workspace: &Workspace, name: &str) -> Vec<String> {
    ids_in_record(&out(workspace, name).join("published"))
}

/// The ids of the events that the `file` plugin has written, in order.
pub(crate) fn in_file(workspace: &Workspace) -> Vec<String> {
    ids_in_file(&workspace.path().join("data/out/events.ndjson"))
}

/// Judges what is in the stream.
pub(crate) fn judge_redis(posted: &Posted, redis: &RedisServer) -> Verdict {
    judge(posted, &redis.field(STREAM, "id"))
}

/// As `wait_for`, for so long as it takes to deliver a lot.
pub(crate) fn wait_long_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let patience = Duration::from_secs(120);
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Waits until nothing is pending anywhere, however much there is; the books
/// balance and are returned.
pub(crate) fn wait_until_settled(host: &Host) -> Vec<Book> {
    wait_long_for("nothing to be pending", || {
        let books = books::books(host);
        books.iter().all(|book| book.pending == 0).then_some(())
    });
    books::assert_books_balance(host)
}

/// The book of the backend `name`.
pub(crate) fn of<'a>(books: &'a [Book], name: &str) -> &'a Book {
    let found = books.iter().find(|book| book.name == name);
    found.unwrap_or_else(|| panic!("no backend {name}: {books:?}"))
}

/// Stops the host, which has delivered everything.
pub(crate) fn stop(host: Host) {
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

/// The files of the journal's events, oldest first.
pub(crate) fn segments(workspace: &Workspace) -> Vec<PathBuf> {
    let mut segments = Vec::new();
    let mut folders = vec![workspace.journal()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() && !path.ends_with("dead") {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "log") {
                segments.push(path);
            }
        }
    }
    segments.sort();
    assert!(!segments.is_empty(), "{:?}", workspace.journal());
    segments
}

/// Random numbers, for moments to choose; the same for the same seed.
pub(crate) struct Random(u64);

impl Random {
    /// With the seed `BACKHAUL_TEST_SEED`, or one of the moment. It is printed.
    pub(crate) fn new() -> Random {
        let seed = std::env::var("BACKHAUL_TEST_SEED").ok();
        let seed = seed.map_or_else(
            || {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                now.expect("a time after 1970").as_nanos() as u64
            },
            |text| text.parse().expect("a number"),
        );
        eprintln!("BACKHAUL_TEST_SEED={seed}");
        Random(seed)
    }

    /// From 0 up to, and not, `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        // SplitMix64: short, and good enough to choose moments with.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// Up to so many milliseconds.
    pub(crate) fn milliseconds(&mut self, end: u64) -> Duration {
        Duration::from_micros(self.below(end * 1000))
    }
}
