//! Events posted to the program are in the `file` plugin's file, whatever the
//! content mode, byte for byte.

use backhaul_tests::host::Workspace;
use serde_json::json;

const STRUCTURED: [(&str, &str); 1] = [("content-type", "application/cloudevents+json")];
const BATCHED: [(&str, &str); 1] = [("content-type", "application/cloudevents-batch+json")];

#[test]
fn an_event_in_each_content_mode_is_written_by_the_component() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve();
    assert!(
        host.log().contains("file (plugins/file.wasm) takes *"),
        "{}",
        host.log()
    );
    assert!(
        host.log().contains("may read and write data/out as /out"),
        "{}",
        host.log()
    );

    let binary = host.post_event("b-1", "after:signup", r#"{"user":1}"#);
    assert_eq!(
        (binary.status, binary.body),
        (202, json!({ "ids": ["b-1"] }))
    );

    let event = json!({
        "specversion": "1.0", "id": "s-1", "source": "/tests", "type": "after:login",
        "subject": "ada", "time": "2026-01-31T12:00:00Z", "traceparent": "00-1",
        "data": { "user": 2 },
    });
    let structured = host.post(&STRUCTURED, event.to_string());
    assert_eq!(
        (structured.status, structured.body),
        (202, json!({ "ids": ["s-1"] }))
    );

    let batched = host.post_batch("a", 3);
    assert_eq!(
        (batched.status, batched.body),
        (202, json!({ "ids": ["a-0", "a-1", "a-2"] }))
    );

    let lines = workspace.wait_for_file_lines(5);
    let ids: Vec<_> = lines
        .iter()
        .map(|line| line["id"].as_str().unwrap())
        .collect();
    assert_eq!(
        ids,
        ["b-1", "s-1", "a-0", "a-1", "a-2"],
        "in the order they were accepted"
    );
    assert_eq!(lines[0]["data"], json!({ "user": 1 }));
    assert_eq!(lines[0]["type"], "after:signup");
    for (name, value) in event.as_object().unwrap() {
        assert_eq!(&lines[1][name], value, "{name}");
    }

    let (status, log) = host.stop();
    assert_eq!(status.code(), Some(0), "{log}");
}

#[test]
fn odd_data_arrives_intact() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve();
    let head = |id: &str| json!({ "specversion": "1.0", "id": id, "source": "/ü", "type": "t" });
    let with = |id: &str, members: serde_json::Value| {
        let mut event = head(id);
        event
            .as_object_mut()
            .unwrap()
            .extend(members.as_object().unwrap().clone());
        event
    };
    let large = "x".repeat(1 << 20);
    let events = [
        head("none"),
        with(
            "binary",
            json!({ "datacontenttype": "application/octet-stream", "data_base64": "AP8AgA==" }),
        ),
        with(
            "text",
            json!({ "datacontenttype": "text/plain", "data": "line\nline \"日本語\" \u{1}" }),
        ),
        with(
            "json",
            json!({ "data": ["日本語", null, 1.5e300, { "": "" }] }),
        ),
        with("large", json!({ "data": large })),
    ];
    for event in &events {
        let answer = host.post(&STRUCTURED, event.to_string());
        assert_eq!(answer.status, 202, "{:?}", answer.body);
    }
    let lines = workspace.wait_for_file_lines(events.len());
    for (line, event) in lines.iter().zip(&events) {
        for (name, value) in event.as_object().unwrap() {
            assert_eq!(&line[name], value, "{name} of {}", event["id"]);
        }
        assert!(
            line["time"].is_string(),
            "the host gives a time where the producer did not"
        );
    }
}

#[test]
fn emit_sends_json_from_the_argument_a_file_or_standard_input() {
    let workspace = Workspace::new();
    workspace.add_file_plugin();
    let host = workspace.serve();
    let emit = |arguments: &[&str]| {
        let url = host.url();
        let all = [&["emit"], arguments, &["--to", &url]].concat();
        workspace.run(&all)
    };

    let output = emit(&["after:signup", r#"{"user":1}"#, "--subject", "ada ü%"]);
    assert!(output.status.success(), "{output:?}");
    let id = String::from_utf8(output.stdout).unwrap();

    std::fs::write(workspace.path().join("payload.json"), "[1,\n2]").unwrap();
    assert!(emit(&["from-file", "@payload.json"]).status.success());
    assert!(emit(&["no-data"]).status.success());
    assert!(
        emit(&["text", "-1 of", "--content-type", "text/plain"])
            .status
            .success()
    );

    let mut piped = workspace.command(&["emit", "piped", "-", "--to", &host.url()]);
    piped.stdin(std::fs::File::open(workspace.path().join("payload.json")).unwrap());
    assert!(piped.status().unwrap().success());

    let lines = workspace.wait_for_file_lines(5);
    assert_eq!(lines[0]["id"], id.trim_end());
    assert_eq!(
        (&lines[0]["data"], &lines[0]["subject"]),
        (&json!({ "user": 1 }), &json!("ada ü%"))
    );
    assert_eq!(
        (&lines[1]["type"], &lines[1]["data"]),
        (&json!("from-file"), &json!([1, 2]))
    );
    assert_eq!(lines[2].get("data"), None);
    assert_eq!(lines[3]["data"], "-1 of");
    assert_eq!(lines[4]["data"], json!([1, 2]));
}

#[test]
fn emit_says_what_is_wrong_and_what_to_do() {
    let workspace = Workspace::new();
    let host = workspace.serve();
    let refused = |arguments: &[&str]| {
        let output = workspace.run(&[&["emit"], arguments].concat());
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    let url = host.url();
    assert!(refused(&["t", "{not json", "--to", &url]).contains("the data is not JSON"));
    assert!(refused(&["t", "@nowhere.json", "--to", &url]).contains("nowhere.json cannot be read"));
    assert!(refused(&["", "--to", &url]).contains("`type` is missing or empty"));
    assert!(refused(&["t", "--to", "ftp://x"]).contains("is not a URL"));
    assert!(refused(&["t", "--to", &url]).contains("no plugin is loaded"));
    let nowhere = format!("http://127.0.0.1:{}", backhaul_tests::process::free_port());
    assert!(refused(&["t", "--to", &nowhere]).contains("is `backhaul serve` running there?"));
}

#[test]
fn a_manifest_chooses_the_events_and_an_event_nobody_takes_is_refused() {
    let workspace = Workspace::new();
    let component = backhaul_tests::components::plugin("file");
    let manifest = "events = [\"after:*\"]\n[grants]\nfiles = [{ host = \"data/out\", guest = \"/out\", write = true }]\n";
    workspace.add_plugin("file", &component, manifest);
    let host = workspace.serve();
    assert_eq!(host.post_event("1", "after:signup", "1").status, 202);
    let refused = host.post_event("2", "before:login", "1");
    assert_eq!(refused.status, 422);
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(
        detail.contains("no plugin takes events of type `before:login`"),
        "{detail}"
    );

    let batch = json!([
        { "specversion": "1.0", "id": "3", "source": "/", "type": "after:x" },
        { "specversion": "1.0", "id": "4", "source": "/", "type": "unheard" },
    ]);
    let refused = host.post(&BATCHED, batch.to_string());
    assert_eq!((refused.status, &refused.body["index"]), (422, &json!(1)));
    assert_eq!(host.post_event("5", "after:x", "1").status, 202);
    let lines = workspace.wait_for_file_lines(2);
    assert_eq!(
        (&lines[0]["id"], &lines[1]["id"]),
        (&json!("1"), &json!("5"))
    );
}
