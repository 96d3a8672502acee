//! Folders: granted ones, to read or to write, and nothing around them.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

use backhaul::wasm::{FileGrant, Grants};
use backhaul_tests::host::Workspace;
use backhaul_tests::{components, wait_for};

use crate::guest::{GENEROUS, Out, ask, broken, order, start, within};
use crate::memory::{MIB, Memory};

#[tokio::test]
async fn a_writable_folder_can_be_read_and_written() {
    let out = Out::new();
    fs::write(out.path().join("before"), "from the host").unwrap();
    let backend = start("use_files", out.grants(), within(GENEROUS)).await;

    assert_eq!(ask(&backend, "read /out/before").await, "ok from the host");
    assert_eq!(ask(&backend, "write /out/new").await, "ok ");
    assert_eq!(
        fs::read_to_string(out.path().join("new")).unwrap(),
        "written by the guest"
    );
    assert_eq!(ask(&backend, "remove /out/new").await, "ok ");
    assert!(!out.path().join("new").exists());
    assert_eq!(ask(&backend, "list /out").await, r#"ok ["before"]"#);
}

#[tokio::test]
async fn a_read_only_folder_can_be_read_and_stays_as_it_is() {
    let out = Out::new();
    fs::write(out.path().join("before"), "from the host").unwrap();
    let mut grants = out.grants();
    grants.files[0].write = false;
    let backend = start("use_files", grants, within(GENEROUS)).await;

    assert_eq!(ask(&backend, "read /out/before").await, "ok from the host");
    assert_eq!(ask(&backend, "list /out").await, r#"ok ["before"]"#);
    for order in [
        "write /out/new",
        "write /out/before",
        "truncate /out/before",
        "make /out/folder",
        "rename /out/before",
        "remove /out/before",
    ] {
        let answer = ask(&backend, order).await;
        assert!(answer.starts_with("error "), "{order}: {answer}");
    }
    assert_eq!(
        fs::read_to_string(out.path().join("before")).unwrap(),
        "from the host"
    );
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[tokio::test]
async fn nothing_outside_the_granted_folder_is_reached_by_any_path() {
    let around = Out::new();
    let inside = around.path().join("inside");
    let secret = around.path().join("secret");
    fs::create_dir(&inside).unwrap();
    fs::write(&secret, "secret").unwrap();
    symlink("../secret", inside.join("relative-link")).unwrap();
    symlink(&secret, inside.join("absolute-link")).unwrap();
    symlink("..", inside.join("folder-link")).unwrap();
    symlink("../planted", inside.join("dangling-link")).unwrap();
    let grants = Grants {
        files: vec![FileGrant {
            host: inside,
            guest: "/inside".into(),
            write: true,
        }],
        ..Grants::default()
    };
    let backend = start("use_files", grants, within(GENEROUS)).await;

    let absolute = format!("read {}", secret.display());
    for order in [
        absolute.as_str(),
        "read /etc/passwd",
        "read /inside/../secret",
        "read /inside/../../../../../../etc/passwd",
        "read ../secret",
        "read secret",
        "read /inside/relative-link",
        "read /inside/absolute-link",
        "read /inside/folder-link/secret",
        "list /",
        "list /inside/..",
        "list /inside/folder-link",
        "write /inside/../planted",
        "write /inside/folder-link/planted",
        "write /inside/dangling-link",
        "write /inside/relative-link",
        "remove /inside/../secret",
        "remove /inside/folder-link/secret",
    ] {
        let answer = ask(&backend, order).await;
        assert!(answer.starts_with("error "), "{order}: {answer}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
    assert!(!around.path().join("planted").exists());
    assert_eq!(
        ask(&backend, "write /inside/own").await,
        "ok ",
        "it still has its folder"
    );
}

#[tokio::test]
async fn without_grants_there_are_no_files() {
    let backend = start("use_files", Grants::default(), within(GENEROUS)).await;
    for order in ["list /", "list .", "read /etc/passwd", "write /tmp/planted"] {
        let answer = ask(&backend, order).await;
        assert!(answer.starts_with("error "), "{order}: {answer}");
    }
}

/// The grants of some folders of the host: `/NAME` each, and whether it may be
/// written to.
fn folders(around: &Path, folders: &[(&str, bool)]) -> Grants {
    let grant = |(name, write): &(&str, bool)| FileGrant {
        host: around.join(name),
        guest: format!("/{name}"),
        write: *write,
    };
    for (name, _) in folders {
        fs::create_dir_all(around.join(name)).expect("a folder");
    }
    Grants {
        files: folders.iter().map(grant).collect(),
        ..Grants::default()
    }
}

#[tokio::test]
async fn a_link_a_guest_makes_itself_leads_nowhere_either() {
    let around = Out::new();
    fs::write(around.path().join("secret"), "secret").unwrap();
    let secret = around.path().join("secret");
    let grants = || folders(around.path(), &[("inside", true)]);

    let backend = start("use_files", grants(), within(GENEROUS)).await;
    for (target, name) in [
        ("../secret", "up"),
        ("sub/../../secret", "winding"),
        ("up", "chain"),
        ("chain", "chain2"),
        ("..", "parent"),
        ("itself", "itself"),
    ] {
        let answer = ask(&backend, &format!("symlink {target} {name}")).await;
        assert_eq!(answer, "ok Ok(())", "{target}");
    }
    for target in [
        secret.to_str().unwrap(),
        "/proc/self/root",
        "/proc/self/cwd",
    ] {
        let answer = ask(&backend, &format!("symlink {target} absolute")).await;
        assert!(answer.starts_with("ok Err("), "{target}: {answer}");
    }
    symlink("/proc/self/root", around.path().join("inside/outside")).unwrap();
    symlink("/proc/self/cwd", around.path().join("inside/cwd")).unwrap();
    for path in [
        "up",
        "winding",
        "chain",
        "chain2",
        "parent/secret",
        "outside/etc/passwd",
        "cwd/Cargo.toml",
        "itself",
    ] {
        for verb in ["read", "write", "truncate", "touch"] {
            let answer = ask(&backend, &format!("{verb} /inside/{path}")).await;
            assert!(answer.starts_with("error "), "{verb} {path}: {answer}");
        }
    }

    let backend = start("use_files_async", grants(), within(GENEROUS)).await;
    for (name, target) in [("up3", "../secret"), ("chain3", "up3")] {
        let order = format!("symlink /inside/{name} {target}");
        assert_eq!(ask(&backend, &order).await, "ok");
    }
    for order in [
        "open /inside/up3",
        "write /inside/chain3",
        "truncate /inside/up",
        "touch /inside/chain3",
        "open /inside/outside/etc/passwd",
        "symlink /inside/absolute /etc/passwd",
        "open /inside/../secret",
        "open /inside//etc/passwd",
    ] {
        let answer = ask(&backend, order).await;
        assert!(answer.starts_with("error "), "{order}: {answer}");
    }
    assert_eq!(fs::read_to_string(&secret).unwrap(), "secret");
}

#[tokio::test]
async fn the_handle_of_a_folder_leads_down_and_not_up() {
    let around = Out::new();
    let grants = folders(around.path(), &[("inside", true)]);
    let inside = around.path().join("inside");
    fs::create_dir(inside.join("below")).unwrap();
    fs::write(inside.join("file"), "").unwrap();
    fs::write(inside.join("below/file"), "").unwrap();
    symlink("../file", inside.join("below/link")).unwrap();
    let backend = start("use_files_async", grants, within(GENEROUS)).await;

    assert_eq!(ask(&backend, "from /inside/below file").await, "ok");
    for path in ["../file", "link", "../../inside/file"] {
        let answer = ask(&backend, &format!("from /inside/below {path}")).await;
        assert_eq!(answer, "error ErrorCode::NotPermitted", "{path}");
    }
}

#[tokio::test]
async fn nothing_leads_from_a_folder_to_read_into_one_to_write() {
    let around = Out::new();
    let grants = || folders(around.path(), &[("read", false), ("write", true)]);
    let _ = grants();
    let precious = around.path().join("read/precious");
    fs::write(&precious, "precious").unwrap();
    symlink("../read/precious", around.path().join("write/link")).unwrap();

    let backend = start("use_files", grants(), within(GENEROUS)).await;
    for order in [
        "link /read/precious /write/stolen",
        "rename /read/precious /write/stolen",
        "truncate /write/link",
        "write /write/link",
        "write /write/../read/precious",
        "touch /read/precious",
        "make /read/folder",
        "link /write/link /read/planted",
        "rename /write/link /read/planted",
    ] {
        let answer = ask(&backend, order).await;
        assert!(answer.starts_with("error "), "{order}: {answer}");
    }
    let backend = start("use_files_async", grants(), within(GENEROUS)).await;
    for order in [
        "link /read/precious /write/stolen",
        "rename /read/precious /write/stolen",
        "rename /write/link /read/planted",
        "symlink /read/planted precious",
        "write /read/planted",
        "write /read/precious",
        "truncate /read/precious",
        "grow /read/precious",
        "touch /read/precious",
        "remove /read/precious",
        "make /read/folder",
    ] {
        let answer = ask(&backend, order).await;
        assert!(answer.starts_with("error "), "{order}: {answer}");
    }
    assert_eq!(ask(&backend, "open /read/precious").await, "ok");

    assert_eq!(fs::read_to_string(&precious).unwrap(), "precious");
    let meta = fs::metadata(&precious).unwrap();
    assert_eq!(meta.nlink(), 1);
    assert!(meta.mtime() > 0, "the guest set it to 1970");
    let names = |folder| fs::read_dir(around.path().join(folder)).unwrap().count();
    assert_eq!((names("read"), names("write")), (1, 1));
}

#[tokio::test]
async fn what_is_neither_file_nor_folder_is_not_opened_and_holds_nothing_up() {
    let around = Out::new();
    let grants = || folders(around.path(), &[("inside", true)]);
    let _ = grants();
    let inside = around.path().join("inside");
    let made = Command::new("mkfifo").arg(inside.join("pipe")).status();
    assert!(made.expect("mkfifo").success());
    symlink("pipe", inside.join("link")).unwrap();
    let _socket = UnixListener::bind(inside.join("socket")).unwrap();

    let blocking = start("use_files", grants(), within(GENEROUS)).await;
    let not_blocking = start("use_files_async", grants(), within(GENEROUS)).await;
    for path in ["pipe", "link", "socket"] {
        for verb in ["read", "write", "truncate", "list"] {
            let answer = ask(&blocking, &format!("{verb} /inside/{path}")).await;
            assert!(answer.starts_with("error "), "{verb} {path}: {answer}");
        }
        for verb in ["open", "write", "truncate", "directory", "exclusive"] {
            let answer = ask(&not_blocking, &format!("{verb} /inside/{path}")).await;
            assert_eq!(answer, "error ErrorCode::NotPermitted", "{verb} {path}");
        }
    }
    assert_eq!(
        ask(&blocking, "remove /inside/pipe").await,
        "ok ",
        "it is its folder"
    );
}

#[tokio::test]
async fn a_guest_that_puts_a_link_in_the_place_of_its_folder_keeps_the_folder_it_had() {
    let around = Out::new();
    let grant = |host: &str, guest: &str| FileGrant {
        host: around.path().join(host),
        guest: guest.to_owned(),
        write: true,
    };
    fs::create_dir_all(around.path().join("data/out")).unwrap();
    fs::create_dir(around.path().join("outside")).unwrap();
    fs::write(around.path().join("data/out/own"), "").unwrap();
    fs::write(around.path().join("outside/secret"), "").unwrap();
    let grants = Grants {
        files: vec![grant("data", "/data"), grant("data/out", "/out")],
        ..Grants::default()
    };
    let backend = start("use_files", grants, within(GENEROUS)).await;

    assert_eq!(ask(&backend, "rename /data/out /data/old").await, "ok ");
    assert_eq!(ask(&backend, "symlink ../outside out").await, "ok Ok(())");
    broken(&backend, &[order("trap ")]).await;
    // A new instance.
    assert_eq!(ask(&backend, "list /out").await, r#"ok ["own"]"#);
    assert_eq!(ask(&backend, "write /out/new").await, "ok ");
    assert!(around.path().join("data/old/new").exists());
    assert!(!around.path().join("outside/new").exists());
}

#[tokio::test]
async fn a_folder_is_read_to_its_end() {
    let out = Out::new();
    let names: Vec<String> = (0..100).map(|n| format!("{n:02}")).collect();
    for name in &names {
        fs::write(out.path().join(name), "").unwrap();
    }
    let backend = start("use_files", out.grants(), within(GENEROUS)).await;
    let answer = ask(&backend, "list /out").await;
    let mut listed: Vec<String> =
        serde_json::from_str(answer.strip_prefix("ok ").unwrap()).unwrap();
    listed.sort();
    assert_eq!(listed, names);
}

#[test]
fn a_large_folder_that_is_read_often_costs_the_host_little() {
    let workspace = Workspace::new();
    let folder = workspace.path().join("data");
    fs::create_dir(&folder).unwrap();
    for n in 0..20_000 {
        fs::write(
            folder.join(format!("a-file-with-a-rather-long-name-{n}")),
            "",
        )
        .unwrap();
    }
    let manifest = format!(
        "[limits]\nmemory = \"16MiB\"\n[grants]\nfiles = [{{ host = {folder:?}, guest = \"/data\" }}]\n"
    );
    workspace.add_plugin("files", &components::test_guest("use_files"), &manifest);
    let host = workspace.serve();
    let memory = Memory::of(&host);
    for id in ["1", "2"] {
        host.post_event(id, "order:files", "read-often ");
    }
    wait_for("both to be done", || {
        let line = "64 at a time, insufficient-memory, 20000 entries";
        (host.log().matches(line).count() >= 2).then_some(())
    });
    let grown = memory.grown();
    assert!(grown < 48 * MIB, "{} MiB", grown / MIB);
}

#[test]
fn what_is_refused_of_files_is_logged_with_the_path_and_once() {
    for guest in ["use_files", "use_files_async"] {
        let workspace = Workspace::new();
        let folder = workspace.path().join("data");
        fs::create_dir(&folder).unwrap();
        symlink("/etc/passwd", folder.join("link")).unwrap();
        let host = folder.display();
        let manifest = format!(
            "events = [\"order:*\"]\n[grants]\nfiles = [{{ host = \"{host}\", guest = \"/in\" }}]\n[limits]\nbatch = 1\n"
        );
        workspace.add_plugin("files", &components::test_guest(guest), &manifest);
        let program = workspace.serve();
        let read = if guest == "use_files" { "read" } else { "open" };
        let orders = [
            (
                "write /in/new".to_owned(),
                format!(
                    "denied: it tried to write to /in/new, in a folder it may only read; to allow that, \
                 write in files.toml, under [grants]: files = [{{ host = \"{host}\", guest = \"/in\", \
                 write = true }}] plugin=\"files\""
                ),
            ),
            (
                format!("{read} /in/../secret"),
                "denied: it tried to leave its folder by the path \
                /in/../secret, which no manifest can grant plugin=\"files\""
                    .to_owned(),
            ),
            (
                format!("{read} /in/link"),
                "denied: it tried to leave its folder by the path /in/link, \
                which no manifest can grant plugin=\"files\""
                    .to_owned(),
            ),
        ];
        for (order, line) in &orders {
            // Alone: of a batch, this guest does only the first order.
            for _ in 0..2 {
                program.post_event(order, "order:files", order);
            }
            program.wait_for_log(line);
        }
        let (_, log) = program.stop();
        for (_, line) in &orders {
            assert_eq!(log.matches(line.as_str()).count(), 1, "{log}");
        }
    }
}

#[test]
fn a_plugin_that_wants_files_and_has_no_grant_is_told_what_to_write() {
    let line = "denied: it tried to use files, and no folder is granted to it; to allow that, write in \
        files.toml, under [grants]: files = [{ host = \"DIR\", guest = \"/DIR\", write = true }] \
        plugin=\"files\"";
    let workspace = Workspace::new();
    let manifest = "events = [\"order:*\"]\n";
    workspace.add_plugin("files", &components::test_guest("use_files"), manifest);
    let host = workspace.serve();
    host.post_event("1", "order:files", "read /in/file");
    host.wait_for_log(line);
}

#[test]
fn a_plugin_that_uses_no_files_hears_nothing_of_folders() {
    let workspace = Workspace::new();
    for guest in ["print_output", "connect"] {
        let manifest = "events = [\"order:*\"]\n";
        workspace.add_plugin(guest, &components::test_guest(guest), manifest);
    }
    let host = workspace.serve();
    host.post_event("1", "order:x", "127.0.0.1:1");
    host.wait_for_log("denied: it tried to connect to 127.0.0.1:1");
    let (_, log) = host.stop();
    assert!(!log.contains("no folder is granted"), "{log}");
}
