//! The build VM: runs the Dockerfile and leaves the container's files on a disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_proto::{BuildOutcome, BuildSpec, ImageConfig, Request, Response};
use engine::{Disk, Layer, LayerFormat};
use guest::{Guest, GuestError, Shape};
use ids::AccountId;
use logs::Output;
use network::Egress;
use tokio::task::spawn_blocking;

use crate::artifact;
use crate::builder::Workshop;
use crate::error::BuildError;
use crate::role::BuildRole;

/// A disk is whole blocks of this many bytes.
const BLOCK: u64 = 4096;
/// Size of the disk that the build works on; it is sparse.
const WORK_BYTES: u64 = 8 << 30;
/// For the Dockerfile to be carried out.
const MINUTES: u64 = 45;

/// What a build VM made.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// The file that holds the container's own files, trimmed to whole blocks.
    pub(crate) code: PathBuf,
    pub(crate) code_bytes: u64,
    /// Layers of the catalogue that lie below those, the highest first.
    pub(crate) base_layers: Vec<String>,
    /// How to run it.
    pub(crate) config: ImageConfig,
}

/// Where the artifact is.
pub(crate) struct Source<'a> {
    pub(crate) bucket: &'a str,
    pub(crate) key: &'a str,
}

/// Who reads it.
#[derive(Debug, Clone)]
pub(crate) struct Reader {
    pub(crate) account: AccountId,
    pub(crate) role: BuildRole,
}

/// A zip as a disk, which is padded to whole blocks.
pub(crate) struct Artifact {
    pub(crate) path: PathBuf,
    /// Length of the zip.
    pub(crate) bytes: u64,
}

/// The disk that a Dockerfile is carried out on. Its file need not be there: then it is empty.
pub(crate) struct WorkDisk(PathBuf);

impl WorkDisk {
    /// Of the build whose directory is `dir`.
    pub(crate) fn new(dir: &Path) -> Self {
        Self(dir.join("build-scratch"))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

/// Where a container's files are put in a build's directory.
pub(crate) fn code(dir: &Path) -> PathBuf {
    dir.join("code")
}

/// Builds the artifact under `name`, in the directory that it is in. Output goes to the log.
pub(crate) async fn build(
    workshop: &Workshop,
    name: &str,
    artifact: &Artifact,
    work: &WorkDisk,
    egress: Option<Egress>,
    log: Arc<Output>,
) -> Result<Container, BuildError> {
    let dir = artifact.path.parent().unwrap_or(Path::new(""));
    let code = code(dir);
    let shape = prepare(workshop, artifact, work, &code)?;
    let mut guest = workshop.host.boot(name, shape, dir.join("build-memory"), egress).await?;
    // Kept for as long as the session: it is what writes the output down.
    let _output = guest.listen(log);
    let spec = BuildSpec {
        artifact_bytes: artifact.bytes,
        env: vec![],
        base_aliases: workshop.settings.aliases.clone().into_iter().collect(),
        keep_steps: workshop.settings.cache_bytes > 0,
    };
    let built = run(&guest, spec, code).await;
    guest.end().await;
    let container = built?;
    trim(&container)?;
    Ok(container)
}

/// Copies the artifact out of the object store into `dir`, checks its index, and pads it to a disk.
pub(crate) async fn fetch(
    workshop: &Workshop,
    source: &Source<'_>,
    reader: &Reader,
    dir: &Path,
) -> Result<Artifact, BuildError> {
    reader.role.may_read(source)?;
    let reader = reader.clone();
    let (bucket, key) = (source.bucket.to_owned(), source.key.to_owned());
    let (objects, path) = (workshop.objects.clone(), dir.join("artifact"));
    let copy = move || {
        let object = objects
            .read(&reader.account, &bucket, &key)
            .map_err(|error| reader.role.unreadable(error, &bucket, &key))?;
        artifact::check_size(object.size)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)
            .map_err(BuildError::file("creating", &path))?;
        std::io::copy(&mut std::io::Read::take(object.file, object.size), &mut file)
            .map_err(BuildError::file("copying the artifact to", &path))?;
        artifact::check(&file)?;
        let padded = file.set_len(object.size.next_multiple_of(BLOCK));
        padded.map_err(BuildError::file("padding", &path))?;
        Ok(Artifact { path, bytes: object.size })
    };
    spawn_blocking(copy).await?
}

fn prepare(
    workshop: &Workshop,
    artifact: &Artifact,
    work: &WorkDisk,
    code: &Path,
) -> Result<Shape, BuildError> {
    let raw = |path| Layer { path, format: LayerFormat::Raw };
    let empty = workshop.platform.scratch(WORK_BYTES).ok_or(guest::LayerError::Scratch(WORK_BYTES))?;
    let (disks, below) = (workshop.host.disks(), vec![raw(empty)]);
    if !work.path().exists() {
        disks.make(&below, work.path()).map_err(guest::LayerError::from)?;
    }
    File::create_new(code)
        .and_then(|file| file.set_len(WORK_BYTES))
        .map_err(BuildError::file("creating", code))?;
    let disk = |serial: &str, read_only, layers| Disk { serial: serial.to_owned(), read_only, layers };
    let written = Layer { path: work.path().to_owned(), format: disks.format() };
    Ok(Shape {
        memory_mib: workshop.settings.memory_mib,
        vcpus: workshop.settings.vcpus,
        kernel: workshop.platform.kernel(),
        initramfs: workshop.platform.initramfs(),
        disks: vec![
            disk("tools", true, vec![raw(workshop.assets.tools())]),
            disk("bases", true, vec![raw(workshop.platform.bases())]),
            Disk::private("scratch", below, written),
            disk("artifact", true, vec![raw(artifact.path.clone())]),
            disk("output", false, vec![raw(code.to_owned())]),
        ],
    })
}

async fn run(guest: &Guest, spec: BuildSpec, code: PathBuf) -> Result<Container, BuildError> {
    let limit = Duration::from_secs(MINUTES * 60);
    match guest.call("building the container image", &Request::Build(spec), limit).await {
        Ok(Response::Build(BuildOutcome::Ok { code_bytes, base_layers, config })) => {
            Ok(Container { code, code_bytes, base_layers, config })
        }
        Ok(Response::Build(BuildOutcome::Failed { kind, message })) => {
            Err(BuildError::container(kind, message))
        }
        Ok(_) => Err(GuestError::from(agent_proto::host::CallError::WrongAnswer).into()),
        Err(GuestError::Timeout { .. }) => Err(BuildError::TooLong(MINUTES)),
        Err(error) => Err(error.into()),
    }
}

/// Cuts the disk to what is used of it. The length comes from the guest, and is not believed beyond the disk.
fn trim(Container { code, code_bytes, .. }: &Container) -> Result<(), BuildError> {
    let length = code_bytes.next_multiple_of(BLOCK).min(WORK_BYTES);
    let file = fs::OpenOptions::new().write(true).open(code);
    file.and_then(|file| file.set_len(length)).map_err(BuildError::file("trimming", code))
}
