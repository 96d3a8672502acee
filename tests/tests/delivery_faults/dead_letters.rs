//! An event that a plugin cannot bear becomes a dead letter and the others go on;
//! an operator lists, reads, tries again and drops it.

use std::fs;

use backhaul_tests::books::{assert_books_balance, book};
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::load::Posted;
use backhaul_tests::oracle::judge;
use serde_json::Value;

use crate::scene::{
    add_guest, guest_manifest, of, out, published, stop, wait_long_for, wait_until_settled,
};

/// A workspace with the guest that cannot bear poison, which has three tries.
fn workspace(how: &str) -> Workspace {
    let workspace = Workspace::new();
    let env = format!("HOW = \"{how}\"");
    add_guest(&workspace, ("picky", "refuse_poison"), "", &env, "");
    let manifest = guest_manifest("picky", "", &env, "batch = 16").replace(
        "[limits]",
        "[retry]\nattempts = 3\nfirst_delay = \"10ms\"\nmax_delay = \"50ms\"\n[limits]",
    );
    fs::write(workspace.path().join("plugins/picky.toml"), manifest).expect("the manifest");
    workspace
}

/// Posts 50 events, and among them some with poison: 10, 11 and 40.
fn post(host: &Host) -> Posted {
    let event = |n: usize| {
        let data = match n {
            10 | 11 | 40 => "poison",
            _ => "food",
        };
        format!(
            r#"{{"specversion":"1.0","id":"e-{n}","source":"/t","type":"after:meal","data":"{data}"}}"#
        )
    };
    let events: Vec<String> = (0..50).map(event).collect();
    let batched = [("content-type", "application/cloudevents-batch+json")];
    let answer = host.post(&batched, format!("[{}]", events.join(",")));
    assert_eq!(answer.status, 202, "{answer:?}");
    Posted::accepted((0..50).map(|n| format!("e-{n}")))
}

/// Runs `backhaul dead`.
fn dead(workspace: &Workspace, host: &Host, arguments: &[&str]) -> String {
    let url = host.url();
    let output = workspace.run(&[&["dead"], arguments, &["--to", &url]].concat());
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

/// The dead letters, oldest first.
fn letters(workspace: &Workspace, host: &Host, arguments: &[&str]) -> Vec<Value> {
    let text = dead(workspace, host, &[&["list", "--json"], arguments].concat());
    let value: Value = serde_json::from_str(&text).expect("JSON");
    let list = match &value {
        Value::Array(list) => list,
        object => object["letters"].as_array().expect("a list"),
    };
    list.clone()
}

fn event_id(letter: &Value) -> &str {
    letter["event"]["id"].as_str().expect("the event's id")
}

fn poison_becomes_dead_letters(how: &str) {
    let workspace = workspace(how);
    workspace.add_file_plugin();
    let host = workspace.serve();
    let posted = post(&host);
    let books = wait_until_settled(&host);
    let mut left = posted.clone();
    for id in ["e-10", "e-11", "e-40"] {
        left.fates.remove(id);
    }
    let verdict = judge(&left, &published(&workspace, "picky"));
    verdict.assert_nothing_lost();
    if how != "alone" {
        verdict.assert_in_order();
    }
    verdict.assert_duplicates_at_most(0, "it publishes nothing of a batch that traps");
    assert_eq!(of(&books, "picky").dead, 3);
    of(&books, "picky").assert_agrees(&posted, &verdict);
    assert_eq!(of(&books, "file").delivered, 50);

    let letters = letters(&workspace, &host, &[]);
    let ids: Vec<&str> = letters.iter().map(event_id).collect();
    assert_eq!(ids, ["e-10", "e-11", "e-40"]);
    for letter in &letters {
        assert_eq!(letter["backend"], "picky", "{letter}");
        assert_eq!(letter["attempts"], 3, "{letter}");
        assert!(letter["error"].is_string(), "{letter}");
        let (first, last) = (&letter["first_try"], &letter["last_try"]);
        assert!(first.as_str() < last.as_str(), "{letter}");
    }
    stop(host);
}

#[test]
fn an_event_a_plugin_refuses_alone_becomes_a_dead_letter_and_the_rest_goes_on() {
    poison_becomes_dead_letters("alone");
}

#[test]
fn an_event_a_plugin_stops_at_becomes_a_dead_letter_and_the_rest_goes_on() {
    poison_becomes_dead_letters("stop");
}

#[test]
fn an_event_a_plugin_traps_on_becomes_a_dead_letter_and_the_rest_goes_on() {
    poison_becomes_dead_letters("trap");
}

#[test]
fn dead_letters_are_listed_shown_tried_again_and_dropped_also_after_a_restart() {
    let workspace = workspace("alone");
    let host = workspace.serve();
    let posted = post(&host);
    wait_until_settled(&host);
    host.kill();

    let host = workspace.serve();
    let list = letters(&workspace, &host, &[]);
    assert_eq!(list.len(), 3, "{list:?}");
    let text = dead(&workspace, &host, &["list"]);
    assert!(text.contains("picky") && text.contains("e-40"), "{text}");
    for (arguments, count) in [
        (["--backend", "picky"], 3),
        (["--backend", "other"], 0),
        (["--type", "after:*"], 3),
        (["--type", "before:*"], 0),
        (["--older", "1h"], 0),
    ] {
        let found = letters(&workspace, &host, &arguments).len();
        assert_eq!(found, count, "{arguments:?}");
    }
    let ids: Vec<String> = list.iter().map(|letter| letter["id"].to_string()).collect();
    let shown = dead(&workspace, &host, &["show", &ids[0]]);
    assert!(
        shown.contains("e-10") && shown.contains("poison"),
        "{shown}"
    );

    // Tried again while it cannot work: it is a letter again, and not lost.
    dead(&workspace, &host, &["retry", &ids[0]]);
    wait_long_for("it to be a letter again", || {
        let book = book(&host, "picky");
        (book.dead == 4 && book.pending == 0).then_some(())
    });
    let again = letters(&workspace, &host, &[]);
    let mut ids: Vec<&str> = again.iter().map(event_id).collect();
    ids.sort_unstable();
    assert_eq!(ids, ["e-10", "e-11", "e-40"]);
    assert_books_balance(&host);

    // One is dropped; once it can work, the others are tried again.
    let number = |id: &str| {
        let letter = again.iter().find(|letter| event_id(letter) == id);
        letter.expect("the letter")["id"].to_string()
    };
    dead(&workspace, &host, &["drop", &number("e-40")]);
    fs::write(out(&workspace, "picky").join("healed"), "").expect("a file");
    dead(&workspace, &host, &["retry", "--all"]);
    let books = wait_until_settled(&host);
    let picky = of(&books, "picky");
    // 50, one tried again in vain, two for good.
    assert_eq!((picky.accepted, picky.dead), (53, 4), "{}", picky.raw);
    assert!(letters(&workspace, &host, &[]).is_empty());
    let mut left = posted;
    left.fates.remove("e-40");
    let verdict = judge(&left, &published(&workspace, "picky"));
    verdict.assert_nothing_lost();
    verdict.assert_duplicates_at_most(0, "each was published once");
    stop(host);
}
