//! Does with WASI 0.3 what its orders say with paths, `/FOLDER/PATH` each, and
//! reports what came of it.

use backhaul_guest::{AsyncBackend, Event, Failure, OpenError};
use test_guests::{order, report};
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{
    Descriptor, DescriptorFlags, ErrorCode, NewTimestamp, OpenFlags, PathFlags,
};

struct UseFilesAsync;

impl AsyncBackend for UseFilesAsync {
    const NAME: &'static str = "use-files-async";

    async fn open() -> Result<Self, OpenError> {
        Ok(UseFilesAsync)
    }

    async fn publish(&mut self, events: &[Event]) -> Result<(), Vec<Failure>> {
        let (verb, paths) = order(events).split_once(' ').expect("VERB PATHS");
        let (path, other) = paths.split_once(' ').unwrap_or((paths, ""));
        match act(verb, path, other).await {
            Ok(()) => report("ok"),
            Err(error) => report(format!("error {error:?}")),
        }
    }
}

backhaul_guest::export_async!(UseFilesAsync);

async fn act(verb: &str, path: &str, other: &str) -> Result<(), ErrorCode> {
    let (folder, path) = open_folder(path);
    let path = path.to_owned();
    let follow = PathFlags::SYMLINK_FOLLOW;
    match verb {
        "open" => open(&folder, path, OpenFlags::empty(), DescriptorFlags::READ).await,
        "write" => open(&folder, path, OpenFlags::CREATE, DescriptorFlags::WRITE).await,
        "directory" => open(&folder, path, OpenFlags::DIRECTORY, DescriptorFlags::READ).await,
        "exclusive" => open(&folder, path, OpenFlags::EXCLUSIVE, DescriptorFlags::READ).await,
        "truncate" => open(&folder, path, OpenFlags::TRUNCATE, DescriptorFlags::WRITE).await,
        // What it opens is to be written by way of a handle that only reads.
        "grow" => {
            let flags = DescriptorFlags::READ;
            let file = folder
                .open_at(follow, path, OpenFlags::empty(), flags)
                .await?;
            file.set_size(1000).await
        }
        "touch" => {
            let (access, change) = (NewTimestamp::Now, NewTimestamp::Now);
            folder.set_times_at(follow, path, access, change).await
        }
        "remove" => folder.unlink_file_at(path).await,
        "make" => folder.create_directory_at(path).await,
        "rename" => {
            let (to, name) = open_folder(other);
            folder.rename_at(path, &to, name.to_owned()).await
        }
        "link" => {
            let (to, name) = open_folder(other);
            folder
                .link_at(PathFlags::empty(), path, &to, name.to_owned())
                .await
        }
        // The other is what it leads to, as it stands.
        "symlink" => folder.symlink_at(other.to_owned(), path).await,
        // From the handle of a folder below.
        "from" => {
            let flags = DescriptorFlags::READ;
            let below = folder
                .open_at(follow, path, OpenFlags::DIRECTORY, flags)
                .await?;
            open(&below, other.to_owned(), OpenFlags::empty(), flags).await
        }
        _ => unreachable!("no such order"),
    }
}

async fn open(
    folder: &Descriptor,
    path: String,
    how: OpenFlags,
    flags: DescriptorFlags,
) -> Result<(), ErrorCode> {
    let opened = folder.open_at(PathFlags::SYMLINK_FOLLOW, path, how, flags);
    opened.await.map(drop)
}

/// The folder a path begins with, and the rest of the path, as it stands.
fn open_folder(path: &str) -> (Descriptor, &str) {
    let found = get_directories().into_iter().find_map(|(folder, name)| {
        let rest = path.strip_prefix(&name)?.strip_prefix('/')?;
        Some((folder, rest))
    });
    found.expect("a folder that was granted")
}
