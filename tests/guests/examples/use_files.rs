//! Does with a path what its orders say, for instance `read /etc/passwd`, and
//! reports what came of it.

use std::fs;
use std::io::Result;

use test_guests::{order, report};

test_guests::export_publish!("use-files", |events| {
    let (verb, path) = order(events).split_once(' ').expect("VERB PATH");
    match act(verb, path) {
        Ok(text) => report(format!("ok {text}")),
        Err(error) => report(format!("error {error}")),
    }
});

fn act(verb: &str, path: &str) -> Result<String> {
    match verb {
        "read" => fs::read_to_string(path),
        "list" => {
            let names = fs::read_dir(path)?.map(|entry| Ok(entry?.file_name()));
            Ok(format!("{:?}", names.collect::<Result<Vec<_>>>()?))
        }
        "write" => fs::write(path, "written by the guest").map(|()| String::new()),
        "make" => fs::create_dir(path).map(|()| String::new()),
        "remove" => fs::remove_file(path).map(|()| String::new()),
        "rename" => fs::rename(path, format!("{path}.renamed")).map(|()| String::new()),
        "truncate" => {
            let file = fs::File::options().write(true).truncate(true).open(path);
            file.map(|_| String::new())
        }
        _ => unreachable!("no such order"),
    }
}
