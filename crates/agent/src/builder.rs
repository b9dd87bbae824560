//! Image builds: the artifact's Dockerfile, run by buildah in the tools' root, becomes an erofs disk.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::process::Stdio;

use agent_proto::{BuildFailure, BuildOutcome, BuildSpec, Event, ImageConfig, LogSource};
use rustix::mount::{MountFlags, mount, mount_bind_recursive};
use serde_json::Value;
use tokio::process::Command;
use tokio::sync::mpsc::Sender;

use crate::app::forward;
use crate::artifact;
use crate::disks::{find, mount_disk};
use crate::error::{Error, trying};

/// The tools' file system, made writable by an overlay.
const ROOT: &str = "/build";
const STORAGE: &str = "[storage]\ndriver = \"overlay\"\ngraphroot = \"/var/lib/containers/storage\"\n\
    runroot = \"/run/containers/storage\"\n[storage.options]\nadditionalimagestores = [\"/bases\"]\n";
const CONTAINER: &str = "rekindle-result";
const EROFS_SUPER: u64 = 1024;
const EROFS_MAGIC: [u8; 4] = [0xe2, 0xe1, 0xf5, 0xe0];
const DISK_FULL: &str = "no space left on device";

/// Whose fault, and what happened.
struct Failure(BuildFailure, String);

/// Builds the artifact; output is told as events.
pub(crate) async fn build(spec: &BuildSpec, events: &Sender<Event>) -> BuildOutcome {
    match run(spec, events).await {
        Ok((code_bytes, config)) => BuildOutcome::Ok { code_bytes, config },
        Err(Failure(_, message)) if message.to_lowercase().contains(DISK_FULL) => {
            BuildOutcome::Failed { kind: BuildFailure::DiskFull, message }
        }
        Err(Failure(kind, message)) => BuildOutcome::Failed { kind, message },
    }
}

async fn run(spec: &BuildSpec, events: &Sender<Event>) -> Result<(u64, ImageConfig), Failure> {
    prepare_root()?;
    unpack_artifact(spec.artifact_bytes).await?;
    bud(spec, events).await?;
    let image =
        fs::read_to_string(format!("{ROOT}/run/image-id")).map_err(trying("reading the image's id"))?;
    let config = inspect(&image).await?;
    let code_bytes = write_output(&image, events).await?;
    Ok((code_bytes, config))
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(BuildFailure::Internal, error.to_string())
    }
}

fn prepare_root() -> Result<(), Error> {
    mount_disk("tools", "erofs", MountFlags::RDONLY, "/tools")?;
    mount_disk("bases", "erofs", MountFlags::RDONLY, "/bases")?;
    mount_disk("scratch", "ext4", MountFlags::NOATIME, "/scratch")?;
    for directory in
        ["/scratch/upper", "/scratch/work", "/scratch/containers", "/scratch/context", "/scratch/tmp", ROOT]
    {
        fs::create_dir_all(directory).map_err(trying(format!("making {directory}")))?;
    }
    mount(
        "overlay",
        ROOT,
        "overlay",
        MountFlags::empty(),
        c"lowerdir=/tools,upperdir=/scratch/upper,workdir=/scratch/work",
    )
    .map_err(trying("mounting the tools"))?;
    // Not on the overlay: the builder's own overlays need a plain file system below them.
    let binds = [
        ("/scratch/containers", "var/lib/containers"),
        ("/scratch/context", "context"),
        ("/scratch/tmp", "var/tmp"),
        ("/bases", "bases"),
        ("/dev", "dev"),
        ("/proc", "proc"),
        ("/sys", "sys"),
    ];
    for (from, to) in binds {
        let to = format!("{ROOT}/{to}");
        fs::create_dir_all(&to).map_err(trying(format!("making {to}")))?;
        mount_bind_recursive(from, &to).map_err(trying(format!("binding {to}")))?;
    }
    configure_tools()
}

fn configure_tools() -> Result<(), Error> {
    let resolver = format!("nameserver {}\n", crate::network::RESOLVER);
    for (path, text) in [("etc/containers/storage.conf", STORAGE), ("etc/resolv.conf", resolver.as_str())] {
        let path = Path::new(ROOT).join(path);
        let attempt = || format!("writing {}", path.display());
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(trying(attempt()))?;
        }
        // What was there may be a link out of the tools' root.
        let _ = fs::remove_file(&path);
        fs::write(&path, text).map_err(trying(attempt()))?;
    }
    Ok(())
}

async fn unpack_artifact(bytes: u64) -> Result<(), Failure> {
    let zip = copy_artifact(bytes)?;
    tokio::task::spawn_blocking(move || artifact::unpack(zip, Path::new("/scratch/context")))
        .await
        .map_err(|error| Failure(BuildFailure::Internal, error.to_string()))?
        .map_err(|error| Failure(BuildFailure::Artifact, error.to_string()))
}

/// The disk is padded; a zip is read from its end.
fn copy_artifact(bytes: u64) -> Result<File, Error> {
    let attempt = "copying the artifact";
    let disk = File::open(find("artifact")?).map_err(trying(attempt))?;
    let path = "/scratch/artifact.zip";
    let mut zip = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)
        .map_err(trying(attempt))?;
    io::copy(&mut disk.take(bytes), &mut zip).map_err(trying(attempt))?;
    zip.rewind().map_err(trying(attempt))?;
    Ok(zip)
}

async fn bud(spec: &BuildSpec, events: &Sender<Event>) -> Result<(), Failure> {
    let mut command = tool("buildah");
    command.args([
        "--storage-driver",
        "overlay",
        "bud",
        "--isolation",
        "chroot",
        "--layers",
        "--iidfile",
        "/run/image-id",
    ]);
    for (wanted, local) in &spec.base_aliases {
        command.arg("--build-context").arg(format!("{wanted}=container-image://{local}"));
    }
    for variable in &spec.env {
        command.arg("--env").arg(variable);
    }
    command.args(["--file", "/context/Dockerfile", "/context"]);
    if logged(&mut command, events).await? {
        return Ok(());
    }
    let full = rustix::fs::statvfs("/scratch").is_ok_and(|disk| disk.f_bavail == 0);
    let kind = if full { BuildFailure::DiskFull } else { BuildFailure::Dockerfile };
    Err(Failure(kind, "The container image build failed.".to_owned()))
}

async fn inspect(image: &str) -> Result<ImageConfig, Error> {
    let text = output(tool("buildah").args(["inspect", "--type", "image", image.trim()])).await?;
    let value: Value = serde_json::from_str(&text).map_err(trying("reading the image's configuration"))?;
    Ok(parse_config(&value["OCIv1"]["config"]))
}

fn parse_config(config: &Value) -> ImageConfig {
    let text = |name: &str| config[name].as_str().unwrap_or_default().to_owned();
    let list = |name: &str| {
        let words = config[name].as_array().into_iter().flatten();
        words.filter_map(Value::as_str).map(str::to_owned).collect()
    };
    ImageConfig {
        entrypoint: list("Entrypoint"),
        cmd: list("Cmd"),
        env: list("Env"),
        user: text("User"),
        workdir: text("WorkingDir"),
        stop_signal: text("StopSignal"),
    }
}

async fn write_output(image: &str, events: &Sender<Event>) -> Result<u64, Error> {
    output(tool("buildah").args(["from", "--pull-never", "--name", CONTAINER, image.trim()])).await?;
    let mounted = output(tool("buildah").args(["mount", CONTAINER])).await?;
    let disk = find("output")?;
    if !logged(tool("mkfs.erofs").arg("--quiet").arg(&disk).arg(mounted.trim()), events).await? {
        return Err(Error::new("writing the code disk", "mkfs.erofs failed; its output is in the build log"));
    }
    rustix::fs::sync();
    erofs_bytes(&disk).map_err(trying("measuring the code disk"))
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
        .env("HOME", "/root")
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

/// Runs a tool with its output as build log; whether it succeeded.
async fn logged(command: &mut Command, events: &Sender<Event>) -> Result<bool, Error> {
    let attempt = "running the build tools";
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(trying(attempt))?;
    tokio::join!(
        forward(child.stdout.take(), LogSource::Build, events),
        forward(child.stderr.take(), LogSource::Build, events),
    );
    Ok(child.wait().await.map_err(trying(attempt))?.success())
}

/// Runs a tool for what it prints.
async fn output(command: &mut Command) -> Result<String, Error> {
    let done = command.output().await.map_err(trying("running the build tools"))?;
    if done.status.success() {
        return Ok(String::from_utf8_lossy(&done.stdout).into_owned());
    }
    Err(Error::new("running the build tools", String::from_utf8_lossy(&done.stderr).trim()))
}
