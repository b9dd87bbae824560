//! What fuzzing kept, fed to the same parsers again.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use rekindle_parsers::ENTRIES;

fn fuzz() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz")
}

fn names_in(folder: &str) -> BTreeSet<String> {
    let listed = fs::read_dir(fuzz().join(folder)).unwrap();
    listed.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn every_parser_takes_every_input_of_its_corpus() {
    for (name, entry) in ENTRIES {
        let corpus = fs::read_dir(fuzz().join("corpus").join(name)).unwrap();
        let files: Vec<PathBuf> = corpus.map(|file| file.unwrap().path()).collect();
        assert!(!files.is_empty(), "the corpus of {name} is empty");
        for file in files {
            println!("{}", file.display());
            entry(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_parser_has_its_fuzz_target_and_corpus() {
    let named = |ending: &str| ENTRIES.iter().map(|(name, _)| format!("{name}{ending}")).collect();
    assert_eq!(names_in("fuzz_targets"), named(".rs"));
    assert_eq!(names_in("corpus"), named(""));
    let manifest = fs::read_to_string(fuzz().join("Cargo.toml")).unwrap();
    for (name, _) in ENTRIES {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name} is not in fuzz/Cargo.toml");
    }
}
