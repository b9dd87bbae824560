//! The jail: what `rekindle jail …` does between being spawned and becoming the VMM.
//!
//! A process of its own does this because the server, large and threaded, must not fork with hooks of its own. A VMM gets
//! its files in one of two ways: opened here, as root, and inherited, so that it needs no path outside `/proc/self/fd`;
//! or, where it insists on paths of its own, in a root file system that has nothing else in it (see [`crate::root`]).

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::shared_root;

/// Descriptor of the first file of a plan; the others follow.
pub const FIRST_FD: i32 = 100;

/// How readily the kernel takes a VMM when the host is out of memory, from -1000 to 1000: before everything else.
const OOM_SCORE: &str = "900";

/// A file for the VMM to inherit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JailFile {
    /// Which file.
    pub path: PathBuf,
    /// Whether it is opened for writing too, and given to the VMM's user.
    pub writable: bool,
    /// Where it is in the VMM's own root; `None`: it is inherited.
    pub at: Option<PathBuf>,
}

/// Everything that is done to the process.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JailPlan {
    /// Network namespace to join.
    pub netns: Option<PathBuf>,
    /// cgroup directories to join.
    pub cgroups: Vec<PathBuf>,
    /// Without a root of its own, the mount namespace to see the files of (see [`crate::VmmRoot`]); `None` for the host's.
    pub shared_root: Option<PathBuf>,
    /// Where to note process id and start time.
    pub pid_file: PathBuf,
    /// User to become.
    pub uid: u32,
    /// Group to become.
    pub gid: u32,
    /// Its files: those without a place are inherited, at [`FIRST_FD`] and up.
    pub files: Vec<JailFile>,
    /// An empty directory to make a root of its own on, in which [`JailFile::at`] and `devices` are.
    pub root: Option<PathBuf>,
    /// Device nodes to make in that root, for the VMM's user alone.
    pub devices: Vec<PathBuf>,
    /// Tap interface of that namespace: inherited, at the descriptor after the last file's, or with a root of its own
    /// given to the VMM's user.
    pub tap: Option<String>,
    /// Program and its arguments.
    pub command: Vec<OsString>,
}

/// Why the VMM could not be confined; it was not started.
#[derive(Debug, thiserror::Error)]
pub enum JailError {
    /// Not the arguments that [`JailPlan::to_args`] makes.
    #[error("the jail's arguments are wrong at {0:?}; this command is for the server's own use")]
    Arguments(OsString),
    /// A step failed.
    #[error("{step} to confine a VMM (does the server run as root?): {source}")]
    Step {
        /// Which.
        step: String,
        /// Why.
        source: io::Error,
    },
}

impl JailPlan {
    /// The arguments that [`JailPlan::from_args`] reads.
    #[must_use]
    pub fn to_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> = Vec::new();
        let mut put = |name: &str, value: &OsStr| args.extend([name.into(), value.to_owned()]);
        if let Some(netns) = &self.netns {
            put("--netns", netns.as_os_str());
        }
        for cgroup in &self.cgroups {
            put("--cgroup", cgroup.as_os_str());
        }
        if let Some(root) = &self.shared_root {
            put("--shared-root", root.as_os_str());
        }
        put("--pid-file", self.pid_file.as_os_str());
        put("--uid", self.uid.to_string().as_ref());
        put("--gid", self.gid.to_string().as_ref());
        for file in &self.files {
            put(if file.writable { "--rw" } else { "--ro" }, file.path.as_os_str());
            if let Some(at) = &file.at {
                put("--at", at.as_os_str());
            }
        }
        if let Some(root) = &self.root {
            put("--root", root.as_os_str());
        }
        for device in &self.devices {
            put("--device", device.as_os_str());
        }
        if let Some(tap) = &self.tap {
            put("--tap", tap.as_ref());
        }
        args.push("--".into());
        args.extend(self.command.iter().cloned());
        args
    }

    /// Reads what [`JailPlan::to_args`] made.
    pub fn from_args(args: impl IntoIterator<Item = OsString>) -> Result<Self, JailError> {
        let mut plan = Self::default();
        let mut args = args.into_iter();
        loop {
            let name = args.next().unwrap_or_default();
            if name == "--" {
                break;
            }
            let value = args.next().ok_or_else(|| JailError::Arguments(name.clone()))?;
            plan.set(&name, value)?;
        }
        plan.command = args.collect();
        let complete = !plan.command.is_empty() && !plan.pid_file.as_os_str().is_empty();
        if complete { Ok(plan) } else { Err(JailError::Arguments("the end".into())) }
    }

    fn set(&mut self, name: &OsStr, value: OsString) -> Result<(), JailError> {
        let number = || value.to_str().and_then(|text| text.parse().ok());
        match name.to_str() {
            Some("--netns") => self.netns = Some(value.into()),
            Some("--cgroup") => self.cgroups.push(value.into()),
            Some("--shared-root") => self.shared_root = Some(value.into()),
            Some("--pid-file") => self.pid_file = value.into(),
            Some("--uid") => self.uid = number().ok_or(JailError::Arguments(value))?,
            Some("--gid") => self.gid = number().ok_or(JailError::Arguments(value))?,
            Some("--ro") => self.files.push(JailFile { path: value.into(), writable: false, at: None }),
            Some("--rw") => self.files.push(JailFile { path: value.into(), writable: true, at: None }),
            Some("--at") => match self.files.last_mut() {
                Some(file) => file.at = Some(value.into()),
                None => return Err(JailError::Arguments(value)),
            },
            Some("--root") => self.root = Some(value.into()),
            Some("--device") => self.devices.push(value.into()),
            Some("--tap") => self.tap = Some(value.into_string().map_err(JailError::Arguments)?),
            _ => return Err(JailError::Arguments(name.to_owned())),
        }
        Ok(())
    }
}

/// Confines this process, which must have one thread, and becomes the VMM. Returns only when that failed.
pub fn exec(args: impl IntoIterator<Item = OsString>) -> JailError {
    let mut args = args.into_iter().peekable();
    if args.next_if(|first| first == shared_root::MAKE).is_some() {
        let programs: Vec<PathBuf> = args.map(PathBuf::from).collect();
        return match shared_root::serve(&programs) {
            Ok(()) => std::process::exit(0),
            Err(error) => error,
        };
    }
    match JailPlan::from_args(args).and_then(|plan| confine(&plan).map(|()| plan)) {
        Ok(plan) => {
            let source = Command::new(&plan.command[0]).args(&plan.command[1..]).env_clear().exec();
            JailError::Step { step: format!("running {}", plan.command[0].display()), source }
        }
        Err(error) => error,
    }
}

pub(crate) fn step<T>(
    step: impl std::fmt::Display,
    result: Result<T, impl Into<io::Error>>,
) -> Result<T, JailError> {
    result.map_err(|source| JailError::Step { step: step.to_string(), source: source.into() })
}

fn confine(plan: &JailPlan) -> Result<(), JailError> {
    step("leaving the server's session", rustix::process::setsid())?;
    for cgroup in &plan.cgroups {
        step(format!("joining {}", cgroup.display()), fs::write(cgroup.join("cgroup.procs"), "0"))?;
    }
    step("becoming the first to go", fs::write("/proc/self/oom_score_adj", OOM_SCORE))?;
    step("writing the pid file", write_pid_file(&plan.pid_file))?;
    let inherited: Vec<_> = plan.files.iter().filter(|file| file.at.is_none()).collect();
    for (index, file) in inherited.iter().enumerate() {
        step(format!("opening {}", file.path.display()), inherit(file, index, plan))?;
    }
    if let Some(netns) = &plan.netns {
        join(netns, LinkNameSpaceType::Network)?;
    }
    if let Some(tap) = &plan.tap {
        let opened = step(format!("opening the tap interface {tap}"), open_tap(tap))?;
        match plan.root {
            None => step("handing over the tap interface", hand_over(&opened, inherited.len()))?,
            Some(_) => step("giving the tap interface away", give_tap(&opened, plan.uid))?,
        }
    }
    // Last: no file of the host's can be opened afterwards.
    match (&plan.root, &plan.shared_root) {
        (Some(root), _) => crate::root::enter(root, plan)?,
        (None, Some(shared)) => join(shared, LinkNameSpaceType::Mount)?,
        (None, None) => {}
    }
    drop_privileges(plan)
}

fn join(namespace: &Path, kind: LinkNameSpaceType) -> Result<(), JailError> {
    let opened = step(format!("opening {}", namespace.display()), fs::File::open(namespace))?;
    let joined = rustix::thread::move_into_link_name_space(opened.as_fd(), Some(kind));
    step(format!("joining {}", namespace.display()), joined)
}

fn write_pid_file(path: &Path) -> io::Result<()> {
    let pid = rustix::process::getpid();
    let start = crate::process::start_time(pid)?;
    let new = path.with_extension("new");
    fs::write(&new, format!("{} {start}\n", pid.as_raw_nonzero()))?;
    fs::rename(new, path)
}

fn inherit(file: &JailFile, index: usize, plan: &JailPlan) -> io::Result<()> {
    let access = if file.writable { OFlags::RDWR } else { OFlags::RDONLY };
    let path = CString::new(file.path.as_os_str().as_bytes())?;
    let opened = rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())?;
    let device = rustix::fs::FileType::from_raw_mode(rustix::fs::fstat(&opened)?.st_mode).is_char_device();
    // A device is the system's, and is not given away.
    if file.writable && !device {
        // Opening /proc/self/fd/N checks the file's permissions once more, as the VMM's user.
        let (uid, gid) = (rustix::fs::Uid::from_raw(plan.uid), rustix::fs::Gid::from_raw(plan.gid));
        rustix::fs::fchown(&opened, Some(uid), Some(gid))?;
    }
    hand_over(&opened, index)
}

/// Opened here, so that no VMM needs a right to the kernel's tun device.
fn open_tap(name: &str) -> io::Result<OwnedFd> {
    const TUN: &CStr = c"/dev/net/tun";
    let tun = rustix::fs::open(TUN, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    // SAFETY: `ifreq` is a C structure for which all zeroes is a valid value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes().take(libc::IFNAMSIZ - 1)) {
        *to = from as libc::c_char;
    }
    // The flags are 0x5002: they fit the field.
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the descriptor is open and `request` is the structure that this request reads.
    match unsafe { libc::ioctl(tun.as_raw_fd(), libc::TUNSETIFF as _, &raw const request) } {
        0 => Ok(tun),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The interface stays when this descriptor is closed, and its new owner may open it.
fn give_tap(tap: &OwnedFd, uid: u32) -> io::Result<()> {
    // SAFETY: the descriptor is open, and this request takes a number.
    match unsafe { libc::ioctl(tap.as_raw_fd(), libc::TUNSETOWNER as _, libc::c_ulong::from(uid)) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Keeps a file open across the exec, at its place.
fn hand_over(opened: &OwnedFd, index: usize) -> io::Result<()> {
    let want = FIRST_FD + i32::try_from(index).map_err(io::Error::other)?;
    let kept = rustix::io::fcntl_dupfd_cloexec(opened, want)?;
    if kept.as_raw_fd() != want {
        return Err(io::Error::other("the descriptor meant for it is taken"));
    }
    rustix::io::fcntl_setfd(&kept, rustix::io::FdFlags::empty())?;
    std::mem::forget(kept);
    Ok(())
}

fn drop_privileges(plan: &JailPlan) -> Result<(), JailError> {
    let (uid, gid) = (rustix::fs::Uid::from_raw(plan.uid), rustix::fs::Gid::from_raw(plan.gid));
    step("leaving all groups", rustix::thread::set_thread_groups(&[]))?;
    step("changing the group", rustix::thread::set_thread_res_gid(gid, gid, gid))?;
    step("changing the user", rustix::thread::set_thread_res_uid(uid, uid, uid))?;
    step("giving up new privileges", rustix::thread::set_no_new_privs(true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_its_arguments() {
        let plan = JailPlan {
            netns: Some("/run/netns/a b".into()),
            cgroups: vec!["/sys/fs/cgroup/x".into()],
            shared_root: Some("/proc/1/fd/3".into()),
            pid_file: "/run/x/pid".into(),
            uid: 5,
            gid: 6,
            files: vec![
                JailFile { path: "--uid".into(), writable: true, at: None },
                JailFile { path: "/b".into(), writable: false, at: Some("/in/b".into()) },
            ],
            root: Some("/run/x/root".into()),
            devices: vec!["/dev/kvm".into()],
            tap: Some("tap0".into()),
            command: vec!["qemu".into(), "--".into(), "--uid".into()],
        };
        assert_eq!(JailPlan::from_args(plan.to_args()).unwrap(), plan);
    }

    #[test]
    fn wrong_arguments_are_refused() {
        for args in [
            &["--uid"][..],
            &["--at", "x", "--", "a"],
            &["--uid", "x", "--", "a"],
            &["--what", "x"],
            &["--"],
            &["--", "a"],
            &[],
        ] {
            assert!(JailPlan::from_args(args.iter().map(OsString::from)).is_err(), "{args:?}");
        }
    }
}
