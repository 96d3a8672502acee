//! A backend of some hundred bytes, which compiles in no time and answers with
//! what lies in its memory.

use std::sync::OnceLock;

/// `name` returns 16: a pointer, a length, then the text. `close` returns 96:
/// whether it failed, a pointer, a length. `publish` returns the address of the
/// first event's data, so that the data is the answer. Memory is handed out
/// without end, and never taken back.
const TEXT: &str = r#"(component
  (core module $module
    (memory (export "memory") 1)
    (global $free (mut i32) (i32.const 1024))
    (data (i32.const 16) "\18\00\00\00\05\00\00\00small")
    (data (i32.const 96) "\00\00\00\00\70\00\00\00\05\00\00\00")
    (data (i32.const 112) "stuck")
    (func (export "name") (result i32) i32.const 16)
    (func (export "publish") (param i32 i32) (result i32)
      (i32.load offset=76 (local.get 0)))
    (func (export "close") (result i32) i32.const 96)
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $free) (i32.const 7)) (i32.const -8)))
      (global.set $free (i32.add (local.get $at) (local.get 3)))
      (if (i32.gt_u (global.get $free) (i32.mul (memory.size) (i32.const 65536)))
        (then (drop (memory.grow (i32.const 16)))))
      (local.get $at)))
  (core instance $instance (instantiate $module))
  (alias core export $instance "memory" (core memory $memory))
  (alias core export $instance "realloc" (core func $realloc))

  (type $timestamp-type (record (field "seconds" s64) (field "nanoseconds" u32)))
  (export $timestamp "timestamp" (type $timestamp-type))
  (type $event-type (record
    (field "id" string) (field "source" string) (field "event-type" string)
    (field "subject" (option string)) (field "time" $timestamp)
    (field "content-type" (option string))
    (field "attributes" (list (tuple string string))) (field "data" (list u8))))
  (export $event "event" (type $event-type))
  (type $error-type (variant (case "retryable" string) (case "permanent" string)))
  (export $error "publish-error" (type $error-type))
  (type $failure-type (record (field "index" u32) (field "error" $error)))
  (export $failure "failure" (type $failure-type))

  (func $name (result string)
    (canon lift (core func $instance "name") (memory $memory)))
  (func $publish (param "events" (list $event)) (result (result (error (list $failure))))
    (canon lift (core func $instance "publish") (memory $memory) (realloc $realloc)))
  (func $close (result (result (error string)))
    (canon lift (core func $instance "close") (memory $memory)))
  (instance $backend
    (export "name" (func $name))
    (export "publish" (func $publish))
    (export "close" (func $close)))
  (export "backhaul:backend/blocking-backend@0.1.0" (instance $backend)))"#;

/// The component.
pub(crate) fn component() -> Vec<u8> {
    static COMPONENT: OnceLock<Vec<u8>> = OnceLock::new();
    let assemble = || wat::parse_str(TEXT).expect("a component");
    COMPONENT.get_or_init(assemble).clone()
}
