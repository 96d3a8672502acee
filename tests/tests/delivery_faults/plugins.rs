//! A plugin breaks, hangs, or fails now and then, before it has published a batch
//! or in the middle of it: nothing is lost, and what comes twice is what it had
//! published before it broke.

use backhaul_tests::host::Workspace;
use backhaul_tests::load::{Fate, Load, LoadOptions};
use backhaul_tests::oracle::judge;

use crate::scene::{
    BATCH, add_guest, guest_manifest, of, out, published, stop, wait_long_for, wait_until_settled,
};

/// How often the guest fails: with each call of such a number.
const EVERY: usize = 4;

/// Does what `HOW` says each fourth call, until it has failed some times.
fn fails(how: &str, failures: usize, duplicates: impl Fn(usize) -> (usize, &'static str)) {
    let workspace = Workspace::new();
    let env = format!("HOW = \"{how}\", EVERY = \"{EVERY}\"");
    let limits = format!("batch = {BATCH}\ncpu = \"100ms\"");
    let top = "";
    add_guest(&workspace, ("faulty", "fail_each_nth"), top, &env, &limits);
    let manifest = guest_manifest("faulty", top, &env, &limits).replace(
        "[limits]",
        "[retry]\nfirst_delay = \"10ms\"\nmax_delay = \"100ms\"\n[limits]",
    );
    std::fs::write(workspace.path().join("plugins/faulty.toml"), manifest).expect("the manifest");
    workspace.add_file_plugin();
    let host = workspace.serve();
    let load = Load::start(&host, LoadOptions::default());
    let calls =
        || std::fs::metadata(out(&workspace, "faulty").join("calls")).map_or(0, |m| m.len());
    wait_long_for("it to fail some times", || {
        (calls() as usize >= failures * EVERY).then_some(())
    });
    let posted = load.stop();
    let books = wait_until_settled(&host);
    let verdict = judge(&posted, &published(&workspace, "faulty"));
    let failed = calls() as usize / EVERY;
    eprintln!(
        "{how}: failed {failed} times; {verdict}; {} retries",
        of(&books, "faulty").retries
    );
    assert_eq!(posted.count(Fate::Refused), 0, "{:?}", posted.refusals);
    verdict.assert_nothing_lost();
    verdict.assert_in_order();
    let (most, why) = duplicates(failed);
    verdict.assert_duplicates_at_most(most, why);
    assert!(verdict.longest_repeat() <= BATCH / 2, "{verdict}");
    of(&books, "faulty").assert_agrees(&posted, &verdict);
    let file = judge(&posted, &crate::scene::in_file(&workspace));
    file.assert_nothing_lost();
    file.assert_duplicates_at_most(0, "the other plugin is sound");
    of(&books, "file").assert_agrees(&posted, &file);
    stop(host);
}

fn none(_: usize) -> (usize, &'static str) {
    (
        0,
        "it fails before it publishes, or says what it has published",
    )
}

fn half_a_batch_each(failed: usize) -> (usize, &'static str) {
    (failed * BATCH / 2, "half a batch for each failure")
}

#[test]
fn a_plugin_that_traps_now_and_then_loses_and_doubles_nothing() {
    fails("trap", 10, none);
}

#[test]
fn a_plugin_that_hangs_now_and_then_loses_and_doubles_nothing() {
    fails("hang", 5, none);
}

#[test]
fn a_plugin_that_fails_each_fourth_batch_loses_and_doubles_nothing() {
    fails("refuse", 20, none);
}

#[test]
fn a_plugin_that_says_which_half_it_has_published_doubles_nothing() {
    fails("half-refuse", 20, none);
}

#[test]
fn a_plugin_that_traps_after_half_a_batch_doubles_that_half_at_most() {
    fails("half-trap", 10, half_a_batch_each);
}

#[test]
fn a_plugin_that_hangs_after_half_a_batch_doubles_that_half_at_most() {
    fails("half-hang", 5, half_a_batch_each);
}
