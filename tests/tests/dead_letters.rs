//! Dead letters without a journal: of all plugins in one list, over HTTP and at
//! the terminal. That they are kept over a restart is tried in `delivery_faults`.

use std::fs;

use backhaul_tests::components;
use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::oracle::ids_in_record;
use backhaul_tests::wait_for;
use serde_json::{Value, json};

/// A host with two plugins that cannot bear poison: `picky` gets `after:*`, `fussy`
/// everything.
struct Scene {
    workspace: Workspace,
    host: Host,
}

/// What the program printed, and how it ended.
struct Printed {
    code: Option<i32>,
    text: String,
    error: String,
}

impl Scene {
    fn new() -> Scene {
        let workspace = Workspace::new();
        for (name, events) in [("picky", "after:*"), ("fussy", "*")] {
            let manifest = format!(
                "name = \"{name}\"\nevents = [\"{events}\"]\n\
                 [retry]\nattempts = 2\nfirst_delay = \"1ms\"\nmax_delay = \"1ms\"\n\
                 [grants]\nfiles = [{{ host = \"out/{name}\", guest = \"/out\", write = true }}]\n"
            );
            let guest = components::test_guest("refuse_poison");
            workspace.add_plugin(name, &guest, &manifest);
        }
        let host = workspace.serve_with(&["--journal", "off"]);
        Scene { workspace, host }
    }

    /// The same with three letters: `meal` of both plugins, `snack` of `fussy`.
    fn with_letters() -> Scene {
        let scene = Scene::new();
        assert_eq!(scene.host.post_event("food", "after:meal", "1").status, 202);
        let meal = scene.host.post_event("meal", "after:meal", "\"poison\"");
        assert_eq!(meal.status, 202, "{meal:?}");
        let headers = [
            ("content-type", "text/plain"),
            ("ce-specversion", "1.0"),
            ("ce-id", "snack"),
            ("ce-source", "/tests"),
            ("ce-type", "before:meal"),
            ("ce-subject", "ada"),
            ("ce-traceparent", "00-1"),
        ];
        let snack = scene.host.post(&headers, "poison\n\x1b[31m is red");
        assert_eq!(snack.status, 202, "{snack:?}");
        scene.wait_for_letters("", 3);
        scene
    }

    /// Waits until as many fit, and returns them.
    fn wait_for_letters(&self, query: &str, count: usize) -> Vec<Value> {
        wait_for(&format!("{count} dead letters that fit {query:?}"), || {
            Some(self.letters(query)).filter(|letters| letters.len() == count)
        })
    }

    fn letters(&self, query: &str) -> Vec<Value> {
        let page = self.page(query);
        page["letters"].as_array().expect("a list").clone()
    }

    fn page(&self, query: &str) -> Value {
        let answer = self.host.get(&format!("/api/dead?{query}"));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    fn post(&self, path: &str) -> (u16, Value) {
        let answer = self.host.post_json(path, &json!(null));
        (answer.status, answer.body)
    }

    fn delete(&self, path: &str) -> (u16, Value) {
        let url = format!("{}{path}", self.host.url());
        let mut response = agent().delete(&url).call().expect("the host answers");
        let body = response.body_mut().read_to_string().expect("a body");
        let body = serde_json::from_str(&body).expect("JSON");
        (response.status().as_u16(), body)
    }

    /// Runs `backhaul dead`.
    fn dead(&self, arguments: &[&str]) -> Printed {
        let url = self.host.url();
        let all = [&["dead"], arguments, &["--to", &url]].concat();
        let output = self.workspace.run(&all);
        let text = |bytes| String::from_utf8(bytes).expect("text");
        Printed {
            code: output.status.code(),
            text: text(output.stdout),
            error: text(output.stderr),
        }
    }

    /// From now on the plugin takes everything.
    fn heal(&self, plugin: &str) {
        let out = self.workspace.path().join("out").join(plugin);
        fs::write(out.join("healed"), "").expect("a file");
    }

    fn published(&self, plugin: &str) -> Vec<String> {
        ids_in_record(
            &self
                .workspace
                .path()
                .join("out")
                .join(plugin)
                .join("published"),
        )
    }

    /// Waits until nothing is pending at a plugin, and returns its figures.
    fn settled(&self, plugin: &str) -> Value {
        wait_for("nothing to be pending", || {
            let delivery = self.host.plugin(plugin)?["delivery"].clone();
            (delivery["pending"] == 0).then_some(delivery)
        })
    }
}

/// A client for what the harness does not send.
fn agent() -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None);
    ureq::Agent::new_with_config(config.build())
}

fn id(letter: &Value) -> u64 {
    letter["id"].as_u64().expect("an id")
}

/// Which event it is, and whose.
fn names(letters: &[Value]) -> Vec<(&str, &str)> {
    let pairs = letters.iter().map(|letter| {
        let (backend, event) = (&letter["backend"], &letter["event"]["id"]);
        (
            backend.as_str().expect("a name"),
            event.as_str().expect("an id"),
        )
    });
    let mut names: Vec<_> = pairs.collect();
    names.sort_unstable();
    names
}

#[test]
fn letters_of_all_plugins_are_one_list_that_can_be_narrowed_down() {
    let scene = Scene::with_letters();
    let all = scene.letters("");
    assert_eq!(
        names(&all),
        [("fussy", "meal"), ("fussy", "snack"), ("picky", "meal")]
    );
    assert!(all.windows(2).all(|two| id(&two[0]) < id(&two[1])));
    let found = scene.letters("type=before:*");
    let [snack] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(snack["error"], "poison", "{snack}");
    assert_eq!(snack["attempts"], 2, "{snack}");
    assert!(snack["first_try"].as_str() <= snack["last_try"].as_str());
    let event = &snack["event"];
    assert_eq!(
        (&event["source"], &event["type"], &event["subject"]),
        (&json!("/tests"), &json!("before:meal"), &json!("ada"))
    );
    assert_eq!(event["traceparent"], "00-1");
    assert_eq!(event["data"], "poison\n\u{1b}[31m is red");

    for (query, count) in [
        ("backend=picky", 1),
        ("backend=other", 0),
        ("type=after%3A*", 2),
        ("older=1h", 0),
        ("older=0s", 3),
        ("backend=fussy&type=after:*", 1),
        (&format!("id={}&id={}&id=0", id(&all[0]), id(&all[2])), 2),
    ] {
        let page = scene.page(query);
        assert_eq!(page["total"], count, "{query}: {page}");
        assert!(page["next"].is_null(), "{query}: {page}");
    }
    let first = scene.page("limit=2");
    assert_eq!(
        (&first["total"], &first["next"]),
        (&json!(3), &all[1]["id"])
    );
    let rest = scene.page(&format!("limit=2&after={}", first["next"]));
    assert_eq!(rest["letters"], json!([all[2]]));
    assert!(rest["next"].is_null(), "{rest}");
    let one = scene.host.get(&format!("/api/dead/{}", id(snack)));
    assert_eq!((one.status, &one.body), (200, snack));
}

#[test]
fn they_are_shown_at_the_terminal_without_what_would_control_it() {
    let scene = Scene::with_letters();
    let list = scene.dead(&["list"]);
    assert_eq!(list.code, Some(0), "{}", list.error);
    let lines: Vec<&str> = list.text.lines().collect();
    assert_eq!(lines.len(), 7, "{}", list.text);
    assert!(lines[0].contains("BACKEND") && lines[0].contains("LAST TRY"));
    let at = lines.iter().position(|line| line.contains("snack"));
    let at = at.expect("its row");
    for part in ["fussy", "before:meal", "  2  "] {
        assert!(lines[at].contains(part), "{part}: {}", list.text);
    }
    assert_eq!(lines[at + 1], "  poison");
    let some = scene.dead(&["list", "--limit", "1"]).text;
    assert!(some.contains("2 more; raise --limit"), "{some}");
    let some = scene
        .dead(&["list", "--backend", "picky", "--type", "after:*"])
        .text;
    assert!(some.contains("picky") && !some.contains("fussy"), "{some}");
    let wrong = scene.dead(&["list", "--older", "soon"]);
    assert_eq!(wrong.code, Some(1));
    assert!(wrong.error.contains("`older`"), "{}", wrong.error);

    let json = scene.dead(&["list", "--json"]).text;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json, json!({ "letters": scene.letters(""), "total": 3 }));
    let json = scene.dead(&["list", "--json", "--limit", "2"]).text;
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["letters"].as_array().map(Vec::len), Some(2));

    let snack = &scene.letters("type=before:*")[0];
    let shown = scene.dead(&["show", &id(snack).to_string()]).text;
    for part in ["fussy", "snack", "ada", "traceparent", "00-1", "text/plain"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(
        shown.ends_with("data\npoison\n\\u{1b}[31m is red\n"),
        "{shown}"
    );
    let json = scene.dead(&["show", "--json", &id(snack).to_string()]).text;
    assert_eq!(
        serde_json::from_str::<Value>(&json).ok().as_ref(),
        Some(snack)
    );
    let none = scene.dead(&["show", "4711"]);
    assert_eq!(none.code, Some(1));
    assert!(none.error.contains("no dead letter 4711"), "{}", none.error);
}

#[test]
fn a_letter_that_fails_again_is_a_letter_again_and_one_that_does_not_is_gone() {
    let scene = Scene::with_letters();
    let of_picky = scene.letters("backend=picky");
    let old = id(&of_picky[0]);
    let answer = scene.post(&format!("/api/dead/{old}/retry"));
    assert_eq!(answer, (200, json!({ "retried": 1 })));
    let again = wait_for("it to be a letter again", || {
        let letters = scene.letters("backend=picky");
        letters.first().filter(|letter| id(letter) > old).cloned()
    });
    assert_eq!(again["event"], of_picky[0]["event"]);
    assert_eq!(scene.host.get(&format!("/api/dead/{old}")).status, 404);
    let books = scene.settled("picky");
    assert_eq!((&books["accepted"], &books["dead"]), (&json!(3), &json!(2)));

    scene.heal("picky");
    scene.heal("fussy");
    let retried = scene.dead(&["retry", &id(&again).to_string(), "4711"]);
    assert_eq!(retried.code, Some(1), "one is unknown");
    assert!(
        retried.text.contains("1 dead letter put back"),
        "{}",
        retried.text
    );
    assert!(
        retried.error.contains("no dead letter 4711"),
        "{}",
        retried.error
    );
    let retried = scene.dead(&["retry", "--backend", "fussy"]);
    assert_eq!(retried.code, Some(0), "{}", retried.error);
    assert!(
        retried.text.contains("2 dead letters put back"),
        "{}",
        retried.text
    );
    scene.wait_for_letters("", 0);
    let (picky, fussy) = (scene.settled("picky"), scene.settled("fussy"));
    assert_eq!(
        (&picky["delivered"], &fussy["delivered"]),
        (&json!(2), &json!(3))
    );
    assert_eq!(scene.published("picky"), ["food", "meal"]);
    let mut published = scene.published("fussy");
    published.sort_unstable();
    assert_eq!(published, ["food", "meal", "snack"]);
}

#[test]
fn letters_that_are_dropped_are_gone() {
    let scene = Scene::with_letters();
    let letters = scene.letters("");
    let path = format!("/api/dead/{}", id(&letters[0]));
    assert_eq!(scene.delete(&path), (200, json!({ "dropped": 1 })));
    assert_eq!(scene.delete(&path).0, 404);
    let dropped = scene.dead(&["drop", &id(&letters[1]).to_string()]);
    assert_eq!(dropped.text, "1 dead letter dropped\n", "{}", dropped.error);
    assert_eq!(scene.letters(""), letters[2..]);
    let none = scene.delete("/api/dead?backend=other");
    assert_eq!(none, (200, json!({ "dropped": 0 })));
    let rest = scene.delete("/api/dead?all=true");
    assert_eq!(rest, (200, json!({ "dropped": 1 })));
    assert!(scene.letters("").is_empty());
    let retried = scene.post("/api/dead/retry?all=true");
    assert_eq!(retried, (200, json!({ "retried": 0 })));
    // What happened to the events stands in the books.
    let dead = |plugin| scene.settled(plugin)["dead"].clone();
    assert_eq!((dead("picky"), dead("fussy")), (json!(1), json!(2)));
}

#[test]
fn what_is_not_clear_is_refused_and_nothing_is_done() {
    let scene = Scene::with_letters();
    let get = |path: &str| {
        let answer = scene.host.get(path);
        (answer.status, answer.body)
    };
    let refusals = [
        (get("/api/dead?colour=red"), 400, "\"colour\""),
        (get("/api/dead?limit=0"), 400, "`limit`"),
        (get("/api/dead?older=soon"), 400, "`older`"),
        (get("/api/dead/first"), 400, "\"first\""),
        (get("/api/dead/4711"), 404, "4711"),
        (get("/api/dead/retry"), 405, "POST"),
        (scene.post("/api/dead"), 405, "GET and DELETE"),
        (scene.post("/api/dead/4711/retry"), 404, "4711"),
        (scene.post("/api/dead/retry"), 400, "all=true"),
        (scene.post("/api/dead/retry?after=1"), 400, "\"after\""),
        (scene.delete("/api/dead/4711"), 404, "4711"),
        (scene.delete("/api/dead"), 400, "all=true"),
        (scene.delete("/api/dead?all=yes"), 400, "`all`"),
    ];
    for ((status, body), expected, part) in refusals {
        let detail = body["detail"].as_str().unwrap_or_default();
        assert!(
            status == expected && detail.contains(part),
            "{expected} {part}: {status} {body}"
        );
    }
    for action in ["retry", "drop"] {
        let nothing = scene.dead(&[action]);
        assert_eq!(nothing.code, Some(1));
        assert!(nothing.error.contains("--all"), "{}", nothing.error);
        let both = scene.dead(&[action, "1", "--all"]);
        assert_eq!(both.code, Some(2), "wrong usage: {}", both.error);
    }
    assert_eq!(scene.letters("").len(), 3);
}

#[test]
fn a_page_of_another_site_gets_nothing() {
    let scene = Scene::with_letters();
    let agent = agent();
    let url = |path: &str| format!("{}{path}", scene.host.url());
    let evil = ("origin", "https://evil.example");
    let status = |response: Result<ureq::http::Response<ureq::Body>, ureq::Error>| {
        response.expect("the host answers").status().as_u16()
    };
    let get = agent.get(url("/api/dead")).header(evil.0, evil.1).call();
    assert_eq!(status(get), 403);
    let post = agent.post(url("/api/dead/retry?all=true"));
    assert_eq!(status(post.header(evil.0, evil.1).send_empty()), 403);
    let delete = agent.delete(url("/api/dead?all=true"));
    assert_eq!(status(delete.header(evil.0, evil.1).call()), 403);
    assert_eq!(scene.letters("").len(), 3);
}
