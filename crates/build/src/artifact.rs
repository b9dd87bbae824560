//! What the host may know of a tenant's zip: its index, read with hard limits (invariant 1). The files
//! themselves are unpacked inside the build VM only.

use std::io::{Read, Seek};

use zip::ZipArchive;
use zip::result::ZipError;

/// Largest artifact, in bytes of the zip itself.
pub const MAX_ARTIFACT_BYTES: u64 = 4 << 30;
/// Most entries of an artifact.
pub const MAX_ENTRIES: usize = 100_000;
/// Most bytes that all entries may claim to unpack to: what the smallest scratch disk can hold.
pub const MAX_UNPACKED_BYTES: u64 = 6 << 30;

/// Why an artifact is refused before any VM is started. The text is the build's `stateReason`.
#[derive(Debug, thiserror::Error)]
pub enum ArtifactError {
    /// Not a zip, or damaged.
    #[error("ARCHIVE_INVALID: the code artifact is not a readable zip archive: {0}")]
    Invalid(String),
    /// Nothing to build.
    #[error(
        "ARCHIVE_DOCKERFILE_NOT_FOUND: the code artifact has no Dockerfile at its root; zip the folder's content, \
         not the folder"
    )]
    NoDockerfile,
    /// A name that leaves the folder it is unpacked in.
    #[error("ARCHIVE_INVALID: the code artifact has an entry outside its root: {0:?}")]
    Outside(String),
    /// One of the limits above.
    #[error("ARCHIVE_INVALID: the code artifact has {found} {what}, more than the {limit} allowed")]
    TooLarge {
        /// What was counted.
        what: &'static str,
        /// How much of it.
        found: u64,
        /// How much is allowed.
        limit: u64,
    },
}

/// Checks an artifact's own length.
///
/// # Errors
/// [`ArtifactError::TooLarge`].
pub fn check_size(bytes: u64) -> Result<(), ArtifactError> {
    within("bytes", bytes, MAX_ARTIFACT_BYTES)
}

/// Checks an artifact's index: a zip within the limits, every name inside, a `Dockerfile` at the root.
///
/// # Errors
/// [`ArtifactError`], to be shown to the user.
pub fn check(zip: impl Read + Seek) -> Result<(), ArtifactError> {
    let mut archive = ZipArchive::new(zip).map_err(invalid)?;
    within("entries", archive.len() as u64, MAX_ENTRIES as u64)?;
    let mut unpacked = 0_u64;
    let mut dockerfile = false;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(invalid)?;
        if entry.enclosed_name().is_none() {
            return Err(ArtifactError::Outside(entry.name().to_owned()));
        }
        unpacked = unpacked.saturating_add(entry.size());
        dockerfile |= entry.is_file() && entry.name() == "Dockerfile";
    }
    within("bytes when unpacked", unpacked, MAX_UNPACKED_BYTES)?;
    if dockerfile { Ok(()) } else { Err(ArtifactError::NoDockerfile) }
}

fn within(what: &'static str, found: u64, limit: u64) -> Result<(), ArtifactError> {
    if found > limit { Err(ArtifactError::TooLarge { what, found, limit }) } else { Ok(()) }
}

// Taken by value because that is what `map_err` hands over.
#[expect(clippy::needless_pass_by_value)]
fn invalid(error: ZipError) -> ArtifactError {
    ArtifactError::Invalid(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use proptest::prelude::*;
    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    fn zip_of(names: &[&str]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        for name in names {
            writer.start_file(*name, SimpleFileOptions::default()).unwrap();
            writer.write_all(b"FROM scratch\n").unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn a_dockerfile_at_the_root_is_needed() {
        assert!(check(Cursor::new(zip_of(&["Dockerfile", "src/app.py"]))).is_ok());
        for names in [&["my-app/Dockerfile"][..], &["dockerfile"], &[]] {
            assert!(
                matches!(check(Cursor::new(zip_of(names))), Err(ArtifactError::NoDockerfile)),
                "{names:?}"
            );
        }
    }

    #[test]
    fn names_stay_inside() {
        for name in ["../evil", "a/../../evil"] {
            let refused = check(Cursor::new(zip_of(&["Dockerfile", name])));
            assert!(matches!(refused, Err(ArtifactError::Outside(_))), "{name}: {refused:?}");
        }
    }

    #[test]
    fn a_damaged_zip_is_refused_in_words() {
        let whole = zip_of(&["Dockerfile"]);
        let refused = check(Cursor::new(&whole[..whole.len() / 2])).unwrap_err();
        assert!(refused.to_string().starts_with("ARCHIVE_INVALID: "), "{refused}");
    }

    proptest! {
        #[test]
        fn no_bytes_bring_it_down(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = check(Cursor::new(bytes));
        }

        #[test]
        fn no_flipped_byte_brings_it_down(at in any::<prop::sample::Index>(), to in any::<u8>()) {
            let mut bytes = zip_of(&["Dockerfile", "a/b"]);
            let at = at.index(bytes.len());
            bytes[at] = to;
            let _ = check(Cursor::new(bytes));
        }
    }
}
