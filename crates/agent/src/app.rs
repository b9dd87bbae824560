//! The application: its disks, its cgroup, its helper process and its output.

use std::fs;
use std::path::Path;
use std::process::Stdio;

use agent_proto::{AppSpec, Event, LogSource, MAX_LOG_CHUNK};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::mount::{MountFlags, mount};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::Sender;

use crate::disks::mount_disk;
use crate::error::{Error, trying};

/// The application's file system.
pub(crate) const ROOT: &str = "/app";
/// The application's cgroup.
pub(crate) const CGROUP: &str = "/sys/fs/cgroup/app";
/// Program of the agent, whatever became of the initramfs.
const SELF: &str = "/proc/self/exe";

/// A started application.
pub(crate) struct App(());

impl App {
    /// Mounts its disks and starts its first process; output and exit are told as events.
    pub(crate) fn start(spec: &AppSpec, events: &Sender<Event>) -> Result<Self, Error> {
        mount_root()?;
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
        set_frozen(true).await
    }

    /// Lets the application run again.
    pub(crate) async fn thaw(&self) -> Result<(), Error> {
        set_frozen(false).await
    }
}

fn mount_root() -> Result<(), Error> {
    mount_disk("code", "erofs", MountFlags::RDONLY, "/code")?;
    mount_disk("scratch", "ext4", MountFlags::NOATIME, "/scratch")?;
    for directory in ["/scratch/upper", "/scratch/work", ROOT] {
        fs::create_dir_all(directory).map_err(trying(format!("making {directory}")))?;
    }
    mount(
        "overlay",
        ROOT,
        "overlay",
        MountFlags::NOATIME,
        c"lowerdir=/code,upperdir=/scratch/upper,workdir=/scratch/work",
    )
    .map_err(trying("mounting the application's file system"))
}

async fn watch(mut child: Child, spec: Vec<u8>, events: Sender<Event>) {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that died at once says so by its exit.
        let _ = stdin.write_all(&spec).await;
    }
    tokio::join!(
        forward(child.stdout.take(), LogSource::Stdout, &events),
        forward(child.stderr.take(), LogSource::Stderr, &events),
    );
    let code = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(-1);
    // The receiver lives as long as the agent.
    let _ = events.send(Event::AppExited { code }).await;
}

/// Tells everything that is written to `output` as log events.
pub(crate) async fn forward<R: AsyncRead + Unpin>(
    output: Option<R>,
    source: LogSource,
    events: &Sender<Event>,
) {
    let Some(mut output) = output else { return };
    let mut buffer = vec![0; MAX_LOG_CHUNK];
    while let Ok(count @ 1..) = output.read(&mut buffer).await {
        let bytes = buffer[..count].to_vec();
        if events.send(Event::Log { source, bytes }).await.is_err() {
            return;
        }
    }
}

async fn set_frozen(frozen: bool) -> Result<(), Error> {
    let attempt = if frozen { "freezing the application" } else { "thawing the application" };
    tokio::task::spawn_blocking(move || freeze_cgroup(frozen))
        .await
        .map_err(trying(attempt))?
        .map_err(trying(attempt))
}

/// Sets the cgroup's wish and waits for the kernel's word that it is so.
fn freeze_cgroup(frozen: bool) -> std::io::Result<()> {
    let wish = u8::from(frozen);
    let events = Path::new(CGROUP).join("cgroup.events");
    fs::write(Path::new(CGROUP).join("cgroup.freeze"), wish.to_string())?;
    let watched = fs::File::open(&events)?;
    loop {
        // Read through the watched file, so that a change after this read wakes the poll.
        let now = std::io::read_to_string(&watched)?;
        if now.lines().any(|line| line == format!("frozen {wish}")) {
            return Ok(());
        }
        poll(&mut [PollFd::new(&watched, PollFlags::PRI)], None)?;
        std::io::Seek::rewind(&mut &watched)?;
    }
}
