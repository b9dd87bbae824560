//! What is asked of files in more than one place.

use std::io;

/// For a removal: what is not there is removed.
///
/// # Errors
/// Whatever else failed.
pub fn missing_is_fine(done: io::Result<()>) -> io::Result<()> {
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}
