//! The application: its disks, and its helper process.

use std::ffi::CString;
use std::fs;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use agent_proto::{AppSpec, Event, LogSource};
use rustix::mount::{MountFlags, mount};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use crate::cgroup;
use crate::disks::{mount_image, mount_scratch};
use crate::error::{Error, trying};
use crate::freezer::Freezer;
use crate::machine_id::MachineId;
use crate::output::Output;
use crate::stop::stop;

/// The application's file system.
pub(crate) const ROOT: &str = "/app";
/// The catalogue of base images.
const BASES: &str = "/bases";
/// Whether who has no privileges may get them all in a user namespace of his own.
const USER_NAMESPACES: &str = "/proc/sys/kernel/unprivileged_userns_clone";
/// Program of the agent, whatever became of the initramfs.
pub(crate) const SELF: &str = "/proc/self/exe";

/// A started application.
pub(crate) struct App {
    freezer: Freezer,
    machine_id: MachineId,
    container: Container,
}

/// The container, for who is to join it.
#[derive(Clone)]
pub(crate) struct Container {
    /// How it was started.
    pub(crate) spec: Arc<AppSpec>,
    /// Its helper, which lives in its namespaces, but for that of its processes, and as long as it.
    pub(crate) helper: u32,
    exited: watch::Receiver<bool>,
}

impl Container {
    /// Whether its first process has ended, and with it all the others.
    pub(crate) fn has_exited(&self) -> bool {
        *self.exited.borrow()
    }

    /// Asks its first process to end, and returns once it has, or will not.
    pub(crate) async fn stop(&self, within: Duration) -> Result<(), Error> {
        stop(&self.spec, self.helper, self.exited.clone(), within).await
    }
}

impl App {
    /// Mounts its disks and starts its first process; output and exit are told as events.
    pub(crate) fn start(spec: &AppSpec, told: &Arc<Output>) -> Result<Self, Error> {
        mount_root(spec)?;
        if spec.all_capabilities {
            cgroup::delegate().map_err(trying("giving the container its controllers"))?;
        } else {
            fs::write(USER_NAMESPACES, "0").map_err(trying("keeping user namespaces to the privileged"))?;
        }
        let machine_id = MachineId::draw()?;
        let freezer = Freezer::make()?;
        let attempt = "starting the container's helper";
        let order = postcard::to_allocvec(spec).map_err(trying(attempt))?;
        let child = Command::new(SELF)
            .arg(crate::CONTAINER)
            .env_clear()
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(trying(attempt))?;
        let helper = child.id().ok_or_else(|| Error::new(attempt, "it has ended at once"))?;
        let (end, exited) = watch::channel(false);
        tokio::spawn(attend(child, order, Arc::clone(told), end));
        let container = Container { spec: Arc::new(spec.clone()), helper, exited };
        Ok(Self { freezer, machine_id, container })
    }

    pub(crate) fn container(&self) -> &Container {
        &self.container
    }

    /// Returns once no process of the application runs any more.
    pub(crate) async fn freeze(&self) -> Result<(), Error> {
        self.freezer.freeze().await
    }

    /// Lets the application run again: as another machine, where `machine_id` names it.
    pub(crate) fn thaw(&self, machine_id: Option<&str>) -> Result<(), Error> {
        machine_id.map_or(Ok(()), |id| self.machine_id.set(id))?;
        self.freezer.thaw()
    }
}

/// Device nodes on them mean nothing where the container is confined: it may make nodes, the kernel opens none.
fn mount_root(spec: &AppSpec) -> Result<(), Error> {
    let nodes = if spec.all_capabilities { MountFlags::empty() } else { MountFlags::NODEV };
    mount_image("code", "/code")?;
    if !spec.base_layers.is_empty() {
        mount_image("bases", BASES)?;
    }
    mount_scratch("/scratch")?;
    for directory in ["/scratch/upper", "/scratch/work", ROOT] {
        fs::create_dir_all(directory).map_err(trying(format!("making {directory}")))?;
    }
    let layers =
        format!("lowerdir={},upperdir=/scratch/upper,workdir=/scratch/work", lower(&spec.base_layers)?);
    let layers = CString::new(layers).map_err(trying("naming the application's layers"))?;
    mount("overlay", ROOT, "overlay", MountFlags::NOATIME | nodes, layers.as_c_str())
        .map_err(trying("mounting the application's file system"))
}

/// The container's own files, and those of the catalogue's store that they lie on, the highest first.
fn lower(base_layers: &[String]) -> Result<String, Error> {
    let is_name =
        |layer: &String| !layer.is_empty() && layer.bytes().all(|byte| byte.is_ascii_alphanumeric());
    if let Some(other) = base_layers.iter().find(|layer| !is_name(layer)) {
        return Err(Error::new("naming the application's layers", format!("'{other}' is not one's name")));
    }
    let base = base_layers.iter().map(|layer| format!(":{BASES}/overlay/{layer}/diff"));
    Ok("/code".to_owned() + &base.collect::<String>())
}

async fn attend(mut child: Child, order: Vec<u8>, output: Arc<Output>, exited: watch::Sender<bool>) {
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that died at once says so by its exit.
        let _ = stdin.write_all(&order).await;
    }
    if let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) {
        tokio::join!(
            output.forward(&mut stdout, LogSource::Stdout, |_| {}),
            output.forward(&mut stderr, LogSource::Stderr, |_| {}),
        );
    }
    let code = child.wait().await.ok().and_then(|status| status.code()).unwrap_or(-1);
    output.tell(Event::AppExited { code }).await;
    // Who waits for it may have the output flushed behind it.
    exited.send_replace(true);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_files_lie_on_the_catalogues() {
        let of = |layers: &[&str]| lower(&layers.iter().map(|&layer| layer.to_owned()).collect::<Vec<_>>());
        assert_eq!(of(&[]).unwrap(), "/code");
        assert_eq!(of(&["b1", "a0"]).unwrap(), "/code:/bases/overlay/b1/diff:/bases/overlay/a0/diff");
        for hostile in ["", "../../scratch", "a,upperdir=/", "a:b"] {
            assert!(of(&[hostile]).is_err(), "{hostile}");
        }
    }
}
