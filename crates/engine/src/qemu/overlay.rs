//! qcow2 overlays: an empty one is made once for each size by `qemu-img` and copied, sparse, for every machine.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk::{DiskError, PrivateDisks};
use crate::spec::{Layer, LayerFormat};

/// An empty overlay is a few clusters; anything larger is not one.
const MAX_TEMPLATE: u64 = 16 << 20;
const BLOCK: usize = 4096;

/// Disks that hold what differs from the layers below.
#[derive(Debug, Clone)]
pub struct Overlays {
    /// Where the empty ones are kept.
    pub templates: PathBuf,
}

impl PrivateDisks for Overlays {
    fn format(&self) -> LayerFormat {
        LayerFormat::Qcow2
    }

    fn make(&self, below: &[Layer], path: &Path) -> Result<(), DiskError> {
        let lowest = below.first().map(|layer| layer.path.clone()).unwrap_or_default();
        let failed = |reason| DiskError { path: path.to_owned(), below: lowest.clone(), reason };
        let size = fs::metadata(&lowest).map_err(|error| failed(error.to_string()))?.len();
        let template = self.template(size).map_err(failed)?;
        copy(&template, path).map_err(|error| failed(format!("{error} (is the disk full?)")))
    }
}

impl Overlays {
    /// The empty overlay of so many bytes, which is made where it is not there.
    fn template(&self, bytes: u64) -> Result<PathBuf, String> {
        let path = self.templates.join(format!("{bytes}.qcow2"));
        if !path.exists() {
            // Whoever makes the same at the same time makes the same bytes.
            let made = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.templates);
            let made = made.map_err(|error| format!("{}: {error}", self.templates.display()))?;
            make_empty(made.path(), bytes)?;
            made.persist(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(path)
    }
}

fn make_empty(path: &Path, bytes: u64) -> Result<(), String> {
    let output = Command::new("qemu-img")
        .args(["create", "-q", "-f", "qcow2"])
        .arg(path)
        .arg(bytes.to_string())
        .output()
        .map_err(|error| format!("running qemu-img (is qemu-utils installed?): {error}"))?;
    let said = || format!("qemu-img: {}", String::from_utf8_lossy(&output.stderr));
    if output.status.success() { Ok(()) } else { Err(said()) }
}

/// Copies a template to `to`, which must not exist, leaving holes where it has zeros.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    if fs::metadata(from)?.len() > MAX_TEMPLATE {
        return Err(io::Error::other("too large for an empty overlay"));
    }
    let content = fs::read(from)?;
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
        fs::write(&from, &content).unwrap();
        copy(&from, &to).unwrap();
        assert_eq!(fs::read(&to).unwrap(), content);
        assert!(copy(&from, &to).is_err());
    }

    #[test]
    fn an_overlay_has_the_size_of_the_lowest_layer_and_its_template_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let overlays = Overlays { templates: dir.path().to_owned() };
        let lowest = Layer { path: dir.path().join("lowest"), format: LayerFormat::Raw };
        File::create(&lowest.path).unwrap().set_len(5 << 20).unwrap();
        overlays.make(std::slice::from_ref(&lowest), &dir.path().join("disk")).unwrap();
        let header = fs::read(dir.path().join("disk")).unwrap();
        assert_eq!(header[24..32], (5_u64 << 20).to_be_bytes(), "the size in a qcow2 header");
        assert!(dir.path().join(format!("{}.qcow2", 5 << 20)).exists());
        assert!(overlays.make(&[lowest], &dir.path().join("disk")).is_err(), "it is there");
    }
}
