//! The helper that becomes the container's first process.
//!
//! It reads its order from standard input, joins the application's cgroup, makes the namespaces and forks; the child
//! is the container's process 1, the parent waits outside and passes its exit on.

use std::ffi::CString;
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use agent_proto::AppSpec;
use rustix::fs::{CWD, Mode};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_bind,
    mount_change, mount_remount, move_mount, open_tree, unmount,
};

use crate::app::ROOT;
use crate::cgroup;
use crate::error::{Error, trying};
use crate::fork::{self, Fork};
use crate::freezer::CGROUP;
use crate::machine_id;
use crate::user::{self, Identity};
use crate::{environment, privileges, volumes};

/// Docker's, like those below.
const MASKED: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// What a container with every capability has besides, so that it can mount file systems of its own making.
const FUSE: &str = "fuse";
/// Exit codes for a command that cannot be started, and for one that is no program, as shells and Docker have them.
pub(crate) const CANNOT_START: u8 = 127;
const NOT_EXECUTABLE: u8 = 126;

/// Runs the container; exits with its exit code.
pub(crate) fn main() -> ExitCode {
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("Failed to start container: {error}");
            ExitCode::from(CANNOT_START)
        }
    }
}

fn run() -> Result<u8, Error> {
    let mut order = Vec::new();
    io::stdin().read_to_end(&mut order).map_err(trying("reading the container's order"))?;
    let spec: AppSpec = postcard::from_bytes(&order).map_err(trying("reading the container's order"))?;
    fs::write(Path::new(CGROUP).join("cgroup.procs"), "0")
        .map_err(trying("joining the application's cgroup"))?;
    unshare()?;
    match fork::fork()? {
        Fork::Child => {
            let (error, code) = become_container(&spec);
            eprintln!("Failed to start container: {error}");
            std::process::exit(i32::from(code))
        }
        Fork::Parent(child) => {
            // Its cgroup is the container's alone, which could not divide it among others while somebody is in it whom it
            // does not see.
            fs::write(Path::new(cgroup::ROOT).join("cgroup.procs"), "0")
                .map_err(trying("leaving the application's cgroup"))?;
            fork::wait(child)
        }
    }
}

fn unshare() -> Result<(), Error> {
    let namespaces = libc::CLONE_NEWPID
        | libc::CLONE_NEWNS
        | libc::CLONE_NEWUTS
        | libc::CLONE_NEWIPC
        | libc::CLONE_NEWCGROUP;
    // SAFETY: the flags ask for new namespaces only, and share no memory or descriptors differently.
    check(unsafe { libc::unshare(namespaces) }).map_err(trying("making the container's namespaces"))
}

/// Does not return where the application starts.
fn become_container(spec: &AppSpec) -> (Error, u8) {
    match prepare(spec) {
        Ok(mut command) => {
            let program = command.get_program().to_string_lossy().into_owned();
            let error = command.exec();
            let code = exit_code(&error);
            (Error::new(format!("executing {program}"), error), code)
        }
        Err(error) => (error, CANNOT_START),
    }
}

/// Of a program that could not be executed.
fn exit_code(error: &io::Error) -> u8 {
    if error.kind() == io::ErrorKind::PermissionDenied { NOT_EXECUTABLE } else { CANNOT_START }
}

fn prepare(spec: &AppSpec) -> Result<Command, Error> {
    rustix::process::setsid().map_err(trying("starting a session"))?;
    rustix::system::sethostname(spec.hostname.as_bytes()).map_err(trying("setting the host name"))?;
    let machine_id = machine_id::take()?;
    enter_root(&spec.config.volumes, spec.all_capabilities)?;
    write_names(&spec.hostname)?;
    machine_id::place(&machine_id)?;
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let identity = user::resolve(&spec.config.user, &read("/etc/passwd"), &read("/etc/group"))
        .map_err(|missing| Error::new("resolving USER", format!("the image has no {missing}")))?;
    let command = command(spec, &identity)?;
    privileges::assume(&identity, spec.all_capabilities)?;
    Ok(command)
}

fn enter_root(volumes: &[String], all: bool) -> Result<(), Error> {
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)
        .map_err(trying("keeping mounts private"))?;
    let devices = take_devices(all)?;
    let volumes = volumes::take(volumes)?;
    mount_bind(ROOT, ROOT).map_err(trying("binding the root"))?;
    std::env::set_current_dir(ROOT).map_err(trying("entering the root"))?;
    rustix::process::pivot_root(".", ".").map_err(trying("changing the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(trying("leaving the old root"))?;
    std::env::set_current_dir("/").map_err(trying("entering the root"))?;
    mount_kernel(all)?;
    place_devices(devices)?;
    volumes::place(&volumes, all)?;
    if !all {
        hide_paths()?;
    }
    Ok(())
}

fn mount_kernel(all: bool) -> Result<(), Error> {
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let sys = if all { safe } else { safe | MountFlags::RDONLY };
    let dev = if all { MountFlags::NOSUID } else { MountFlags::NOSUID | MountFlags::NODEV };
    let table: [(&str, &str, MountFlags, &str); 7] = [
        ("proc", "/proc", safe, ""),
        ("sysfs", "/sys", sys, ""),
        ("cgroup2", "/sys/fs/cgroup", sys, ""),
        ("tmpfs", "/dev", dev, "mode=0755,size=64m"),
        (
            "devpts",
            "/dev/pts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            "newinstance,ptmxmode=0666,mode=0620,gid=5",
        ),
        ("tmpfs", "/dev/shm", safe, "mode=1777,size=64m"),
        ("mqueue", "/dev/mqueue", safe, ""),
    ];
    for (kind, at, flags, options) in table {
        let attempt = || format!("mounting {at} in the container");
        // The directory of a kernel file system exists already, or cannot be made: the mount says which.
        let _ = fs::create_dir_all(at);
        let options = CString::new(options).map_err(trying(attempt()))?;
        mount(kind, at, kind, flags, Some(options.as_c_str())).map_err(trying(attempt()))?;
    }
    Ok(())
}

/// Mounts of the machine's own device nodes: those alone open a device below a directory where nodes mean nothing.
fn take_devices(all: bool) -> Result<Vec<(&'static str, OwnedFd)>, Error> {
    let names = DEVICES.iter().chain(all.then_some(&FUSE));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    names
        .map(|name| {
            let path = format!("/dev/{name}");
            let tree = open_tree(CWD, &path, flags).map_err(trying(format!("taking {path}")))?;
            // Every user of the container needs them.
            rustix::fs::chmod(&path, Mode::from(0o666)).map_err(trying(format!("opening up {path}")))?;
            Ok((*name, tree))
        })
        .collect()
}

fn place_devices(devices: Vec<(&str, OwnedFd)>) -> Result<(), Error> {
    for (name, tree) in devices {
        let path = format!("/dev/{name}");
        fs::File::create(&path).map_err(trying(format!("making {path}")))?;
        move_mount(&tree, "", CWD, &path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
            .map_err(trying(format!("placing {path}")))?;
    }
    let links = [
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ];
    for (target, name) in links {
        symlink(target, format!("/dev/{name}")).map_err(trying(format!("making /dev/{name}")))?;
    }
    Ok(())
}

fn hide_paths() -> Result<(), Error> {
    for path in MASKED.iter().filter(|path| Path::new(path).exists()) {
        let masked = if Path::new(path).is_dir() {
            mount("tmpfs", *path, "tmpfs", MountFlags::RDONLY, c"size=0")
        } else {
            mount_bind("/dev/null", *path)
        };
        masked.map_err(trying(format!("hiding {path}")))?;
    }
    for path in READ_ONLY.iter().filter(|path| Path::new(path).exists()) {
        let flags = MountFlags::BIND
            | MountFlags::RDONLY
            | MountFlags::NOSUID
            | MountFlags::NOEXEC
            | MountFlags::NODEV;
        mount_bind(*path, *path)
            .and_then(|()| mount_remount(*path, flags, c""))
            .map_err(trying(format!("protecting {path}")))?;
    }
    Ok(())
}

/// Host name and resolver, as every container runtime provides them.
fn write_names(hostname: &str) -> Result<(), Error> {
    let hosts = format!("127.0.0.1\tlocalhost\n::1\tlocalhost\n127.0.0.1\t{hostname}\n");
    let resolver = format!("nameserver {}\n", crate::network::RESOLVER);
    fs::create_dir_all("/etc").map_err(trying("making /etc"))?;
    for (path, text) in
        [("/etc/hosts", hosts), ("/etc/resolv.conf", resolver), ("/etc/hostname", format!("{hostname}\n"))]
    {
        // A link in the image may lead anywhere; the file replaces it.
        let _ = fs::remove_file(path);
        fs::write(path, text).map_err(trying(format!("writing {path}")))?;
    }
    Ok(())
}

fn command(spec: &AppSpec, identity: &Identity) -> Result<Command, Error> {
    let config = &spec.config;
    let mut words = config.entrypoint.iter().chain(&config.cmd);
    let program = words
        .next()
        .ok_or_else(|| Error::new("starting the application", "the image has neither ENTRYPOINT nor CMD"))?;
    let workdir = if config.workdir.is_empty() { "/" } else { &config.workdir };
    fs::create_dir_all(workdir).map_err(trying(format!("making WORKDIR {workdir}")))?;
    std::env::set_current_dir(workdir).map_err(trying(format!("entering WORKDIR {workdir}")))?;
    let variables = environment::of(spec, &identity.home);
    environment::search_path(&variables);
    let mut command = Command::new(program);
    command.args(words).env_clear().envs(variables).stdin(std::process::Stdio::null());
    Ok(command)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_program_is_told_from_what_is_not_there() {
        let code = |program| exit_code(&Command::new(program).exec());
        assert_eq!((code("/etc/passwd"), code("/nowhere")), (126, 127));
    }
}
