//! qcow2 overlays: an empty one is made once by `qemu-img` and copied, sparse, for every machine.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// An empty overlay is a few clusters; anything larger is not one.
const MAX_TEMPLATE: u64 = 16 << 20;
const BLOCK: usize = 4096;

/// Why an overlay could not be made.
#[derive(Debug, thiserror::Error)]
pub enum OverlayError {
    /// `qemu-img` failed.
    #[error("making the overlay template {path} with qemu-img (is qemu-utils installed?): {reason}")]
    Template {
        /// The template.
        path: PathBuf,
        /// What it said.
        reason: String,
    },
    /// Copying failed.
    #[error("copying the overlay template {from} to {to}: {source}")]
    Copy {
        /// The template.
        from: PathBuf,
        /// The overlay.
        to: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Makes an empty overlay of `virtual_size` bytes. What it lies over is said when a machine is started.
pub async fn make_template(path: &Path, virtual_size: u64) -> Result<(), OverlayError> {
    let failed = |reason: String| OverlayError::Template { path: path.to_owned(), reason };
    let output = tokio::process::Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(path)
        .arg(virtual_size.to_string())
        .output()
        .await
        .map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(failed(String::from_utf8_lossy(&output.stderr).into_owned()))
    }
}

/// Copies a template to `to`, which must not exist, leaving holes where it has zeros.
pub fn copy_template(from: &Path, to: &Path) -> Result<(), OverlayError> {
    copy(from, to).map_err(|source| OverlayError::Copy { from: from.to_owned(), to: to.to_owned(), source })
}

fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if std::fs::metadata(from)?.len() > MAX_TEMPLATE {
        return Err(io::Error::other("too large for an empty overlay"));
    }
    let content = std::fs::read(from)?;
    let file = File::options().write(true).create_new(true).open(to)?;
    file.set_len(content.len() as u64)?;
    for (index, block) in content.chunks(BLOCK).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            file.write_all_at(block, (index * BLOCK) as u64)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_equals_its_template() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        let mut content = vec![0; 3 * BLOCK + 7];
        content[BLOCK + 3] = 9;
        std::fs::write(&from, &content).unwrap();
        copy_template(&from, &to).unwrap();
        assert_eq!(std::fs::read(&to).unwrap(), content);
        assert!(copy_template(&from, &to).is_err());
    }
}
