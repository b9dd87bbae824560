//! The generated code is what the generator makes of the installed botocore.

// A test may panic.
#![allow(clippy::unwrap_used)]

use rekindle_wire_types::{generate, generated, installed_models};

#[test]
fn generating_again_changes_nothing() {
    let checked_in = generated();
    let files = generate(&installed_models().unwrap()).unwrap();
    let mut names: Vec<String> = files.iter().map(|(name, _)| name.clone()).collect();
    for (name, text) in files {
        let found = std::fs::read_to_string(checked_in.join(&name)).unwrap_or_default();
        assert!(found == text, "{name} is not what the generator makes; run `make wire-types`");
    }
    let present = std::fs::read_dir(&checked_in).unwrap();
    let mut present: Vec<String> =
        present.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    present.sort();
    assert_eq!(present, names, "a file that is not generated lies among those that are");
}
