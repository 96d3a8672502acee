//! The attacks: which guest, what it is told and granted, and the sign by which
//! the host shows that the attack took place and was dealt with.

use serde_json::Value;

use crate::slow_components::{self, KINDS, Make};
use backhaul_tests::components::{self, GROW_TABLE, component_of};

/// What an attack takes from the others if it is not kept from it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No attack: what the measurement itself shows.
    None,
    /// Processors, which all share.
    Cpu,
    /// Anything else.
    Other,
}

/// When it attacks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// With every event.
    Publish,
    /// As it is loaded; it is dropped into the folder again and again.
    Load,
    /// With every event, and as it is closed; its manifest changes all the time.
    Replace,
}

/// How the host shows that it met the attack.
#[derive(Clone, Copy)]
pub(crate) enum Sign {
    /// An instance ended, for a reason with these words.
    Broke(&'static str),
    /// The same, and every time: it is set aside in the end.
    Quarantined(&'static str),
    /// It was denied something of this kind.
    Denied(&'static str),
    /// It reported failures; the log has these words.
    Failed(&'static str),
    /// The file was not loaded, for a reason with these words.
    Refused(&'static str),
    /// It took its events.
    Delivered,
}

pub(crate) struct Attack {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) when: When,
    component: Component,
    /// The data of its events. `{server}` is a server that takes connections and
    /// nothing more, `{host}` the host itself.
    pub(crate) order: &'static str,
    /// Lines under `[grants]`; `{server}` as above, `{out}` a folder.
    pub(crate) grants: &'static str,
    pub(crate) sign: Sign,
}

enum Component {
    Guest(&'static str),
    Text(String),
    Slow(Make, usize),
    Nested(usize),
}

impl Attack {
    pub(crate) fn wasm(&self) -> Vec<u8> {
        match &self.component {
            Component::Guest(name) => {
                std::fs::read(components::test_guest(name)).expect("the guest")
            }
            Component::Text(text) => slow_components::wasm(text),
            Component::Slow(make, size) => slow_components::wasm(&make(*size)),
            Component::Nested(depth) => slow_components::nested(*depth),
        }
    }

    fn granted(self, grants: &'static str) -> Attack {
        Attack { grants, ..self }
    }

    fn when(self, when: When) -> Attack {
        Attack { when, ..self }
    }
}

/// An attack of a guest in `publish`.
fn publish(guest: &'static str, order: &'static str, kind: Kind, sign: Sign) -> Attack {
    let name = match order {
        "" => guest.to_owned(),
        _ => format!("{guest}: {order}"),
    };
    Attack {
        name,
        kind,
        when: When::Publish,
        component: Component::Guest(guest),
        order,
        grants: "",
        sign,
    }
}

/// An attack of a guest that is not loaded.
fn load(guest: &'static str, kind: Kind, reason: &'static str) -> Attack {
    publish(guest, "", kind, Sign::Refused(reason)).when(When::Load)
}

/// The same of any component.
fn load_other(name: &str, kind: Kind, component: Component, reason: &'static str) -> Attack {
    Attack {
        name: name.to_owned(),
        kind,
        when: When::Load,
        component,
        order: "",
        grants: "",
        sign: Sign::Refused(reason),
    }
}

const OUT: &str = "files = [{ host = \"{out}\", guest = \"/out\", write = true }]";
/// For `answer_as_told`, in hexadecimal.
const NAME: &str = "env = { NAME = \"61\" }";
const SERVER: &str = "tcp = [\"{server}\"]";

/// The sizes that take too long, in the order of [`KINDS`].
const SLOW: [usize; 6] = [20_000, 400, 3000, 900, 60, 20_000];

#[rustfmt::skip] // A table.
pub(crate) fn all() -> Vec<Attack> {
    use Kind::{Cpu, Other};
    use Sign::{Broke, Delivered, Denied, Failed, Quarantined};
    let mut attacks = vec![
        publish("compute", "0", Kind::None, Delivered),

        publish("loop_in_publish", "", Cpu, Quarantined("processor time")),
        publish("loop_async", "", Cpu, Quarantined("processor time")),
        publish("compute", "150", Cpu, Delivered),
        publish("loop_in_close", "", Cpu, Delivered).when(When::Replace),
        publish("hostile_alloc", "loop", Cpu, Broke("processor time")),
        publish("hostile_alloc", "grow", Other, Broke("of memory")),
        publish("hostile_alloc", "wild", Other, Broke("it trapped")),
        publish("grow_memory", "", Other, Quarantined("of memory")),
        publish("grow_memory_politely", "", Other, Failed("")),
        publish("recurse", "", Other, Quarantined("call stack exhausted")),
        publish("trap_in_publish", "", Other, Broke("it trapped")).granted(OUT),
        publish("answer_as_told", "T", Other, Quarantined("it trapped")).granted(NAME),
        publish("answer_as_told", "X1.", Other, Quarantined("")).granted(NAME),

        publish("sleep_in_publish", "", Other, Quarantined("was not done after")),
        publish("stall_async", "", Other, Quarantined("was not done after")),
        publish("use_dead_server", "read {server}", Other, Broke("was not done after")).granted(SERVER),
        publish("use_dead_server", "write {server}", Other, Broke("was not done after")).granted(SERVER),

        publish("open_files", "", Other, Quarantined("open files, sockets")).granted(OUT),
        publish("open_sockets", "{server}", Other, Broke("open files, sockets")).granted(SERVER),
        publish("leak_async", "waits", Other, Quarantined("open files, sockets")),

        publish("flood_output", "lines", Cpu, Quarantined("processor time")),
        publish("flood_output", "bytes", Cpu, Quarantined("processor time")),
        publish("flood_output", "blanks", Cpu, Quarantined("processor time")),
        publish("print_output", "endless", Cpu, Delivered),

        publish("many_errors", "", Other, Failed("forged")),
        publish("overlapping_errors", "", Other, Quarantined("")),
        publish("binary_error", "", Other, Quarantined("")),
        publish("empty_error", "", Other, Failed("")),
        publish("wrong_failures", "largest", Other, Quarantined("")),
        publish("wrong_failures", "endless", Other, Quarantined("")),

        publish("connect", "{host}", Other, Denied("tcp")),
        publish("connect_async", "udp 127.0.0.1:9", Other, Denied("udp")),
        publish("lookup", "example.com:80", Other, Denied("name")),
        publish("listen", "tcp 127.0.0.1:0", Other, Denied("listen")),
        publish("fetch", "get http://127.0.0.1:9/", Other, Denied("http")),
        publish("use_files", "read /out/../../etc/passwd", Other, Denied("files")).granted(OUT),
        publish("read_env", "", Other, Failed("")),

        load("loop_in_name", Cpu, "processor time"),
        load("loop_at_start", Cpu, "processor time"),
        load("trap_in_name", Other, "it trapped"),
        load("huge_name", Other, "name"),
        load("empty_name", Other, "name"),
        load("control_char_name", Other, "name"),
        load_other("a table that grows", Other, Component::Text(component_of(GROW_TABLE)), "elements"),
        load_other("a memory of 4 GiB", Other, Component::Text(slow_components::backend("(memory 65536)", "")), "of memory"),
        load_other("wrong types", Other, Component::Text(slow_components::backend("", "")), ""),
        load_other("components in components", Cpu, Component::Nested(100_000), ""),
    ];
    for ((kind, make), size) in KINDS.into_iter().zip(SLOW) {
        let name = format!("slow to compile: {kind}");
        attacks.push(load_other(&name, Cpu, Component::Slow(make, size), ""));
    }
    attacks
}

impl Sign {
    /// Whether it is there, in what the host says of the plugin and has logged
    /// since the attack began.
    pub(crate) fn is_there(self, status: &Value, log: &str) -> bool {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        match self {
            Sign::Broke(words) | Sign::Quarantined(words) => {
                status["instances"]["broken"].as_u64() > Some(0)
                    && text(&status["instances"]["last_error"]).contains(words)
            }
            Sign::Denied(kind) => {
                let denials = status["denied"]["denials"].as_array();
                denials.is_some_and(|denials| denials.iter().any(|denial| denial["kind"] == kind))
            }
            Sign::Failed(words) => {
                status["delivery"]["dead"].as_u64() > Some(0) && log.contains(words)
            }
            Sign::Refused(words) => {
                status["reason"].is_string() && text(&status["reason"]).contains(words)
            }
            Sign::Delivered => status["delivery"]["delivered"].as_u64() > Some(0),
        }
    }
}
