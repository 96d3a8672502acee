//! Opens a file in `/out` again and again, and keeps it open every time, until
//! that is refused.

use std::fs::File;

test_guests::export_publish!("open-files", |_| {
    let mut kept = Vec::new();
    loop {
        kept.push(File::create("/out/file").expect("/out is granted"));
    }
});
