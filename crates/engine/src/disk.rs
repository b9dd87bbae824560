//! Disks that machines write to: each begins as what the layers below it hold, which stay as they are.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::SeekFrom;
use rustix::io::Errno;

use crate::spec::{Disk, Layer, LayerFormat};

/// Read and written at a time.
const CHUNK: usize = 1 << 20;

/// Why a disk could not be made.
#[derive(Debug, thiserror::Error)]
#[error("making the disk {path} from {below}: {reason}", path = path.display(), below = below.display())]
pub struct DiskError {
    /// The disk.
    pub path: PathBuf,
    /// What it begins as.
    pub below: PathBuf,
    /// Why, and what may help.
    pub reason: String,
}

/// How an engine's machines come by disks of their own.
pub trait PrivateDisks: Send + Sync + std::fmt::Debug {
    /// The disks' format.
    fn format(&self) -> LayerFormat;

    /// Makes the new file `path` a disk that begins as what `below` holds, from the lowest layer up. Blocks.
    ///
    /// # Errors
    /// [`DiskError`].
    fn make(&self, below: &[Layer], path: &Path) -> Result<(), DiskError>;
}

impl Disk {
    /// A disk that is written, of what [`PrivateDisks::make`] made over `below`: a [`LayerFormat::Raw`] one is a copy,
    /// and needs nothing below.
    #[must_use]
    pub fn private(serial: &str, below: Vec<Layer>, top: Layer) -> Self {
        let mut layers = if top.format == LayerFormat::Raw { vec![] } else { below };
        layers.push(top);
        Self { serial: serial.to_owned(), read_only: false, layers }
    }
}

/// Disks that are copies of the highest layer, for VMMs that know no layers: where the file system can, the copy shares
/// its blocks with the original until they are written.
#[derive(Debug, Clone, Copy)]
pub struct Copies;

impl PrivateDisks for Copies {
    fn format(&self) -> LayerFormat {
        LayerFormat::Raw
    }

    fn make(&self, below: &[Layer], path: &Path) -> Result<(), DiskError> {
        let failed = |below: &Path, reason: String| DiskError {
            path: path.to_owned(),
            below: below.to_owned(),
            reason,
        };
        match below.last() {
            Some(Layer { path: from, format: LayerFormat::Raw }) => copy(from, path).map_err(|error| {
                let _ = fs::remove_file(path);
                failed(from, format!("{error} (is the disk full?)"))
            }),
            Some(layer) => Err(failed(&layer.path, "it is not a raw disk".to_owned())),
            None => Err(failed(Path::new(""), "it has no layer".to_owned())),
        }
    }
}

/// Copies `from` to the new file `to`: by reference where the file system can, else the extents that are written.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    let (from, to) = (File::open(from)?, File::create_new(to)?);
    if rustix::fs::ioctl_ficlone(&to, &from).is_ok() {
        return Ok(());
    }
    let length = from.metadata()?.len();
    to.set_len(length)?;
    let mut buffer = vec![0; CHUNK];
    let mut end = 0;
    while let Some(start) = seek(&from, SeekFrom::Data(end))? {
        end = seek(&from, SeekFrom::Hole(start))?.unwrap_or(length);
        let mut offset = start;
        while offset < end {
            let chunk = usize::try_from(end - offset).unwrap_or(CHUNK).min(CHUNK);
            from.read_exact_at(&mut buffer[..chunk], offset)?;
            to.write_all_at(&buffer[..chunk], offset)?;
            offset += chunk as u64;
        }
    }
    Ok(())
}

/// `None` where nothing of the kind follows.
fn seek(file: &File, to: SeekFrom) -> io::Result<Option<u64>> {
    match rustix::fs::seek(file, to) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn raw(path: &Path) -> Layer {
        Layer { path: path.to_owned(), format: LayerFormat::Raw }
    }

    #[test]
    fn a_copy_has_what_the_highest_layer_holds_and_its_holes() {
        const SIZE: u64 = 64 << 20;
        let dir = tempfile::tempdir().unwrap();
        let (lowest, below, path) =
            (dir.path().join("lowest"), dir.path().join("below"), dir.path().join("disk"));
        fs::write(&lowest, "something else").unwrap();
        let file = File::create(&below).unwrap();
        file.set_len(SIZE).unwrap();
        file.write_all_at(&[7; 3 * CHUNK + 5], 8192).unwrap();
        file.write_all_at(b"end", SIZE - 3).unwrap();
        Copies.make(&[raw(&lowest), raw(&below)], &path).unwrap();
        assert!(fs::read(&below).unwrap() == fs::read(&path).unwrap());
        assert!(path.metadata().unwrap().blocks() * 512 < SIZE / 4, "the holes were filled");
        File::options().write(true).open(&path).unwrap().write_all_at(b"changed", 0).unwrap();
        assert_eq!(fs::read(&below).unwrap()[..7], [0; 7], "a write reached the layer below");
    }

    #[test]
    fn what_cannot_be_copied_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let other = Layer { path: dir.path().join("other"), format: LayerFormat::Qcow2 };
        for below in [vec![], vec![raw(&dir.path().join("missing"))], vec![other]] {
            Copies.make(&below, &path).unwrap_err();
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_disk_lies_over_its_layers_unless_it_is_a_copy() {
        let below = vec![raw(Path::new("below"))];
        let over = Layer { path: "top".into(), format: LayerFormat::Qcow2 };
        assert_eq!(Disk::private("x", below.clone(), over).layers.len(), 2);
        assert_eq!(Disk::private("x", below, raw(Path::new("top"))).layers, [raw(Path::new("top"))]);
    }
}
