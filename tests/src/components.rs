//! The components backends are tried with: built ones, where `cargo xtask plugins`
//! and `cargo xtask test` put them, and what those written by hand are made of.

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

/// A part of a module that makes its table larger as it starts, until that is
/// refused.
pub const GROW_TABLE: &str = "
    (table $table 1 funcref)
    (func $grow
      (loop $again
        (br_if $again
          (i32.ne (table.grow $table (ref.null func) (i32.const 1000)) (i32.const -1))))
      unreachable)
    (start $grow)";

/// The text of a backend with nothing in it but `module`, the text of what its
/// module holds besides a memory, a `name` that is empty, and a function that does
/// nothing.
pub fn component_of(module: &str) -> String {
    format!(
        r#"(component
  (core module $module
    (memory (export "memory") 1)
    {module}
    (func (export "name") (result i32) i32.const 0)
    (func (export "nothing")))
  (core instance $instance (instantiate $module))
  (func $name (result string)
    (canon lift (core func $instance "name") (memory (core memory $instance "memory"))))
  (func $nothing (canon lift (core func $instance "nothing")))
  (instance $backend
    (export "name" (func $name))
    (export "publish" (func $nothing))
    (export "close" (func $nothing)))
  (export "backhaul:backend/blocking-backend@0.1.0" (instance $backend)))"#
    )
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
