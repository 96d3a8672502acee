//! What was found once, and the seeds: every file in `corpus/TARGET/` is read
//! by its target again.

use std::fs;
use std::path::Path;

use backhaul_fuzz::TARGETS;

#[test]
fn every_target_has_input_and_reads_it() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        let mut files = 0;
        for entry in fs::read_dir(&folder).expect("a folder of the target's name") {
            let file = entry.expect("an entry").path();
            // Shown when it fails.
            println!("{}", file.display());
            (target.run)(&fs::read(&file).expect("a file"));
            files += 1;
        }
        assert!(files > 0, "{} is empty", folder.display());
    }
}

#[test]
fn every_folder_is_that_of_a_target() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["corpus", "dictionaries"] {
        for entry in fs::read_dir(root.join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_stem().and_then(|name| name.to_str());
            let name = name.expect("a name in UTF-8");
            assert!(backhaul_fuzz::named(name).is_some(), "{}", path.display());
        }
    }
}
