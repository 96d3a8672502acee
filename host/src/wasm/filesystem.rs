//! What is asked of `wasi:filesystem` before Wasmtime does it, for WASI 0.2 and
//! 0.3: two of its functions, with ours in front. (For two more see `entries`.)
//!
//! Wasmtime keeps a guest in its folders, which are given here, as they were
//! opened when the plugin was loaded. These say in the log what it was
//! refused, and keep it from opening what is neither file nor folder: to open a
//! FIFO waits for whoever else opens it, and the thread it waits on is the
//! host's, also when the call is long over.

use std::future::Future;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::StoreContextMut;
use wasmtime::component::{Accessor, Linker, Resource, ResourceTable};
use wasmtime_wasi::FsPerms;
use wasmtime_wasi::filesystem::{Descriptor, Dir, WasiFilesystem, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types as types2;
use wasmtime_wasi::p3::bindings::filesystem::types as types3;

use super::entries::{self, MAX_READERS, READ_DIRECTORY, READ_ENTRY};
use super::grants::{DenialKind, Denials, Explanation, FileGrant, OpenFolder};
use super::state::State;

const TYPES_2: &str = "wasi:filesystem/types@0.2.12";
const TYPES_3: &str = "wasi:filesystem/types@0.3.0";
const PREOPENS_2: &str = "wasi:filesystem/preopens@0.2.12";
const PREOPENS_3: &str = "wasi:filesystem/preopens@0.3.0";
const OPEN_AT: &str = "[method]descriptor.open-at";
const GET_DIRECTORIES: &str = "get-directories";

/// Puts ours into `linker`, in place of Wasmtime's.
///
/// # Errors
///
/// If Wasmtime's are not there under these names: ours would stand beside them.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    for (interface, function) in [
        (TYPES_2, OPEN_AT),
        (TYPES_2, READ_DIRECTORY),
        (TYPES_2, READ_ENTRY),
        (TYPES_3, OPEN_AT),
        (PREOPENS_2, GET_DIRECTORIES),
        (PREOPENS_3, GET_DIRECTORIES),
    ] {
        linker.allow_shadowing(false);
        let nothing = |_: StoreContextMut<'_, State>, (): ()| Ok(());
        let added = linker.instance(interface)?.func_wrap(function, nothing);
        wasmtime::ensure!(
            added.is_err(),
            "this Wasmtime has no {function} in {interface}"
        );
    }
    linker.allow_shadowing(true);
    entries::add_to_linker(linker, TYPES_2)?;
    linker
        .instance(TYPES_2)?
        .func_wrap_async(OPEN_AT, |mut store, arguments| {
            Box::new(async move { Ok((open_at_2(store.data_mut(), arguments).await?,)) })
        })?;
    linker
        .instance(TYPES_3)?
        .func_wrap_concurrent(OPEN_AT, |store, arguments| {
            boxed(async move { Ok((open_at_3(store, arguments).await?,)) })
        })?;
    for interface in [PREOPENS_2, PREOPENS_3] {
        linker
            .instance(interface)?
            .func_wrap(GET_DIRECTORIES, |mut store, (): ()| {
                let state: &mut State = store.data_mut();
                Ok((state.granted_folders()?,))
            })?;
    }
    Ok(())
}

type Future3<'a, T> = Pin<Box<dyn Future<Output = wasmtime::Result<T>> + Send + 'a>>;

fn boxed<'a, T>(future: impl Future<Output = wasmtime::Result<T>> + Send + 'a) -> Future3<'a, T> {
    Box::pin(future)
}

/// The folders of one instance, and what is counted of them.
pub(super) struct Files {
    folders: Arc<[OpenFolder]>,
    denials: Arc<Denials>,
    /// One permit for each folder it may be reading.
    readers: Arc<Semaphore>,
}

/// What became of an attempt to open something.
#[derive(Clone, Copy)]
enum Refused {
    /// It is neither a file nor a folder.
    Special,
    /// Wasmtime does not permit it; the second says whether it would write.
    NotPermitted { writes: bool },
}

impl Files {
    pub(super) fn new(folders: Arc<[OpenFolder]>, denials: Arc<Denials>) -> Files {
        Files {
            folders,
            denials,
            readers: Arc::new(Semaphore::new(MAX_READERS)),
        }
    }

    /// Lets one more folder be read, if it may be.
    pub(super) fn reader(&self) -> Option<OwnedSemaphorePermit> {
        self.readers.clone().try_acquire_owned().ok()
    }

    fn asked_for_folders(&self) {
        if self.folders.is_empty() {
            self.denials
                .report(DenialKind::Files, "any folder", |_| Explanation {
                    tried: "use files, and no folder is granted to it".to_owned(),
                    allow: Some(
                        "files = [{ host = \"DIR\", guest = \"/DIR\", write = true }]".to_owned(),
                    ),
                });
        }
    }

    /// Reports that `path` was not opened from `folder`.
    fn refused(&self, folder: &Dir, path: &str, refused: Refused) {
        let grant = self.grant_of(folder);
        // As the guest knows it.
        let shown = match &grant {
            Some((grant, below)) => {
                let from = Path::new(&grant.guest).join(below);
                format!(
                    "{}/{path}",
                    from.display().to_string().trim_end_matches('/')
                )
            }
            None => path.to_owned(),
        };
        let read_only = folder.perms == FsPerms::ReadOnly;
        self.denials
            .report(DenialKind::Files, &shown, |path| match refused {
                Refused::Special => Explanation {
                    tried: format!("open {path}, which is neither a file nor a folder"),
                    allow: None,
                },
                Refused::NotPermitted { writes: true } if read_only => Explanation {
                    tried: format!("write to {path}, in a folder it may only read"),
                    allow: grant.map(|(grant, _)| writable(grant)),
                },
                Refused::NotPermitted { .. } => Explanation {
                    tried: format!("leave its folder by the path {path}"),
                    allow: None,
                },
            });
    }

    /// The grant an open folder is of, and its path below that; `None` if it
    /// cannot be said.
    fn grant_of(&self, folder: &Dir) -> Option<(&FileGrant, PathBuf)> {
        let path = path_of(folder)?;
        let candidates = self.folders.iter().filter_map(|OpenFolder { grant, dir }| {
            let below = path.strip_prefix(path_of(dir)?).ok()?;
            (dir.perms == folder.perms).then(|| (grant, below.to_owned()))
        });
        // The innermost, where one grant lies in another.
        candidates.min_by_key(|(_, below)| below.as_os_str().len())
    }
}

/// Where an open folder is now, if that can be said.
fn path_of(folder: &Dir) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/self/fd/{}", folder.dir.as_raw_fd())).ok()
}

/// A grant as it would be written to allow writing.
fn writable(FileGrant { host, guest, .. }: &FileGrant) -> String {
    let quoted = |text: &str| text.replace('\\', "\\\\").replace('"', "\\\"");
    let (host, guest) = (quoted(&host.display().to_string()), quoted(guest));
    format!("files = [{{ host = \"{host}\", guest = \"{guest}\", write = true }}]")
}

fn folder<'a>(table: &'a ResourceTable, handle: &Resource<Descriptor>) -> Option<&'a Dir> {
    match table.get(handle) {
        Ok(Descriptor::Dir(folder)) => Some(folder),
        _ => None,
    }
}

impl State {
    /// The granted folders, as handles, and what the guest knows each as.
    fn granted_folders(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        self.files.asked_for_folders();
        let folders = self.files.folders.clone();
        let table = self.filesystem().table;
        let handles = folders.iter().map(|OpenFolder { grant, dir }| {
            let handle = table.push(Descriptor::Dir(dir.clone()))?;
            Ok((handle, grant.guest.clone()))
        });
        handles.collect()
    }

    fn report_refused(&mut self, handle: &Resource<Descriptor>, path: &str, refused: Refused) {
        let folder = folder(self.filesystem().table, handle).cloned();
        if let Some(folder) = folder {
            self.files.refused(&folder, path, refused);
        }
    }
}

fn again(handle: &Resource<Descriptor>) -> Resource<Descriptor> {
    Resource::new_borrow(handle.rep())
}

type Arguments2 = (
    Resource<Descriptor>,
    types2::PathFlags,
    String,
    types2::OpenFlags,
    types2::DescriptorFlags,
);

async fn open_at_2(
    state: &mut State,
    (handle, path_flags, path, open_flags, flags): Arguments2,
) -> wasmtime::Result<Result<Resource<Descriptor>, types2::ErrorCode>> {
    use types2::{DescriptorFlags, DescriptorType, ErrorCode, HostDescriptor, OpenFlags};

    // What must be new is not opened if it is there. That something must be a
    // folder is seen when it is open, and EXCLUSIVE alone does nothing.
    if !open_flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE) {
        let mut filesystem = state.filesystem();
        let found = filesystem.stat_at(again(&handle), path_flags, path.clone());
        if let Ok(found) = found.await
            && !matches!(
                found.type_,
                DescriptorType::RegularFile
                    | DescriptorType::Directory
                    | DescriptorType::SymbolicLink
            )
        {
            state.report_refused(&handle, &path, Refused::Special);
            return Ok(Err(ErrorCode::NotPermitted));
        }
    }
    let opened = state
        .filesystem()
        .open_at(again(&handle), path_flags, path.clone(), open_flags, flags)
        .await;
    let error = match opened {
        Ok(opened) => return Ok(Ok(opened)),
        Err(error) => error.downcast()?,
    };
    if error == ErrorCode::NotPermitted {
        let writes = flags.contains(DescriptorFlags::WRITE)
            || open_flags.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE);
        state.report_refused(&handle, &path, Refused::NotPermitted { writes });
    }
    Ok(Err(error))
}

type Arguments3 = (
    Resource<Descriptor>,
    types3::PathFlags,
    String,
    types3::OpenFlags,
    types3::DescriptorFlags,
);

async fn open_at_3(
    store: &Accessor<State>,
    (handle, path_flags, path, open_flags, flags): Arguments3,
) -> wasmtime::Result<Result<Resource<Descriptor>, types3::ErrorCode>> {
    use types3::{DescriptorFlags, DescriptorType, ErrorCode, HostDescriptorWithStore, OpenFlags};

    let filesystem = store.with_getter::<WasiFilesystem>(State::filesystem);
    let report = |refused| {
        store.with(|mut access| access.get().report_refused(&handle, &path, refused));
    };
    if !open_flags.contains(OpenFlags::CREATE | OpenFlags::EXCLUSIVE) {
        let found =
            WasiFilesystem::stat_at(&filesystem, again(&handle), path_flags, path.clone()).await;
        if let Ok(found) = found
            && !matches!(
                found.type_,
                DescriptorType::RegularFile
                    | DescriptorType::Directory
                    | DescriptorType::SymbolicLink
            )
        {
            report(Refused::Special);
            return Ok(Err(ErrorCode::NotPermitted));
        }
    }
    let opened = WasiFilesystem::open_at(
        &filesystem,
        again(&handle),
        path_flags,
        path.clone(),
        open_flags,
        flags,
    )
    .await;
    let error = match opened {
        Ok(opened) => return Ok(Ok(opened)),
        Err(error) => error.downcast()?,
    };
    if matches!(error, ErrorCode::NotPermitted) {
        let writes = flags.contains(DescriptorFlags::WRITE)
            || open_flags.intersects(OpenFlags::CREATE | OpenFlags::TRUNCATE);
        report(Refused::NotPermitted { writes });
    }
    Ok(Err(error))
}
