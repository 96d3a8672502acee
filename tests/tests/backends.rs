//! Where every event is: listed over HTTP and at the terminal, and what waits for
//! a plugin that will not come back can be let go.

use std::fs;
use std::path::PathBuf;
use std::process::Output;

use backhaul_tests::books::{Book, book, books, journal, wait_until_settled};
use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::oracle::ids_in_record;
use backhaul_tests::wait_for;

/// A workspace with the plugin `moody`, which takes no event that says `poison`
/// until it is healed, and the `file` plugin.
fn workspace() -> Workspace {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    add_moody(&workspace);
    workspace
}

fn add_moody(workspace: &Workspace) {
    let manifest = "name = \"moody\"\n[grants]\n\
        files = [{ host = \"out\", guest = \"/out\", write = true }]\nenv = { HOW = \"stop\" }\n\
        [retry]\nfirst_delay = \"5ms\"\nmax_delay = \"20ms\"\n";
    workspace.add_plugin("moody", &components::test_guest("refuse_poison"), manifest);
}

fn remove_moody(workspace: &Workspace, host: &Host) {
    fs::remove_file(workspace.path().join("plugins/moody.wasm")).expect("the plugin");
    wait_for("the plugin to be gone from the folder", || {
        host.plugin("moody").is_none().then_some(())
    });
}

/// Waits until it is not there and has ended.
fn wait_for_absence(host: &Host) -> Book {
    wait_for("the backend to be absent", || {
        Some(book(host, "moody")).filter(|book| !book.present)
    })
}

fn out(workspace: &Workspace) -> PathBuf {
    workspace.path().join("out")
}

fn published(workspace: &Workspace) -> Vec<String> {
    ids_in_record(&out(workspace).join("published"))
}

fn post(host: &Host, id: &str, data: &str) {
    let answer = host.post_event(id, "after:signup", data);
    assert_eq!(answer.status, 202, "{answer:?}");
}

/// Posts poison, and waits until it has shut `moody`.
fn poison(host: &Host, id: &str) {
    post(host, id, "\"poison\"");
    wait_for("the breaker to open", || {
        (book(host, "moody").breaker == "open").then_some(())
    });
}

fn out_of(output: &Output) -> String {
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout.clone()).expect("text")
}

fn stop(host: Host) {
    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn a_failing_backend_is_named_and_does_not_make_the_host_unready() {
    let workspace = workspace();
    let host = workspace.serve();
    let states = || {
        let ready = host.get("/health/ready");
        assert_eq!(ready.status, 200, "{ready:?}");
        assert_eq!(ready.body["status"], "ready");
        ready.body["backends"].clone()
    };
    assert_eq!(states(), serde_json::json!({ "file": "ok", "moody": "ok" }));
    poison(&host, "1");
    assert_eq!(
        states(),
        serde_json::json!({ "file": "ok", "moody": "failing" })
    );
    let failing = book(&host, "moody");
    assert_eq!(failing.raw["state"], "failing", "{}", failing.raw);
    assert!(failing.raw["failing_since"].is_string(), "{}", failing.raw);
    assert_eq!(failing.raw["last_error"], "poison", "{}", failing.raw);
    let shown = out_of(&workspace.run(&["backends", "--to", &host.url()]));
    assert!(shown.contains("  takes nothing since 2"), "{shown}");

    fs::write(out(&workspace).join("healed"), "").expect("a file");
    let books = wait_until_settled(&host);
    assert!(books.iter().all(|book| book.delivered == 1), "{books:?}");
    assert!(books[1].retries >= 3, "{:?}", books[1].raw);
    assert_eq!(states(), serde_json::json!({ "file": "ok", "moody": "ok" }));
    stop(host);
}

#[test]
fn every_backend_is_listed_with_its_books_over_restarts_and_without_its_plugin() {
    let workspace = workspace();
    let host = workspace.serve_with(&["--drain", "100ms"]);
    post(&host, "1", "1");
    wait_until_settled(&host);
    poison(&host, "2");
    let names: Vec<String> = books(&host).into_iter().map(|book| book.name).collect();
    assert_eq!(names, ["file", "moody"], "ordered by name");
    let listed = book(&host, "file").raw;
    assert_eq!(listed["latency"]["count"], 2, "{listed}");
    let (p50, p99) = (&listed["latency"]["p50"], &listed["latency"]["p99"]);
    assert!(p50.as_f64() > Some(0.0) && p50.as_f64() <= p99.as_f64());

    remove_moody(&workspace, &host);
    let absent = wait_for_absence(&host);
    assert_eq!(
        (absent.accepted, absent.delivered, absent.pending),
        (2, 1, 1)
    );
    assert_eq!(absent.raw["state"], "absent");
    // It is not one of those that have to be ready.
    let ready = host.get("/health/ready").body;
    assert_eq!(ready["backends"], serde_json::json!({ "file": "ok" }));
    stop(host);

    let host = workspace.serve();
    let again = book(&host, "moody");
    assert_eq!((again.accepted, again.delivered, again.pending), (2, 1, 1));
    assert_eq!(book(&host, "file").delivered, 2);
    let state = journal(&host);
    assert_eq!(state["state"], "ok", "{state}");

    let shown = out_of(&workspace.run(&["backends", "--to", &host.url()]));
    let lines: Vec<Vec<&str>> = shown
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let head = "NAME STATE ACCEPTED DELIVERED PENDING DEAD DROPPED RETRIES P99";
    assert_eq!(lines[0], head.split(' ').collect::<Vec<_>>());
    assert_eq!(lines[1][..7], ["file", "ok", "2", "2", "0", "0", "0"]);
    assert_eq!(lines[2][..7], ["moody", "absent", "2", "1", "1", "0", "0"]);
    assert_eq!(lines[2].last(), Some(&"-"), "nothing since the start");
    let folder = workspace.journal();
    let (first, last) = ("journal: ok, ", format!(" MiB, in {}", folder.display()));
    let line = shown.lines().last().expect("the journal's line");
    assert!(line.starts_with(first) && line.ends_with(&last), "{shown}");

    let json = out_of(&workspace.run(&["backends", "--json", "--to", &host.url()]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json, host.get("/api/backends").body);
    stop(host);
}

#[test]
fn what_waits_for_a_backend_that_is_gone_is_dropped_when_it_is_forgotten() {
    let workspace = workspace();
    let host = workspace.serve_with(&["--drain", "100ms"]);
    poison(&host, "1");
    post(&host, "2", "2");
    for (name, status, detail) in [
        ("moody", 409, "take its plugin out of the plugins folder"),
        ("nobody", 404, "no backend is called \"nobody\""),
    ] {
        let answer = host.delete(&format!("/api/backends/{name}"));
        let said = answer.body["detail"].as_str().unwrap_or_default();
        assert!(
            answer.status == status && said.contains(detail),
            "{answer:?}"
        );
        let output = workspace.run(&["backends", "forget", name, "--to", &host.url()]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(detail), "{said}");
    }
    assert_eq!(book(&host, "moody").pending, 2, "it was not touched");

    remove_moody(&workspace, &host);
    wait_for_absence(&host);
    let output = workspace.run(&["backends", "forget", "moody", "--to", &host.url()]);
    assert_eq!(
        out_of(&output),
        "moody: 2 events that waited for it were dropped\n"
    );
    let again = host.delete("/api/backends/moody");
    assert_eq!(
        again.body,
        serde_json::json!({ "forgotten": 0 }),
        "{again:?}"
    );
    // Nothing comes together for it any more.
    post(&host, "3", "3");
    let books = wait_until_settled(&host);
    let forgotten = |book: &Book| (book.accepted, book.dropped["forgotten"], book.pending);
    assert_eq!(forgotten(&books[1]), (2, 2, 0));
    stop(host);

    // If it comes back, it begins with what comes from then on.
    let host = workspace.serve();
    assert_eq!(forgotten(&book(&host, "moody")), (2, 2, 0));
    add_moody(&workspace);
    wait_for("the plugin to be back", || host.plugin("moody"));
    post(&host, "4", "4");
    let books = wait_until_settled(&host);
    assert_eq!(forgotten(&books[1]), (3, 2, 0));
    assert_eq!(published(&workspace), ["4"]);
    stop(host);
}

#[test]
fn with_the_journal_off_the_plugins_that_are_there_are_listed() {
    let workspace = workspace();
    let host = workspace.serve_with(&["--journal", "off", "--drain", "100ms"]);
    post(&host, "1", "1");
    let books = wait_until_settled(&host);
    let names: Vec<&str> = books.iter().map(|book| book.name.as_str()).collect();
    assert_eq!(names, ["file", "moody"]);
    assert!(journal(&host).is_null());
    assert_eq!(books[0].raw["dead_letters"], 0);
    let shown = out_of(&workspace.run(&["backends", "--to", &host.url()]));
    assert!(shown.contains("journal: off"), "{shown}");
    assert_eq!(host.delete("/api/backends/moody").status, 409);

    remove_moody(&workspace, &host);
    wait_for("it to be gone from the books", || {
        let listed = host.get("/api/backends").body["backends"].clone();
        (listed.as_array().map(Vec::len) == Some(1)).then_some(())
    });
    assert_eq!(host.delete("/api/backends/moody").status, 404);
    stop(host);
}
