//! Folders: granted ones, to read or to write, and nothing around them.

use std::fs;
use std::os::unix::fs::symlink;

use backhaul::wasm::{FileGrant, Grants};

use crate::guest::{GENEROUS, Out, ask, start, within};

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
