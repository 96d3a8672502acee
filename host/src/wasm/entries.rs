//! Reading what is in a folder, with WASI 0.2: its functions for that, with ours
//! in place of Wasmtime's.
//!
//! Wasmtime reads a folder whole and keeps that for as long as the handle lives,
//! so that a few handles of one large folder take the host's memory. Ours keeps
//! some entries of it. With WASI 0.3 a folder is a stream, in Wasmtime too.

use std::collections::VecDeque;
use std::fs::File;
use std::io;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, openat, statat};
use tokio::sync::OwnedSemaphorePermit;
use tokio::task::spawn_blocking;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, Resource, ResourceType};
use wasmtime_wasi::filesystem::{Descriptor, WasiFilesystemView};
use wasmtime_wasi::p2::bindings::filesystem::types::{DescriptorType, DirectoryEntry, ErrorCode};

use super::state::State;

pub(super) const READ_DIRECTORY: &str = "[method]descriptor.read-directory";
pub(super) const READ_ENTRY: &str = "[method]directory-entry-stream.read-directory-entry";
const STREAM: &str = "directory-entry-stream";

/// How many folders one instance may read at a time. Each has a file descriptor,
/// and a buffer of up to 48 KiB.
pub(super) const MAX_READERS: usize = 64;

/// How many entries are read at a time.
const BATCH: usize = 32;

/// Puts ours into `interface` of `linker`, which allows shadowing.
pub(super) fn add_to_linker(linker: &mut Linker<State>, interface: &str) -> wasmtime::Result<()> {
    let mut types = linker.instance(interface)?;
    types.resource(
        STREAM,
        ResourceType::host::<Entries>(),
        |mut store: StoreContextMut<'_, State>, handle| {
            let table = store.data_mut().filesystem().table;
            table.delete(Resource::<Entries>::new_own(handle))?;
            Ok(())
        },
    )?;
    types.func_wrap_async(READ_DIRECTORY, |mut store, (folder,)| {
        Box::new(async move { Ok((read_directory(store.data_mut(), folder).await?,)) })
    })?;
    types.func_wrap_async(READ_ENTRY, |mut store, (entries,)| {
        Box::new(async move { Ok((read_entry(store.data_mut(), entries).await?,)) })
    })
}

/// A folder that is being read.
struct Entries {
    /// `None` while it is with the thread that reads, and after the end.
    rest: Option<Dir>,
    /// What was read and not yet asked for.
    read: VecDeque<Entry>,
    _permit: OwnedSemaphorePermit,
}

type Entry = Result<DirectoryEntry, ErrorCode>;

async fn read_directory(
    state: &mut State,
    folder: Resource<Descriptor>,
) -> wasmtime::Result<Result<Resource<Entries>, ErrorCode>> {
    let folder = match state.filesystem().table.get(&folder)? {
        Descriptor::Dir(folder) => folder.dir.clone(),
        Descriptor::File(_) => return Ok(Err(ErrorCode::NotDirectory)),
    };
    let Some(permit) = state.files.reader() else {
        return Ok(Err(ErrorCode::InsufficientMemory));
    };
    let rest = match spawn_blocking(move || open(&folder)).await? {
        Ok(rest) => rest,
        Err(error) => return Ok(Err(error.into())),
    };
    let entries = Entries {
        rest: Some(rest),
        read: VecDeque::new(),
        _permit: permit,
    };
    Ok(Ok(state.filesystem().table.push(entries)?))
}

async fn read_entry(
    state: &mut State,
    handle: Resource<Entries>,
) -> wasmtime::Result<Result<Option<DirectoryEntry>, ErrorCode>> {
    let entries = state.filesystem().table.get_mut(&handle)?;
    if entries.read.is_empty()
        && let Some(rest) = entries.rest.take()
    {
        (entries.rest, entries.read) = spawn_blocking(move || read_on(rest)).await?;
    }
    Ok(entries.read.pop_front().transpose())
}

/// Opens the folder anew, to be read from its beginning whoever else reads it.
fn open(folder: &File) -> io::Result<Dir> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(Dir::new(openat(folder, ".", flags, Mode::empty())?)?)
}

/// Reads the next entries, and gives the folder back unless that was all.
fn read_on(mut folder: Dir) -> (Option<Dir>, VecDeque<Entry>) {
    let mut read = VecDeque::with_capacity(BATCH);
    while read.len() < BATCH {
        match folder.read() {
            None => return (None, read),
            Some(Err(error)) => read.push_back(Err(io::Error::from(error).into())),
            Some(Ok(entry)) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            Some(Ok(entry)) => read.push_back(described(&folder, &entry)),
        }
    }
    (Some(folder), read)
}

fn described(folder: &Dir, entry: &rustix::fs::DirEntry) -> Entry {
    let name = entry.file_name();
    let type_ = match entry.file_type() {
        // Not all file systems say it here.
        FileType::Unknown => {
            let found = folder
                .fd()
                .and_then(|folder| statat(folder, name, AtFlags::SYMLINK_NOFOLLOW));
            FileType::from_raw_mode(found.map_err(io::Error::from)?.st_mode)
        }
        known => known,
    };
    let name = name.to_str().map_err(|_| ErrorCode::IllegalByteSequence)?;
    Ok(DirectoryEntry {
        type_: match type_ {
            FileType::RegularFile => DescriptorType::RegularFile,
            FileType::Directory => DescriptorType::Directory,
            FileType::Symlink => DescriptorType::SymbolicLink,
            FileType::CharacterDevice => DescriptorType::CharacterDevice,
            FileType::BlockDevice => DescriptorType::BlockDevice,
            _ => DescriptorType::Unknown,
        },
        name: name.to_owned(),
    })
}
