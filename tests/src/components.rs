//! The built components, where `cargo xtask plugins` and `cargo xtask test` put
//! them.

use std::path::{Path, PathBuf};

/// A first-party plugin's component, for instance `file`.
pub fn plugin(name: &str) -> PathBuf {
    built("plugins", name)
}

/// A test guest's component: the name of its file under `tests/guests`.
pub fn test_guest(name: &str) -> PathBuf {
    built("test-guests", name)
}

/// A runnable example of the library.
pub fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.ancestors().nth(2).expect("target/PROFILE");
    let path = profile.join("examples").join(name);
    assert_built(&path);
    path
}

/// The folder cargo builds into.
pub fn target() -> PathBuf {
    // Tests run as target/PROFILE/deps/NAME.
    let test = std::env::current_exe().expect("the path of this test");
    test.ancestors()
        .nth(3)
        .expect("a test runs in target/PROFILE/deps")
        .to_owned()
}

fn built(folder: &str, name: &str) -> PathBuf {
    let path = target().join(folder).join(name).with_extension("wasm");
    assert_built(&path);
    path
}

pub(crate) fn assert_built(path: &Path) {
    assert!(
        path.exists(),
        "{} is not built; run the tests with `cargo xtask test`",
        path.display()
    );
}
