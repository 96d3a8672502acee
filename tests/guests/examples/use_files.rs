//! Does with paths what its orders say, for instance `read /etc/passwd` or
//! `link /from /to`, and reports what came of it.

use std::fs;
use std::io::Result;
use std::time::SystemTime;

use test_guests::{order, report};
use wasip2::filesystem::preopens::get_directories;
use wasip2::filesystem::types::{DirectoryEntryStream, ErrorCode};

test_guests::export_publish!("use-files", |events| {
    let (verb, path) = order(events).split_once(' ').expect("VERB PATH");
    match act(verb, path) {
        Ok(text) => report(format!("ok {text}")),
        Err(error) => report(format!("error {error}")),
    }
});

fn act(verb: &str, path: &str) -> Result<String> {
    let pair = || path.split_once(' ').expect("two paths");
    let open_to_write = || fs::File::options().write(true).open(path);
    match verb {
        "read" => fs::read_to_string(path),
        "list" => {
            let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name()));
            Ok(format!("{:?}", names.collect::<Result<Vec<_>>>()?))
        }
        "write" => fs::write(path, "written by the guest").map(|()| String::new()),
        "make" => fs::create_dir(path).map(|()| String::new()),
        "remove" => fs::remove_file(path).map(|()| String::new()),
        "rename" => {
            let renamed = format!("{path}.renamed");
            let (from, to) = path.split_once(' ').unwrap_or((path, &renamed));
            fs::rename(from, to).map(|()| String::new())
        }
        "link" => fs::hard_link(pair().0, pair().1).map(|()| String::new()),
        "symlink" => Ok(symlink(pair().0, pair().1)),
        "truncate" => {
            let file = fs::File::options().write(true).truncate(true).open(path);
            file.map(|_| String::new())
        }
        "touch" => {
            let file = fs::File::open(path).or_else(|_| open_to_write())?;
            file.set_modified(SystemTime::UNIX_EPOCH)?;
            Ok(String::new())
        }
        "read-often" => Ok(read_often()),
        "trap" => panic!("as it was told"),
        _ => unreachable!("no such order"),
    }
}

/// Begins to read the first folder, again and again, until that is refused, and
/// then reads it to its end.
fn read_often() -> String {
    let folders = get_directories();
    let (folder, _) = folders.first().expect("a folder");
    let begin = || -> std::result::Result<DirectoryEntryStream, ErrorCode> {
        let entries = folder.read_directory()?;
        entries.read_directory_entry()?.expect("an entry");
        Ok(entries)
    };
    let mut kept = Vec::new();
    let refused = loop {
        match begin() {
            Ok(entries) => kept.push(entries),
            Err(error) => break error,
        }
    };
    let mut count = 1;
    while let Ok(Some(_)) = kept[0].read_directory_entry() {
        count += 1;
    }
    let after_the_end = kept[0]
        .read_directory_entry()
        .is_ok_and(|end| end.is_none());
    assert!(after_the_end);
    format!(
        "{} at a time, {}, {count} entries",
        kept.len(),
        refused.name()
    )
}

/// Makes a link `name` to `target` in the first folder, whatever the target is.
fn symlink(target: &str, name: &str) -> String {
    let folders = get_directories();
    let (folder, _) = folders.first().expect("a folder");
    format!("{:?}", folder.symlink_at(target, name))
}
