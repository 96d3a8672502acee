//! Each backend has its own position: a slow one holds up no other, one that is
//! added later begins where it says, one that comes back goes on where it was.

use std::fs;

use backhaul_tests::books::{assert_books_balance, book};
use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::load::{Load, LoadOptions, Posted};
use backhaul_tests::oracle::judge;
use backhaul_tests::wait_for;

use crate::scene::{
    add_guest, guest_manifest, of, out, published, stop, wait_long_for, wait_until_settled,
};

/// The ids of `count` events posted with [`Host::post_batch`].
fn batch(prefix: &str, count: usize) -> Posted {
    Posted::accepted((0..count).map(|n| format!("{prefix}-{n}")))
}

fn post(host: &Host, prefix: &str, count: usize) -> Posted {
    assert_eq!(host.post_batch(prefix, count).status, 202);
    batch(prefix, count)
}

fn wait_for_plugin(host: &Host, name: &str, present: bool) {
    wait_for(&format!("plugin {name} present: {present}"), || {
        (host.plugin(name).is_some() == present).then_some(())
    });
}

#[test]
fn a_slow_backend_holds_up_no_other_and_both_get_everything() {
    let workspace = Workspace::new();
    add_guest(
        &workspace,
        ("slow", "note_life"),
        "",
        "PAUSE = \"40\"",
        "batch = 40",
    );
    add_guest(&workspace, ("fast", "note_life"), "", "", "");
    let host = workspace.serve();
    let load = Load::start(&host, LoadOptions::default());
    wait_long_for("the slow one to be behind", || {
        (book(&host, "slow").pending > 1000).then_some(())
    });
    let posted = load.stop();
    wait_for("the fast one to have all", || {
        (book(&host, "fast").pending == 0).then_some(())
    });
    let behind = book(&host, "slow").pending;
    assert!(behind > 100, "the slow one keeps up: {behind}");
    assert_books_balance(&host);
    // Each goes on where it was, and not where the other is.
    host.kill();
    let host = workspace.serve();
    let books = wait_until_settled(&host);
    for (name, most) in [("slow", 40), ("fast", 0)] {
        let verdict = judge(&posted, &published(&workspace, name));
        eprintln!("{name}: {verdict}");
        verdict.assert_nothing_lost();
        verdict.assert_in_order();
        verdict.assert_duplicates_at_most(most, "the batch under way when it was killed");
        of(&books, name).assert_agrees(&posted, &verdict);
    }
    stop(host);
}

#[test]
fn a_backend_that_is_added_later_begins_now_or_with_the_oldest_event_kept() {
    let workspace = Workspace::new();
    add_guest(&workspace, ("first", "note_life"), "", "", "");
    let host = workspace.serve();
    let early = post(&host, "early", 300);
    wait_until_settled(&host);
    let oldest = "from = \"oldest\"";
    for (name, top) in [("latecomer", ""), ("historian", oldest)] {
        add_guest(&workspace, (name, "note_life"), top, "", "");
        wait_for_plugin(&host, name, true);
    }
    let late = post(&host, "late", 200);
    let books = wait_until_settled(&host);
    let mut all = early;
    all.merge(late.clone());
    for (name, posted) in [("first", &all), ("historian", &all), ("latecomer", &late)] {
        let verdict = judge(posted, &published(&workspace, name));
        verdict.assert_nothing_lost();
        verdict.assert_in_order();
        verdict.assert_duplicates_at_most(0, "nothing went wrong");
        of(&books, name).assert_agrees(posted, &verdict);
    }
    stop(host);

    // Both are known now: neither begins again.
    let host = workspace.serve();
    wait_until_settled(&host);
    for name in ["first", "historian", "latecomer"] {
        let posted = if name == "latecomer" { &late } else { &all };
        let verdict = judge(posted, &published(&workspace, name));
        verdict.assert_duplicates_at_most(0, "a start is no reason");
    }
    stop(host);
}

#[test]
fn a_backend_from_the_oldest_event_gets_only_the_types_it_asks_for() {
    let workspace = Workspace::new();
    add_guest(&workspace, ("first", "note_life"), "", "", "");
    let host = workspace.serve();
    assert_eq!(host.post_event("s-0", "after:signup", "1").status, 202);
    assert_eq!(host.post_event("l-0", "after:login", "1").status, 202);
    wait_until_settled(&host);
    let top = "from = \"oldest\"\nevents = [\"after:login\"]";
    add_guest(&workspace, ("logins", "note_life"), top, "", "");
    wait_for("the login", || {
        (!published(&workspace, "logins").is_empty()).then_some(())
    });
    let books = wait_until_settled(&host);
    assert_eq!(published(&workspace, "logins"), ["l-0"]);
    assert_eq!(of(&books, "logins").accepted, 1);
    stop(host);
}

#[test]
fn a_removed_backend_that_comes_back_goes_on_where_it_was() {
    let workspace = Workspace::new();
    // Fails until it is let: its events are pending when it is removed.
    let env = "HOW = \"stop\"";
    add_guest(&workspace, ("moody", "refuse_poison"), "", env, "");
    add_guest(&workspace, ("steady", "note_life"), "", "", "");
    let arguments = ["--drain", "300ms"];
    let host = workspace.serve_with(&arguments);
    let food = post(&host, "a", 20);
    wait_for("the food to be eaten", || {
        (published(&workspace, "moody").len() == 20).then_some(())
    });
    let poison = [("content-type", "application/cloudevents-batch+json")];
    let events: Vec<String> = (0..30)
        .map(|n| {
            format!(
                r#"{{"specversion":"1.0","id":"b-{n}","source":"/t","type":"t","data":"poison"}}"#
            )
        })
        .collect();
    let answer = host.post(&poison, format!("[{}]", events.join(",")));
    assert_eq!(answer.status, 202, "{answer:?}");

    let file = workspace.path().join("plugins/moody.wasm");
    fs::remove_file(&file).expect("the plugin");
    wait_for_plugin(&host, "moody", false);
    let gone = wait_for("the removed one to be absent from the books", || {
        Some(book(&host, "moody")).filter(|book| !book.present)
    });
    assert_eq!((gone.accepted, gone.delivered, gone.pending), (50, 20, 30));
    // Not for it: it is not there.
    let meanwhile = post(&host, "c", 10);
    wait_for("the other one to have all", || {
        (book(&host, "steady").pending == 0).then_some(())
    });
    assert_books_balance(&host);
    // Neither is a restart in between a reason to forget.
    host.kill();
    let host = workspace.serve_with(&arguments);
    assert!(!book(&host, "moody").present);
    assert_eq!(book(&host, "moody").pending, 30);

    fs::write(out(&workspace, "moody").join("healed"), "").expect("a file");
    let manifest = guest_manifest("moody", "", env, "");
    fs::write(workspace.path().join("plugins/moody.toml"), manifest).expect("the manifest");
    fs::copy(components::test_guest("refuse_poison"), &file).expect("the plugin");
    wait_for_plugin(&host, "moody", true);
    let after = post(&host, "d", 10);
    let books = wait_until_settled(&host);

    let mut all = food;
    all.merge(batch("b", 30));
    all.merge(after);
    let verdict = judge(&all, &published(&workspace, "moody"));
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    verdict.assert_duplicates_at_most(0, "it published nothing of what was pending");
    of(&books, "moody").assert_agrees(&all, &verdict);
    all.merge(meanwhile);
    let verdict = judge(&all, &published(&workspace, "steady"));
    verdict.assert_nothing_lost();
    stop(host);
}

#[test]
fn a_backend_that_is_forgotten_has_its_events_dropped_and_counted() {
    let workspace = Workspace::new();
    add_guest(
        &workspace,
        ("moody", "refuse_poison"),
        "",
        "HOW = \"stop\"",
        "",
    );
    add_guest(&workspace, ("steady", "note_life"), "", "", "");
    let host = workspace.serve_with(&["--drain", "300ms"]);
    assert_eq!(host.post_event("1", "t", "\"poison\"").status, 202);
    let present = host.delete("/api/backends/moody");
    assert_eq!(present.status, 409, "it is in use: {present:?}");
    fs::remove_file(workspace.path().join("plugins/moody.wasm")).expect("the plugin");
    wait_for_plugin(&host, "moody", false);
    wait_for("the removed one to be absent from the books", || {
        (!book(&host, "moody").present).then_some(())
    });
    let output = workspace.run(&["backends", "forget", "moody", "--to", &host.url()]);
    assert!(output.status.success(), "{output:?}");
    let books = wait_until_settled(&host);
    if let Some(book) = books.iter().find(|book| book.name == "moody") {
        assert_eq!((book.pending, book.dropped["forgotten"]), (0, 1));
    }
    stop(host);
}
