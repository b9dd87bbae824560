//! The build VM: runs the Dockerfile and leaves the container's files on a disk.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_proto::{BuildOutcome, BuildSpec, ImageConfig, Request, Response};
use engine::{Disk, Layer, LayerFormat};
use guest::{Guest, GuestError, Shape};
use ids::AccountId;
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
pub(crate) struct Container {
    /// The file that holds the container's files, trimmed to whole blocks.
    pub(crate) code: PathBuf,
    pub(crate) code_bytes: u64,
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

/// Builds the artifact in `dir`, which is the build's own, under `name`. Its output goes to the log.
pub(crate) async fn build(
    workshop: &Workshop,
    name: &str,
    dir: &Path,
    source: &Source<'_>,
    reader: &Reader,
    egress: Option<Egress>,
    log: logs::Output,
) -> Result<Container, BuildError> {
    let artifact_bytes = fetch(workshop, source, reader, &dir.join("artifact")).await?;
    let (code, shape) = prepare(workshop, dir)?;
    let mut guest = workshop.host.boot(name, shape, dir.join("build-memory"), egress).await?;
    // Kept for as long as the session: it is what writes the output down.
    let _output = guest.listen(log);
    let spec = BuildSpec {
        artifact_bytes,
        env: vec![],
        base_aliases: workshop.settings.aliases.clone().into_iter().collect(),
    };
    let built = run(&guest, spec).await;
    guest.end().await;
    let (code_bytes, config) = built?;
    trim(&code, code_bytes)?;
    Ok(Container { code, code_bytes, config })
}

/// Copies the artifact out of the object store, checks its index, and pads it to a disk. Returns its length.
async fn fetch(
    workshop: &Workshop,
    source: &Source<'_>,
    reader: &Reader,
    to: &Path,
) -> Result<u64, BuildError> {
    reader.role.may_read(source)?;
    let reader = reader.clone();
    let (bucket, key) = (source.bucket.to_owned(), source.key.to_owned());
    let (objects, to) = (workshop.objects.clone(), to.to_owned());
    let copy = move || {
        let object = objects
            .read(&reader.account, &bucket, &key)
            .map_err(|error| reader.role.unreadable(error, &bucket, &key))?;
        artifact::check_size(object.size)?;
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&to)
            .map_err(BuildError::file("creating", &to))?;
        std::io::copy(&mut std::io::Read::take(object.file, object.size), &mut file)
            .map_err(BuildError::file("copying the artifact to", &to))?;
        artifact::check(&file)?;
        file.set_len(object.size.next_multiple_of(BLOCK)).map_err(BuildError::file("padding", &to))?;
        Ok(object.size)
    };
    spawn_blocking(copy).await?
}

fn prepare(workshop: &Workshop, dir: &Path) -> Result<(PathBuf, Shape), BuildError> {
    let (scratch, code) = (dir.join("build-scratch"), dir.join("code"));
    File::create_new(&code)
        .and_then(|file| file.set_len(WORK_BYTES))
        .map_err(BuildError::file("creating", &code))?;
    let empty = workshop.platform.scratch(WORK_BYTES).ok_or(guest::LayerError::Scratch(WORK_BYTES))?;
    let raw = |path| Layer { path, format: LayerFormat::Raw };
    let disk = |serial: &str, read_only, layers| Disk { serial: serial.to_owned(), read_only, layers };
    let disks = workshop.host.disks();
    let below = vec![raw(empty)];
    disks.make(&below, &scratch).map_err(guest::LayerError::from)?;
    let scratch = Layer { path: scratch, format: disks.format() };
    let shape = Shape {
        memory_mib: workshop.settings.memory_mib,
        vcpus: workshop.settings.vcpus,
        kernel: workshop.platform.kernel(),
        initramfs: workshop.platform.initramfs(),
        disks: vec![
            disk("tools", true, vec![raw(workshop.assets.tools())]),
            disk("bases", true, vec![raw(workshop.assets.bases())]),
            Disk::private("scratch", below, scratch),
            disk("artifact", true, vec![raw(dir.join("artifact"))]),
            disk("output", false, vec![raw(code.clone())]),
        ],
    };
    Ok((code, shape))
}

async fn run(guest: &Guest, spec: BuildSpec) -> Result<(u64, ImageConfig), BuildError> {
    let limit = Duration::from_secs(MINUTES * 60);
    match guest.call("building the container image", &Request::Build(spec), limit).await {
        Ok(Response::Build(BuildOutcome::Ok { code_bytes, config })) => Ok((code_bytes, config)),
        Ok(Response::Build(BuildOutcome::Failed { kind, message })) => {
            Err(BuildError::container(kind, message))
        }
        Ok(_) => Err(GuestError::from(agent_proto::host::CallError::WrongAnswer).into()),
        Err(GuestError::Timeout { .. }) => Err(BuildError::TooLong(MINUTES)),
        Err(error) => Err(error.into()),
    }
}

/// Cuts the disk to what is used of it. The length comes from the guest, and is not believed beyond the disk.
fn trim(code: &Path, code_bytes: u64) -> Result<(), BuildError> {
    let length = code_bytes.next_multiple_of(BLOCK).min(WORK_BYTES);
    let file = fs::OpenOptions::new().write(true).open(code);
    file.and_then(|file| file.set_len(length)).map_err(BuildError::file("trimming", code))
}
