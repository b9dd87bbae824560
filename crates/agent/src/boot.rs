//! From the kernel's first process to a machine that programs can live in.

use std::ffi::CStr;
use std::fs;
use std::path::Path;

use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change, mount_move};

use crate::command_line;
use crate::error::{Error, trying};

const MODULES: &str = "/modules";
/// In the names of the modules that the socket device needs.
const SOCKET_DEVICE: &str = "vsock";
/// Work of the kernel's own, which every clone would begin with because time has passed since its snapshot: compacting
/// memory that nobody lacks, and adding up its statistics each second.
const SETTINGS: [(&str, &str); 2] = [("vm/compaction_proactiveness", "0"), ("vm/stat_interval", "30")];

/// Mounts the kernel's file systems, loads the modules, and leaves the initramfs.
pub(crate) fn ready_machine() -> Result<(), Error> {
    mount_kernel("proc", "/proc", None)?;
    mount_kernel("sysfs", "/sys", None)?;
    mount_kernel("devtmpfs", "/dev", None)?;
    load_modules()?;
    leave_initramfs()?;
    mount_kernel("devpts", "/dev/pts", Some(c"ptmxmode=0666,mode=0620,gid=5"))?;
    mount_kernel("tmpfs", "/dev/shm", Some(c"mode=1777"))?;
    mount_kernel("cgroup2", "/sys/fs/cgroup", None)?;
    quieten()
}

fn quieten() -> Result<(), Error> {
    SETTINGS.iter().try_for_each(|(name, value)| {
        fs::write(Path::new("/proc/sys").join(name), value).map_err(trying(format!("setting {name}")))
    })
}

fn mount_kernel(kind: &str, at: &str, options: Option<&CStr>) -> Result<(), Error> {
    fs::create_dir_all(at).map_err(trying(format!("making {at}")))?;
    mount(kind, at, kind, MountFlags::NOSUID | MountFlags::NOEXEC, options)
        .map_err(trying(format!("mounting {kind} on {at}")))
}

fn load_modules() -> Result<(), Error> {
    let list = Path::new(MODULES).join("order");
    let order = fs::read_to_string(&list).map_err(trying("reading /modules/order"))?;
    // Where hosts do not come that way, containers with all rights have no use for it either.
    let sockets = command_line::value(command_line::VSOCK)?.is_some();
    let wanted = |name: &&str| !name.is_empty() && (sockets || !name.contains(SOCKET_DEVICE));
    for name in order.lines().map(str::trim).filter(wanted) {
        let module = fs::File::open(Path::new(MODULES).join(name))
            .map_err(trying(format!("opening module {name}")))?;
        match rustix::system::finit_module(&module, c"", 0) {
            Ok(()) | Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(Error::new(format!("loading module {name}"), error)),
        }
    }
    Ok(())
}

/// Makes a tmpfs the root: the container's `pivot_root` is refused on the initramfs itself.
fn leave_initramfs() -> Result<(), Error> {
    const ROOT: &str = "/root.tmpfs";
    fs::create_dir_all(ROOT).map_err(trying("making the new root"))?;
    mount("tmpfs", ROOT, "tmpfs", MountFlags::empty(), c"mode=0755")
        .map_err(trying("mounting the new root"))?;
    for kernel in ["proc", "sys", "dev"] {
        let at = format!("{ROOT}/{kernel}");
        fs::create_dir(&at).map_err(trying(format!("making {at}")))?;
        mount_move(format!("/{kernel}"), &at).map_err(trying(format!("moving /{kernel}")))?;
    }
    std::env::set_current_dir(ROOT).map_err(trying("entering the new root"))?;
    mount_move(ROOT, "/").map_err(trying("moving the new root"))?;
    rustix::process::chroot(".").map_err(trying("changing to the new root"))?;
    std::env::set_current_dir("/").map_err(trying("entering the new root"))?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(trying("keeping mounts private"))
}

/// Stops the machine; returns only where that is refused. Every VMM ends with a machine that restarts; not every one has
/// something to power off.
pub(crate) fn power_off() {
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}
