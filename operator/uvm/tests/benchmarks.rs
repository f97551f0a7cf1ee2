//! The benchmarks compute what they should, with metering on.

mod common;

use std::{fs, path::Path};

use batos_uvm::vm::Limits;
use common::World;

#[test]
fn benchmarks_answer_what_they_should() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench");
    let world = World::new();
    let limits = Limits { fuel: 100_000_000, heap_bytes: 1 << 30, ..Limits::default() };
    let mut count = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "bt") {
            // A size whose result is known.
            let size = match path.file_stem().and_then(|name| name.to_str()) {
                Some("cd") => 10,
                Some("deltablue") => 50,
                _ => 1,
            };
            let source = format!("{}\nbench run: {size}", fs::read_to_string(&path).unwrap());
            if let Err(error) = world.eval_within(&source, limits) {
                panic!("{}: {error}\n{:#?}", path.display(), error.stack);
            }
            count += 1;
        }
    }
    assert!(count >= 13);
}
