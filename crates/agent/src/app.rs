//! The application: its disks, its cgroup, its helper process and its output.

use std::fs;
use std::io::{self, Seek};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use agent_proto::{AppSpec, Event, LogSource, MAX_LOG_CHUNK};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::{MountFlags, mount};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::Sender;

use crate::disks::mount_disk;
use crate::error::{Error, trying};
use crate::machine_id;

/// The application's file system.
pub(crate) const ROOT: &str = "/app";
/// The application's cgroup.
pub(crate) const CGROUP: &str = "/sys/fs/cgroup/app";
/// Whether who has no privileges may get them all in a user namespace of his own.
const USER_NAMESPACES: &str = "/proc/sys/kernel/unprivileged_userns_clone";
/// How long every process of the application may take to stop.
const FREEZE_WITHIN: Duration = Duration::from_secs(5);
/// How long output may wait for more of it.
const GATHER_FOR: Duration = Duration::from_millis(50);
/// Program of the agent, whatever became of the initramfs.
const SELF: &str = "/proc/self/exe";

/// A started application.
pub(crate) struct App(());

impl App {
    /// Mounts its disks and starts its first process; output and exit are told as events.
    pub(crate) fn start(spec: &AppSpec, events: &Sender<Event>) -> Result<Self, Error> {
        mount_root(spec.all_capabilities)?;
        if !spec.all_capabilities {
            fs::write(USER_NAMESPACES, "0").map_err(trying("keeping user namespaces to the privileged"))?;
        }
        machine_id::prepare()?;
        fs::create_dir_all(CGROUP).map_err(trying("making the application's cgroup"))?;
        let attempt = "starting the container's helper";
        let spec = postcard::to_allocvec(spec).map_err(trying(attempt))?;
        let child = Command::new(SELF)
            .arg(crate::CONTAINER)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(trying(attempt))?;
        tokio::spawn(watch(child, spec, events.clone()));
        Ok(Self(()))
    }

    /// Returns once no process of the application runs any more.
    pub(crate) async fn freeze(&self) -> Result<(), Error> {
        let attempt = "freezing the application";
        tokio::task::spawn_blocking(freeze).await.map_err(trying(attempt))?.map_err(trying(attempt))
    }

    /// Lets the application run again.
    pub(crate) fn thaw(&self) -> Result<(), Error> {
        fs::write(Path::new(CGROUP).join("cgroup.freeze"), "0").map_err(trying("thawing the application"))
    }
}

/// Device nodes on them mean nothing where the container is confined: it may make nodes, the kernel opens none.
fn mount_root(all_capabilities: bool) -> Result<(), Error> {
    let nodes = if all_capabilities { MountFlags::empty() } else { MountFlags::NODEV };
    mount_disk("code", "erofs", MountFlags::RDONLY, "/code")?;
    mount_disk("scratch", "ext4", MountFlags::NOATIME, "/scratch")?;
    for directory in ["/scratch/upper", "/scratch/work", ROOT] {
        fs::create_dir_all(directory).map_err(trying(format!("making {directory}")))?;
    }
    let layers = c"lowerdir=/code,upperdir=/scratch/upper,workdir=/scratch/work";
    mount("overlay", ROOT, "overlay", MountFlags::NOATIME | nodes, layers)
        .map_err(trying("mounting the application's file system"))
}

async fn watch(mut child: Child, spec: Vec<u8>, events: Sender<Event>) {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that died at once says so by its exit.
        let _ = stdin.write_all(&spec).await;
    }
    if let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) {
        tokio::join!(
            forward(&mut stdout, LogSource::Stdout, &events, |_| {}),
            forward(&mut stderr, LogSource::Stderr, &events, |_| {}),
        );
    }
    let code = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(-1);
    // The receiver lives as long as the agent.
    let _ = events.send(Event::AppExited { code }).await;
}

/// Tells everything that is written to `output` as log events, and shows it to `watch`.
pub(crate) async fn forward<R: AsyncRead + Unpin>(
    output: &mut R,
    source: LogSource,
    events: &Sender<Event>,
    mut watch: impl FnMut(&[u8]),
) {
    let mut buffer = vec![0; MAX_LOG_CHUNK];
    while let Ok(count @ 1..) = gather(output, &mut buffer).await {
        let bytes = buffer[..count].to_vec();
        watch(&bytes);
        if events.send(Event::Log { source, bytes }).await.is_err() {
            return;
        }
    }
}

/// Reads what there is and what follows within [`GATHER_FOR`]: telling the host of every line as it comes would take
/// time from the very request that the line is about.
async fn gather<R: AsyncRead + Unpin>(output: &mut R, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = output.read(buffer).await?;
    let deadline = tokio::time::Instant::now() + GATHER_FOR;
    while count > 0 && count < buffer.len() {
        match tokio::time::timeout_at(deadline, output.read(&mut buffer[count..])).await {
            Ok(Ok(more @ 1..)) => count += more,
            // The end, or a failure, which the next read meets again.
            Ok(_) | Err(_) => break,
        }
    }
    Ok(count)
}

/// Freezes, or within [`FREEZE_WITHIN`] gives up and leaves the application running.
fn freeze() -> io::Result<()> {
    let file = Path::new(CGROUP).join("cgroup.freeze");
    fs::write(&file, "1")?;
    wait_frozen().inspect_err(|_| {
        // Where even this fails, the first failure says more.
        let _ = fs::write(&file, "0");
    })
}

/// Waits for the kernel's word that no process runs.
fn wait_frozen() -> io::Result<()> {
    let deadline = Instant::now() + FREEZE_WITHIN;
    let mut events = fs::File::open(Path::new(CGROUP).join("cgroup.events"))?;
    loop {
        // Read through the watched file, so that a change after this read wakes the poll.
        if io::read_to_string(&events)?.lines().any(|line| line == "frozen 1") {
            return Ok(());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                format!("a process did not stop within {} s", FREEZE_WITHIN.as_secs()),
            ));
        }
        let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
        poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left))?;
        events.rewind()?;
    }
}
