//! Image builds: the artifact's Dockerfile, run by buildah in the tools' root, becomes an erofs disk. What the image has of
//! the catalogue is not on it: it would be most of the disk, and of the time to write it.

mod merge;
mod store;

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use agent_proto::{BuildFailure, BuildOutcome, BuildSpec, LogSource};
use rustix::mount::{MountFlags, mount, mount_bind_recursive};
use tokio::net::unix::pipe::Receiver;
use tokio::process::Command;

use crate::artifact;
use crate::disks::{find, mount_image, mount_scratch};
use crate::error::{Error, trying};
use crate::output::Output;
use merge::merge;
use store::{Image, Layers, Stores};

/// The tools' root. It is read-only: writes go to the scratch disk and to memory, where its folders lead.
const ROOT: &str = "/build";
/// Of the scratch disk, where the tools' settings have layers and containers.
const STORE: &str = "containers";
const EROFS_SUPER: u64 = 1024;
const EROFS_MAGIC: [u8; 4] = [0xe2, 0xe1, 0xf5, 0xe0];
const DISK_FULL: &str = "no space left on device";
/// Most bytes of a tool's last output that tell why it failed.
const MAX_TAIL: usize = 2048;

/// Whose fault, and what happened.
struct Failure(BuildFailure, String);

/// Builds the artifact; output is told as events.
pub(crate) async fn build(spec: &BuildSpec, log: &Output) -> BuildOutcome {
    let done = run(spec, log).await;
    // Of a build that failed, too, the steps are kept.
    rustix::fs::sync();
    match done {
        Ok(built) => built,
        Err(Failure(_, message)) if message.to_lowercase().contains(DISK_FULL) => {
            BuildOutcome::Failed { kind: BuildFailure::DiskFull, message }
        }
        Err(Failure(kind, message)) => BuildOutcome::Failed { kind, message },
    }
}

async fn run(spec: &BuildSpec, log: &Output) -> Result<BuildOutcome, Failure> {
    let stores = Stores {
        own: format!("{ROOT}/scratch/{STORE}/storage").into(),
        catalogue: format!("{ROOT}/bases").into(),
    };
    prepare_root()?;
    clear_scratch(&stores).await?;
    unpack_artifact(spec.artifact_bytes).await?;
    name_bases(&spec.base_aliases).await?;
    bud(spec, log).await?;
    let id = fs::read_to_string(format!("{ROOT}/run/image-id")).map_err(trying("reading the image's id"))?;
    let Image { config, layers } = stores.image(id.trim().trim_start_matches("sha256:"))?;
    let base_layers = layers.base.clone();
    let code_bytes = write_output(stores, layers, log).await?;
    Ok(BuildOutcome::Ok { code_bytes, base_layers, config })
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(BuildFailure::Internal, error.to_string())
    }
}

fn prepare_root() -> Result<(), Error> {
    mount_image("tools", ROOT)?;
    mount_image("bases", &format!("{ROOT}/bases"))?;
    mount_scratch(&format!("{ROOT}/scratch"))?;
    for memory in ["run", "tmp"] {
        let at = format!("{ROOT}/{memory}");
        mount("tmpfs", &at, "tmpfs", MountFlags::empty(), c"mode=1777")
            .map_err(trying(format!("mounting {at}")))?;
    }
    for kernel in ["dev", "proc", "sys"] {
        let to = format!("{ROOT}/{kernel}");
        mount_bind_recursive(format!("/{kernel}"), &to).map_err(trying(format!("binding {to}")))?;
    }
    Ok(())
}

/// The scratch disk may be an earlier build's, whose steps lie in the store. What else it left is removed: files, and the
/// container in which a build failed.
async fn clear_scratch(stores: &Stores) -> Result<(), Error> {
    let clearing = || trying("clearing the scratch disk");
    for entry in fs::read_dir(format!("{ROOT}/scratch")).map_err(clearing())? {
        let path = entry.map_err(clearing())?.path();
        if path.ends_with(STORE) || path.ends_with("lost+found") {
            continue;
        }
        remove(&path).map_err(clearing())?;
    }
    if stores.has_containers()? {
        output(tool("buildah").args(["rm", "--all"])).await?;
    }
    Ok(())
}

/// Whatever is there, if anything is.
fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

async fn unpack_artifact(bytes: u64) -> Result<(), Failure> {
    let disk = File::open(find("artifact")?).map_err(trying("opening the artifact"))?;
    tokio::task::spawn_blocking(move || {
        let zip = copy_artifact(disk, bytes)?;
        let context = format!("{ROOT}/scratch/context");
        fs::create_dir(&context).map_err(trying("making the build context"))?;
        artifact::unpack(zip, Path::new(&context))
            .map_err(|error| Failure(BuildFailure::Artifact, error.to_string()))
    })
    .await
    .map_err(|error| Failure(BuildFailure::Internal, error.to_string()))?
}

/// The disk is padded; a zip is read from its end.
fn copy_artifact(disk: File, bytes: u64) -> Result<File, Error> {
    let attempt = "copying the artifact";
    let path = format!("{ROOT}/scratch/artifact.zip");
    let mut zip =
        File::options().read(true).write(true).create_new(true).open(&path).map_err(trying(attempt))?;
    io::copy(&mut disk.take(bytes), &mut zip).map_err(trying(attempt))?;
    zip.rewind().map_err(trying(attempt))?;
    fs::remove_file(path).map_err(trying(attempt))?;
    Ok(zip)
}

/// Gives the catalogue's images the other names by which the Dockerfile calls them; a tool is too slow to do it in vain.
async fn name_bases(aliases: &[(String, String)]) -> Result<(), Error> {
    let dockerfile =
        fs::read(format!("{ROOT}/scratch/context/Dockerfile")).map_err(trying("reading the Dockerfile"))?;
    let dockerfile = String::from_utf8_lossy(&dockerfile);
    for (wanted, local) in aliases.iter().filter(|(wanted, _)| dockerfile.contains(wanted.as_str())) {
        output(tool("buildah").args(["tag", local, wanted])).await?;
    }
    Ok(())
}

async fn bud(spec: &BuildSpec, log: &Output) -> Result<(), Failure> {
    let mut command = tool("buildah");
    // Where nothing is kept layers would only be written to be thrown away.
    let layers = if spec.keep_steps { "--layers=true" } else { "--layers=false" };
    command.args(["build", "--isolation", "chroot", layers, "--force-rm", "--iidfile", "/run/image-id"]);
    for variable in &spec.env {
        command.arg("--env").arg(variable);
    }
    command.args(["--file", "/scratch/context/Dockerfile", "/scratch/context"]);
    let Err(tail) = logged(&mut command, log).await? else {
        return Ok(());
    };
    Err(Failure(
        BuildFailure::Dockerfile,
        format!("The container image build failed. Its last output:\n{tail}"),
    ))
}

/// Writes what the image adds to the catalogue's layers.
async fn write_output(stores: Stores, layers: Layers, log: &Output) -> Result<u64, Error> {
    let attempt = || trying("laying the image's layers on one another");
    let laid = tokio::task::spawn_blocking(move || files(&stores, &layers));
    let files = laid.await.map_err(io::Error::from).and_then(|files| files).map_err(attempt())?;
    let disk = find("output")?;
    // The tools see it from their root, in which it is.
    let seen = Path::new("/").join(files.strip_prefix(ROOT).unwrap_or(&files));
    logged(tool("mkfs.erofs").arg("--quiet").arg(&disk).arg(seen), log)
        .await?
        .map_err(trying("writing the code disk"))?;
    erofs_bytes(&disk).map_err(trying("measuring the code disk"))
}

/// The directory of what the image adds.
fn files(stores: &Stores, layers: &Layers) -> io::Result<PathBuf> {
    if let [only] = layers.own.as_slice() {
        return Ok(stores.files(only));
    }
    let merged = PathBuf::from(format!("{ROOT}/scratch/merged"));
    fs::create_dir(&merged)?;
    let below: Vec<PathBuf> = layers.base.iter().map(|layer| stores.base_files(layer)).collect();
    for layer in layers.own.iter().rev() {
        merge(&stores.files(layer), &merged, &below)?;
    }
    Ok(merged)
}

/// Length of the erofs image at the start of the disk, by its superblock.
fn erofs_bytes(disk: &Path) -> io::Result<u64> {
    let mut file = File::open(disk)?;
    file.seek(SeekFrom::Start(EROFS_SUPER))?;
    let mut superblock = [0; 64];
    file.read_exact(&mut superblock)?;
    let [a, b, c, d] = [superblock[36], superblock[37], superblock[38], superblock[39]];
    if superblock[..4] != EROFS_MAGIC || superblock[12] > 16 {
        return Err(io::Error::other("the disk holds no erofs image"));
    }
    Ok(u64::from(u32::from_le_bytes([a, b, c, d])) << superblock[12])
}

/// A program of the tools, in their root.
fn tool(program: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .env("HOME", "/scratch")
        // The tools start often and live briefly: they need not collect garbage before memory gets scarce.
        .env("GOGC", "off")
        .env("GOMEMLIMIT", "512MiB")
        .stdin(Stdio::null());
    // SAFETY: between fork and exec only two system calls are made, and nothing is allocated.
    unsafe {
        command.pre_exec(|| {
            rustix::process::chroot(c"/build")?;
            Ok(rustix::process::chdir(c"/")?)
        });
    }
    command
}

/// Runs a tool with its output as build log; where it fails, the end of that output.
async fn logged(command: &mut Command, log: &Output) -> Result<Result<(), String>, Error> {
    let attempt = "running the build tools";
    let (mut reader, writer) = pipe().map_err(trying(attempt))?;
    let errors = writer.try_clone().map_err(trying(attempt))?;
    // One pipe, so that the order of what is written is kept.
    let mut child = command.stdout(writer).stderr(errors).spawn().map_err(trying(attempt))?;
    // The command keeps its ends of the pipe until it is given others.
    command.stdout(Stdio::null()).stderr(Stdio::null());
    let mut tail = Vec::new();
    log.forward(&mut reader, LogSource::Build, |bytes| keep_tail(&mut tail, bytes)).await;
    let done = child.wait().await.map_err(trying(attempt))?;
    Ok(if done.success() { Ok(()) } else { Err(whole_lines(&tail)) })
}

fn pipe() -> io::Result<(Receiver, std::io::PipeWriter)> {
    let (reader, writer) = std::io::pipe()?;
    Ok((Receiver::from_owned_fd(reader.into())?, writer))
}

fn keep_tail(tail: &mut Vec<u8>, bytes: &[u8]) {
    tail.extend_from_slice(bytes);
    let excess = tail.len().saturating_sub(MAX_TAIL);
    tail.drain(..excess);
}

/// The text from the first line that is whole.
fn whole_lines(tail: &[u8]) -> String {
    let cut = if tail.len() < MAX_TAIL { None } else { tail.iter().position(|&byte| byte == b'\n') };
    String::from_utf8_lossy(&tail[cut.map_or(0, |at| at + 1)..]).trim().to_owned()
}

/// Runs a tool for what it prints.
async fn output(command: &mut Command) -> Result<String, Error> {
    let done = command.output().await.map_err(trying("running the build tools"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(Error::new("running the build tools", String::from_utf8_lossy(&done.stderr).trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_bounded_and_starts_with_a_whole_line() {
        let mut tail = Vec::new();
        keep_tail(&mut tail, b"short\n");
        assert_eq!(whole_lines(&tail), "short");
        for line in 0..1000 {
            keep_tail(&mut tail, format!("line {line}\n").as_bytes());
        }
        let text = whole_lines(&tail);
        assert!(text.len() <= MAX_TAIL && text.ends_with("line 999"));
        assert!(text.starts_with("line "), "{text}");
    }
}
