//! Runs every script under `tests/scripts`: one behaviour of the language in each file. `common/script.rs` tells the form.

mod common;

use std::{fs, path::Path};

#[test]
fn scripts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts");
    let only = std::env::var("SCRIPT").unwrap_or_default();
    let mut failures = Vec::new();
    let mut count = 0;
    let mut topics: Vec<_> = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().path()).collect();
    topics.sort();
    for topic in topics {
        let mut files: Vec<_> = fs::read_dir(&topic).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for path in files.iter().filter(|path| path.to_string_lossy().contains(&only)) {
            count += 1;
            if let Err(failure) = common::script::run(&fs::read_to_string(path).unwrap()) {
                failures.push(format!("{}:{failure}", path.strip_prefix(&root).unwrap().display()));
            }
        }
    }
    assert!(failures.is_empty(), "{} of {count} scripts failed:\n{}", failures.len(), failures.join("\n"));
    assert!(count > 0);
}
