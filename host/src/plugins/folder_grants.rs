//! Which folders may be granted, seen from what else there is on the host: the
//! host's own folders, and those that plugins may write to.

use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use super::error::PluginError;
use super::manifest::Manifest;
use crate::wasm::{FileGrant, WasmEngine};

/// Checks the folders a plugin is granted. It may not see the journal, nor write
/// where the host keeps what it runs. And no folder is granted whose path a plugin
/// could change, this one or another of the plugins folder: it could put a link in
/// its place, to any folder of the host, which would be granted from the next start
/// on.
pub(crate) fn check_folders(
    file: &Path,
    manifest: &Manifest,
    engine: &WasmEngine,
    journal: Option<&Path>,
) -> Result<(), PluginError> {
    if manifest.grants.files.is_empty() {
        return Ok(());
    }
    let file = std::path::absolute(file).unwrap_or_else(|_| file.to_owned());
    let manifest_file = file.with_extension("toml");
    let beside = file.parent().map(plugin_files).unwrap_or_default();
    if let Some(journal) = journal {
        let route = Route::of(journal);
        let mut grants = manifest.grants.files.iter();
        let shown = grants.find(|grant| route.meets(&Route::of(&grant.host).end));
        if let Some(grant) = shown {
            return Err(PluginError::JournalFolder {
                manifest: manifest_file,
                folder: grant.host.clone(),
                journal: journal.to_owned(),
            });
        }
    }
    for grant in writable(manifest) {
        let folder = Route::of(&grant.host).end;
        let folders = [file.parent(), engine.cache()].into_iter().flatten();
        let own = folders
            .map(|own| (own, Route::of(own)))
            .find(|(_, own)| own.meets(&folder))
            .map(|(own, _)| own.to_owned())
            // A file in the plugins folder may be a link.
            .or_else(|| {
                let trusted = beside.iter().map(PathBuf::as_path);
                trusted
                    .chain(engine.cache())
                    .chain(journal)
                    .find_map(|path| Route::of(path).through_part_of(&folder))
            });
        if let Some(own) = own {
            return Err(PluginError::OwnFolder {
                manifest: manifest_file,
                folder: grant.host.clone(),
                own,
            });
        }
    }
    let is_other = |path: &&PathBuf| {
        path.extension()
            .is_some_and(|extension| extension == "toml")
            && **path != manifest_file
            && path.with_extension("wasm").exists()
    };
    // One with a mistake gets its plugin nothing.
    let others = beside
        .iter()
        .filter(is_other)
        .filter_map(|path| Some((path, Manifest::read(path).ok()?)));
    let others: Vec<_> = others.collect();
    let all = others.iter().map(|(path, manifest)| (*path, manifest));
    for (writer, outer) in all
        .chain([(&manifest_file, manifest)])
        .flat_map(|(path, manifest)| writable(manifest).map(move |grant| (path, grant)))
    {
        let folder = Route::of(&outer.host).end;
        let inside = |host: &Path| Route::of(host).through_part_of(&folder).is_some();
        let mut grants = manifest.grants.files.iter();
        if let Some(grant) = grants.find(|grant| inside(&grant.host)) {
            return Err(PluginError::NestedFolder {
                manifest: manifest_file.clone(),
                folder: grant.host.clone(),
                outer: outer.host.clone(),
                writer: writer.clone(),
            });
        }
    }
    Ok(())
}

fn writable(manifest: &Manifest) -> impl Iterator<Item = &FileGrant> {
    manifest.grants.files.iter().filter(|grant| grant.write)
}

/// The components and manifests in the plugins folder.
fn plugin_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    let is_one = |path: &PathBuf| {
        let extension = path.extension();
        extension.is_some_and(|extension| extension == "wasm" || extension == "toml")
    };
    paths.filter(is_one).collect()
}

/// How many links of a path are followed, as many as Linux does.
const MAX_LINKS: usize = 40;

/// How a path is resolved.
#[derive(Debug)]
struct Route {
    /// What it leads to, without links and `..`, whether that exists or not.
    end: PathBuf,
    /// The folders in which a part of it, or of a link on the way, is looked up.
    through: Vec<PathBuf>,
}

impl Route {
    /// Whether it leads to `folder`, into it, or to a folder around it.
    fn meets(&self, folder: &Path) -> bool {
        self.end.starts_with(folder) || folder.starts_with(&self.end)
    }

    fn of(path: &Path) -> Route {
        let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let parts = |path: &Path| -> Vec<OsString> {
            let parts = path.components().rev();
            parts.map(|part| part.as_os_str().to_owned()).collect()
        };
        let (mut end, mut through, mut links) = (PathBuf::new(), Vec::new(), 0);
        // The next part is the last.
        let mut ahead = parts(&path);
        while let Some(part) = ahead.pop() {
            match Path::new(&part).components().next() {
                None | Some(Component::CurDir) => {}
                Some(Component::ParentDir) => {
                    end.pop();
                }
                // `/`, in whose place this one comes.
                Some(Component::RootDir | Component::Prefix(_)) => end.push(&part),
                Some(Component::Normal(name)) => {
                    through.push(end.clone());
                    let next = end.join(name);
                    match std::fs::read_link(&next) {
                        Ok(target) if links < MAX_LINKS => {
                            links += 1;
                            ahead.extend(parts(&target));
                        }
                        _ => end = next,
                    }
                }
            }
        }
        Route { end, through }
    }

    /// The first folder on the way that is `folder` or lies in it: whoever may
    /// write to `folder` decides where the path leads.
    fn through_part_of(self, folder: &Path) -> Option<PathBuf> {
        let mut through = self.through.into_iter();
        through.find(|on_the_way| on_the_way.starts_with(folder))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A folder, by its path without links.
    fn folder() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().canonicalize().unwrap();
        (folder, path)
    }

    #[test]
    fn a_path_is_resolved_as_the_system_would_and_also_where_nothing_is_yet() {
        let (_kept, top) = folder();
        fs::create_dir_all(top.join("real/below")).unwrap();
        symlink("real/below", top.join("link")).unwrap();
        symlink(top.join("link"), top.join("chain")).unwrap();
        symlink("loop", top.join("loop")).unwrap();
        for (path, end) in [
            ("real/below", "real/below"),
            ("link", "real/below"),
            ("chain/.", "real/below"),
            ("chain/..", "real"),
            ("link/missing", "real/below/missing"),
            ("missing/../link", "real/below"),
            ("missing/deeper/../../real", "real"),
            ("chain/missing/../../below", "real/below"),
        ] {
            assert_eq!(Route::of(&top.join(path)).end, top.join(end), "{path}");
        }
        assert!(Route::of(&top.join("loop")).end.starts_with(&top));
    }

    #[test]
    fn a_route_names_every_folder_a_link_is_looked_up_in() {
        let (_kept, top) = folder();
        for name in ["a", "b", "c"] {
            fs::create_dir(top.join(name)).unwrap();
        }
        symlink("../b/link", top.join("a/link")).unwrap();
        symlink("../c", top.join("b/link")).unwrap();
        let through = |folder| Route::of(&top.join("a/link")).through_part_of(&top.join(folder));
        assert_eq!(through("a"), Some(top.join("a")));
        assert_eq!(through("b"), Some(top.join("b")));
        assert_eq!(through("c"), None, "it ends there");
    }

    /// What is said of the plugin `x` with these folders, with what lies in the
    /// plugins folder.
    fn check(top: &Path, files: &[(&str, bool)]) -> Option<String> {
        let line = |(host, write): &(&str, bool)| {
            let host = top.join(host).display().to_string();
            format!("{{ host = {host:?}, guest = {host:?}, write = {write} }}")
        };
        let lines: Vec<_> = files.iter().map(line).collect();
        let text = format!("[grants]\nfiles = [{}]\n", lines.join(", "));
        let file = top.join("plugins/x.wasm");
        let manifest = Manifest::parse(&file.with_extension("toml"), &text).unwrap();
        let engine = WasmEngine::with_cache(Some(top.join("cache"))).unwrap();
        let checked = check_folders(&file, &manifest, &engine, None);
        checked.err().map(|error| error.to_string())
    }

    #[test]
    fn no_plugin_may_write_where_a_link_in_the_plugins_folder_leads() {
        let (_kept, top) = folder();
        for name in ["plugins", "releases/1", "manifests", "data"] {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        fs::write(top.join("releases/1/x.wasm"), "").unwrap();
        fs::write(top.join("manifests/y.toml"), "").unwrap();
        symlink("1", top.join("releases/now")).unwrap();
        symlink("../releases/now/x.wasm", top.join("plugins/x.wasm")).unwrap();
        symlink("../manifests/y.toml", top.join("plugins/y.toml")).unwrap();
        for host in [
            "releases",
            "releases/1",
            "manifests",
            "plugins",
            "missing/../plugins",
            "cache",
        ] {
            let reason = check(&top, &[(host, true)]).expect(host);
            assert!(
                reason.contains("it could change what the host runs"),
                "{host}: {reason}"
            );
        }
        assert_eq!(check(&top, &[("data", true), ("releases", false)]), None);
    }

    #[test]
    fn no_folder_is_granted_whose_path_a_plugin_may_change() {
        let (_kept, top) = folder();
        for name in ["plugins", "data/in", "beside", "outside"] {
            fs::create_dir_all(top.join(name)).unwrap();
        }
        symlink("data/in", top.join("link")).unwrap();
        symlink("../outside", top.join("data/planted")).unwrap();
        let refused = |files: &[(&str, bool)]| {
            let reason = check(&top, files).expect("to be refused");
            assert!(reason.contains("could put a link in its place"), "{reason}");
            reason
        };
        for inner in ["data/in", "link", "data/planted", "data/missing"] {
            refused(&[("data", true), (inner, true)]);
            refused(&[(inner, true), ("data", true)]);
        }
        for files in [
            [("data", false), ("data/in", true)],
            [("data", true), ("beside", true)],
            [("data/in", true), ("link", false)],
        ] {
            assert_eq!(check(&top, &files), None, "{files:?}");
        }

        // Another plugin has the outer one.
        let host = top.join("data").display().to_string();
        let grant = |write: bool| {
            format!("[grants]\nfiles = [{{ host = {host:?}, guest = \"/d\", write = {write} }}]\n")
        };
        let other = top.join("plugins/other.toml");
        fs::write(&other, grant(true)).unwrap();
        assert_eq!(
            check(&top, &[("data/planted", false)]),
            None,
            "it is no plugin"
        );
        fs::write(top.join("plugins/other.wasm"), "").unwrap();
        let reason = refused(&[("data/planted", false)]);
        assert!(reason.contains(&other.display().to_string()), "{reason}");
        assert_eq!(check(&top, &[("data", true)]), None, "they share it");
        fs::write(&other, grant(false)).unwrap();
        assert_eq!(check(&top, &[("data/planted", false)]), None);
    }
}
