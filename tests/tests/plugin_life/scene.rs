//! A workspace whose plugins leave traces, and ways to change their files.
//!
//! A plugin `NAME` may write to the folder `out/NAME`, which it sees as `/out`.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use backhaul_tests::host::{Host, Workspace};
use backhaul_tests::{components, wait_for};
use serde_json::Value;

pub(crate) struct Scene(pub(crate) Workspace);

impl Scene {
    /// A workspace without plugins.
    pub(crate) fn new() -> Scene {
        Scene(Workspace::new())
    }

    /// A workspace with the plugin `a`: the guest `note_life`.
    pub(crate) fn with_a() -> Scene {
        let scene = Scene::new();
        scene.put("a.toml", manifest("a", "", "LABEL = \"one\"", ""));
        scene.put("a.wasm", version(1));
        scene
    }

    /// A path in the plugins folder.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.path().join("plugins").join(name)
    }

    /// Puts a file into the plugins folder, in one step.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        let hidden = self.file(&format!(".{name}.put"));
        fs::write(&hidden, content).expect("a file");
        fs::rename(&hidden, self.file(name)).expect("it is renamed");
    }

    /// The whole lines of a file that plugin `name` writes.
    pub(crate) fn lines(&self, name: &str, file: &str) -> Vec<String> {
        let path = self.0.path().join("out").join(name).join(file);
        let text = fs::read_to_string(path).unwrap_or_default();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole.lines().map(str::to_owned).collect()
    }

    /// The ids of the events that reached the plugin `name`, in order.
    pub(crate) fn ids(&self, name: &str) -> Vec<String> {
        let lines = self.lines(name, "published");
        let id = |line: &String| line.rsplit(' ').next().expect("an id").to_owned();
        lines.iter().map(id).collect()
    }

    /// Waits until `count` events have reached the plugin `name`.
    pub(crate) fn wait_for_events(&self, name: &str, count: usize) -> Vec<String> {
        wait_for(&format!("{count} events at {name}"), || {
            Some(self.ids(name)).filter(|ids| ids.len() >= count)
        })
    }

    /// Posts an event and waits until it is the last that reached the plugin
    /// `name`; returns the line it was noted with.
    pub(crate) fn deliver(&self, host: &Host, name: &str, id: &str) -> String {
        let answer = host.post_event(id, "after:signup", "1");
        assert_eq!(answer.status, 202, "{answer:?}");
        wait_for(&format!("event {id} at {name}"), || {
            let last = self.lines(name, "published").pop()?;
            (last == id || last.ends_with(&format!(" {id}"))).then_some(last)
        })
    }

    /// Waits until `count` instances of the plugin `name` have been closed.
    pub(crate) fn wait_for_closed(&self, name: &str, count: usize) -> Vec<String> {
        wait_for(&format!("{count} closed instances of {name}"), || {
            Some(self.lines(name, "closed")).filter(|lines| lines.len() >= count)
        })
    }
}

/// The manifest of plugin `name`: what stands at its top, and the entries of
/// `env` and `[limits]`.
pub(crate) fn manifest(name: &str, top: &str, env: &str, limits: &str) -> String {
    format!(
        "{top}\n[grants]\nfiles = [{{ host = \"out/{name}\", guest = \"/out\", write = true }}]\n\
         env = {{ {env} }}\n[limits]\n{limits}\n"
    )
}

/// The guest `note_life`, in a file unlike that of any other `number`.
pub(crate) fn version(number: u8) -> Vec<u8> {
    version_of("note_life", number)
}

/// A guest in a file unlike that of any other `number`: with a custom section,
/// which means nothing.
pub(crate) fn version_of(guest: &str, number: u8) -> Vec<u8> {
    marked(
        fs::read(components::test_guest(guest)).expect("the guest"),
        number,
    )
}

pub(crate) fn marked(mut component: Vec<u8>, number: u8) -> Vec<u8> {
    component.extend([0, 3, 1, b'v', number]);
    component
}

/// Waits until the plugin `name` is in use and `condition` holds for what
/// `GET /api/plugins` says of it.
pub(crate) fn wait_for_plugin(
    host: &Host,
    name: &str,
    what: &str,
    condition: impl Fn(&Value) -> bool,
) -> Value {
    wait_for(&format!("plugin {name}: {what}"), || {
        host.plugin(name).filter(&condition)
    })
}

/// Does `change`, and waits until another version of the plugin `name` is in use.
pub(crate) fn replace(host: &Host, name: &str, change: impl FnOnce()) -> Value {
    let before = host.plugin(name).expect("it is in use");
    change();
    wait_for_plugin(host, name, "another version", |now| {
        now["loaded"] != before["loaded"]
    })
}

/// As `wait_for`, for what takes its time even on an idle machine.
pub(crate) fn wait_long_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let patience = Duration::from_secs(150);
    let deadline = Instant::now() + patience;
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited {patience:?} for {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How often `text` stands in the log.
pub(crate) fn logged(host: &Host, text: &str) -> usize {
    host.log().matches(text).count()
}
