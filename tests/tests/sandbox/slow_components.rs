//! Components that are small, and a lot of work to compile.
//!
//! Each is the contract's interface with nothing behind it, and one thing that is
//! too much. `size` says how much.

/// Makes the text of a component of a size.
pub(crate) type Make = fn(usize) -> String;

/// What compiling takes too much of, by the name of what makes it.
pub(crate) const KINDS: [(&str, Make); 6] = [
    ("functions", functions),
    ("branches", branches),
    ("values", values),
    ("modules", modules),
    ("adapters", adapters),
    ("data", data),
];

/// The Wasm of one of them.
pub(crate) fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("a component")
}

/// Functions without number.
pub(crate) fn functions(size: usize) -> String {
    let function = "(func (param i32 i64) (result i64)
        (i64.add (i64.mul (local.get 1) (i64.extend_i32_u (local.get 0))) (i64.load (local.get 0))))";
    backend(&format!("(memory 1) {}", function.repeat(size)), "")
}

/// One function of blocks within blocks, each with a jump to every other.
pub(crate) fn branches(size: usize) -> String {
    let targets: String = (0..size).map(|n| format!("{n} ")).collect();
    let jump = format!("(if (local.get 0) (then (br_table {targets}(local.get 0))))");
    let (begin, end) = ("(block ".repeat(size), ")".repeat(size));
    let body = jump.repeat(size);
    backend(&format!("(func (param i32) {begin}{body}{end})"), "")
}

/// One function that keeps very many values over very many blocks.
pub(crate) fn values(size: usize) -> String {
    let locals = "i64 ".repeat(size);
    let step = |n: usize| {
        let (to, from) = (n % size + 1, (n * 7 + 3) % size + 1);
        format!(
            "(if (local.get 0) (then (local.set {to} (i64.add (local.get {from}) (i64.const {n})))))"
        )
    };
    let steps: String = (0..2 * size).map(step).collect();
    backend(
        &format!("(func (param i32) (local {locals}) (loop {steps} (br_if 0 (local.get 0))))"),
        "",
    )
}

/// Modules without number.
pub(crate) fn modules(size: usize) -> String {
    backend(
        "",
        &"(core module (func (result i32) i32.const 1))".repeat(size),
    )
}

/// Calls from component to component, with large values to be carried over.
pub(crate) fn adapters(size: usize) -> String {
    let fields: String = (0..size)
        .map(|n| format!("(field \"f{n}\" (list (tuple string (list u8) (option string))))"))
        .collect();
    let types =
        format!("(type $record' (record {fields})) (export $record \"record\" (type $record'))");
    let memory = r#"(memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) unreachable)"#;
    let callee: String = (0..size)
        .map(|n| {
            format!(
                "(func $f{n} (param \"v\" $record) (canon lift (core func $i \"f\") (memory (core memory $i \"memory\")) (realloc (core func $i \"realloc\"))))
                 (export \"f{n}\" (func $f{n}))"
            )
        })
        .collect();
    let imports: String = (0..size)
        .map(|n| format!("(export \"f{n}\" (func (param \"v\" $record)))"))
        .collect();
    let lowered: String = (0..size)
        .map(|n| format!("(core func $l{n} (canon lower (func $callee \"f{n}\") (memory (core memory $m \"memory\"))))"))
        .collect();
    let used: String = (0..size)
        .map(|n| format!("(export \"f{n}\" (func $l{n}))"))
        .collect();
    let wanted: String = (0..size)
        .map(|n| format!("(import \"\" \"f{n}\" (func (param i32)))"))
        .collect();
    let inner = format!(
        r#"(component $callee
            (core module $m (func (export "f") (param i32)) {memory})
            (core instance $i (instantiate $m))
            {types} {callee})
        (component $caller
            (import "callee" (instance $callee (type $record' (record {fields})) (export "record" (type $record (eq $record'))) {imports}))
            (core module $m {memory})
            (core instance $m (instantiate $m))
            {lowered}
            (core module $user {wanted})
            (core instance $used {used})
            (core instance (instantiate $user (with "" (instance $used)))))
        (instance $a (instantiate $callee))
        (instance (instantiate $caller (with "callee" (instance $a))))"#
    );
    backend("", &inner)
}

/// Memory that begins with `size` KiB of data.
pub(crate) fn data(size: usize) -> String {
    let pages = size.div_ceil(64);
    let kib = "0123456789abcdef".repeat(64).repeat(size);
    backend(
        &format!("(memory {pages}) (data (i32.const 0) \"{kib}\")"),
        "",
    )
}

/// A backend that does nothing, with something in its module and beside it.
pub(crate) fn backend(in_module: &str, in_component: &str) -> String {
    format!(
        r#"(component
            (core module $module
                (func (export "nothing"))
                {in_module})
            (core instance $instance (instantiate $module))
            {in_component}
            (func $nothing (canon lift (core func $instance "nothing")))
            (instance $backend
                (export "name" (func $nothing))
                (export "publish" (func $nothing))
                (export "close" (func $nothing)))
            (export "backhaul:backend/blocking-backend@0.1.0" (instance $backend)))"#
    )
}

/// Components within components, and nothing in the innermost.
pub(crate) fn nested(depth: usize) -> Vec<u8> {
    const HEAD: &[u8; 8] = b"\0asm\x0d\0\x01\0";
    const COMPONENT: u8 = 4;
    // From the inside out, and so from the end to the beginning.
    let mut reversed: Vec<u8> = HEAD.iter().rev().copied().collect();
    for _ in 0..depth {
        let mut length = reversed.len();
        let mut digits = Vec::new();
        while length > 0x7f {
            digits.push(length as u8 | 0x80);
            length >>= 7;
        }
        digits.push(length as u8);
        reversed.extend(digits.iter().rev());
        reversed.push(COMPONENT);
        reversed.extend(HEAD.iter().rev());
    }
    reversed.reverse();
    reversed
}
