//! Files that are no plugin, each broken in one way.

use backhaul_tests::components;

/// A component of this contract, as far as its name tells: what it exports has
/// other types.
const WRONG_TYPES: &str = r#"(component
  (core module $module
    (func (export "name") (result i32) i32.const 7)
    (func (export "nothing")))
  (core instance $instance (instantiate $module))
  (func $name (result u32) (canon lift (core func $instance "name")))
  (func $nothing (canon lift (core func $instance "nothing")))
  (instance $backend
    (export "name" (func $name))
    (export "publish" (func $nothing))
    (export "close" (func $nothing)))
  (export "backhaul:backend/blocking-backend@0.1.0" (instance $backend)))"#;

/// The contract's interface with one of three functions.
const LACKS_FUNCTIONS: &str = r#"(component
  (core module $module
    (func (export "nothing")))
  (core instance $instance (instantiate $module))
  (func $nothing (canon lift (core func $instance "nothing")))
  (instance $backend (export "name" (func $nothing)))
  (export "backhaul:backend/async-backend@0.1.0" (instance $backend)))"#;

/// A backend that wants what no host of this contract has.
const UNKNOWN_IMPORT: &str = r#"(component
  (import "corp:secrets/vault@1.0.0" (instance (export "open" (func))))
  (core module $module
    (func (export "nothing")))
  (core instance $instance (instantiate $module))
  (func $nothing (canon lift (core func $instance "nothing")))
  (instance $backend
    (export "name" (func $nothing))
    (export "publish" (func $nothing))
    (export "close" (func $nothing)))
  (export "backhaul:backend/blocking-backend@0.1.0" (instance $backend)))"#;

/// A command-line program.
const COMMAND: &str = r#"(component
  (core module $module
    (func (export "run") (result i32) i32.const 0))
  (core instance $instance (instantiate $module))
  (func $run (result (result)) (canon lift (core func $instance "run")))
  (instance $command (export "run" (func $run)))
  (export "wasi:cli/run@0.2.0" (instance $command)))"#;

/// The contract in a version that does not exist yet.
const LATER_VERSION: &str = r#"(component
  (core module $module
    (func (export "nothing")))
  (core instance $instance (instantiate $module))
  (func $nothing (canon lift (core func $instance "nothing")))
  (instance $backend (export "name" (func $nothing)))
  (export "backhaul:backend/blocking-backend@7.0.0" (instance $backend)))"#;

/// What is in the file, and the words that must be in the reason it is refused for.
pub(crate) struct Broken {
    pub(crate) name: &'static str,
    pub(crate) bytes: Vec<u8>,
    pub(crate) reason: &'static [&'static str],
}

/// Every kind of file that is refused without being run.
pub(crate) fn all() -> Vec<Broken> {
    let sound = std::fs::read(components::test_guest("record_blocking")).expect("the guest");
    let damaged = {
        let mut bytes = sound.clone();
        let middle = bytes.len() / 2;
        bytes[middle..middle + 64].fill(0xff);
        bytes
    };
    let file = |name, bytes: &[u8], reason| Broken {
        name,
        bytes: bytes.to_vec(),
        reason,
    };
    let text = |name, text: &str, reason| file(name, &wat::parse_str(text).expect(name), reason);
    let whole = &["not a whole component"];
    let behind = [&sound[..], b"and more"].concat();
    vec![
        file("empty", b"", &["the file is empty"]),
        file("begun", &sound[..6], &["ends within the first 8 bytes"]),
        file("truncated", &sound[..sound.len() / 2], whole),
        file("nearly-whole", &sound[..sound.len() - 1], whole),
        file("more-behind", &behind, whole),
        file("damaged", &damaged, &["does not compile"]),
        file("noise", &noise(), &["it is not Wasm"]),
        file("text", b"(component)", &["it is not Wasm"]),
        file("noise-with-head", &[&sound[..8], &noise()].concat(), whole),
        text(
            "core-module",
            "(module)",
            &["core Wasm module, not a component", "wasm32-wasip2"],
        ),
        file(
            "other-kind",
            b"\0asm\x63\0\x09\0",
            &["Wasm of a kind this host does not know"],
        ),
        text(
            "exports-nothing",
            "(component)",
            &["not a backend: it exports nothing", "a backend exports"],
        ),
        text(
            "command",
            COMMAND,
            &[
                "it exports wasi:cli/run@0.2.0",
                "backhaul:backend/async-backend@0.1.0 or backhaul:backend/blocking-backend@0.1.0",
            ],
        ),
        text(
            "later-version",
            LATER_VERSION,
            &["it exports backhaul:backend/blocking-backend@7.0.0"],
        ),
        text(
            "wrong-types",
            WRONG_TYPES,
            &[
                "its function `name` has another type than in backhaul:backend/blocking-backend@0.1.0",
            ],
        ),
        text(
            "lacks-functions",
            LACKS_FUNCTIONS,
            &["its backhaul:backend/async-backend@0.1.0 lacks the function `publish`"],
        ),
        text(
            "unknown-import",
            UNKNOWN_IMPORT,
            &[
                "imports what this host does not provide",
                "corp:secrets/vault@1.0.0",
            ],
        ),
    ]
}

/// Guests that start and have no name that can be used.
pub(crate) const NAMELESS: [(&str, &[&str]); 5] = [
    ("trap_in_name", &["in `name`, it trapped"]),
    ("empty_name", &["its name is \"\", 0 bytes"]),
    (
        "huge_name",
        &["10000000 bytes; a name has 1 to 64 characters"],
    ),
    (
        "control_char_name",
        &[r"\u{1b}[2Jname\u{a}INFO", "a name has 1 to 64 characters"],
    ),
    ("loop_in_name", &["in `name`, it ", "under [limits]"]),
];

/// 10 kB that look like nothing, the same in every run.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = |_| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (state >> 56) as u8
    };
    (0..10_000).map(next).collect()
}
