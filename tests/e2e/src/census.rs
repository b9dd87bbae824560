//! What a server has on its host, and must not leave behind.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use network::InstanceTag;

use crate::{command, until};

/// The names of VMMs' processes.
const VMMS: [&str; 2] = ["rekindle-vm", "firecracker"];
const CGROUPS: &str = "/sys/fs/cgroup";

/// Everything of one server that exists, apart from its data.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Census {
    /// Process ids of VMMs.
    pub vmms: Vec<i32>,
    /// Network namespaces.
    pub namespaces: Vec<String>,
    /// nftables tables.
    pub tables: Vec<String>,
    /// cgroups: the server's own, and so all in them.
    pub cgroups: Vec<PathBuf>,
    /// What is left of MicroVMs and builds in the data directory and below `/run`.
    pub files: Vec<PathBuf>,
}

impl Census {
    /// Counts what belongs to the server with this data directory.
    #[must_use]
    pub fn of(data_dir: &Path) -> Self {
        let tag = InstanceTag::of_data_dir(data_dir);
        Self {
            vmms: vmms_of(data_dir),
            namespaces: names(Path::new("/run/netns"), &format!("rk{tag}-")),
            tables: tables(&format!("rekindle_{tag}")),
            cgroups: groups(&tag),
            files: [data_dir.join("microvms"), data_dir.join("builds"), run_dir(data_dir)]
                .iter()
                .flat_map(|dir| entries(dir))
                .collect(),
        }
    }

    /// Whether nothing is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

impl fmt::Display for Census {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vmms, namespaces, tables, cgroups, files } = self;
        write!(
            f,
            "VMMs {vmms:?}, namespaces {namespaces:?}, tables {tables:?}, cgroups {cgroups:?}, files {files:?}"
        )
    }
}

/// Takes a server off the host that runs no more, whatever state it left its own things in.
///
/// # Panics
/// Where something of it cannot be removed.
pub fn remove(data_dir: &Path) {
    let tag = InstanceTag::of_data_dir(data_dir);
    vmms_of(data_dir).iter().for_each(kill);
    let empty = || vmms_of(data_dir).is_empty().then_some(());
    until("killed VMMs to be gone", Duration::from_secs(30), empty);
    for group in groups(&tag) {
        let gone = || directories(&group).iter().chain([&group]).all(is_removed);
        until("the cgroups to be empty", Duration::from_secs(30), || gone().then_some(()));
    }
    network::remove_instance(&tag).unwrap();
    // It may not have come so far as to make it.
    let _ = fs::remove_dir_all(run_dir(data_dir));
}

fn kill(pid: &i32) {
    command::run(Command::new("kill").args(["-KILL", &pid.to_string()]));
}

/// With whoever is in the cgroup: a VMM that waits for its MicroVM may have no file of it open yet. The kernel counts a
/// process for a moment after its end.
fn is_removed(cgroup: &PathBuf) -> bool {
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    members.lines().filter_map(|pid| pid.parse().ok()).for_each(|pid: i32| kill(&pid));
    fs::remove_dir(cgroup).is_ok()
}

/// Where a server keeps sockets and pid files.
#[must_use]
pub fn run_dir(data_dir: &Path) -> PathBuf {
    PathBuf::from(format!("/run/rekindle-{}", InstanceTag::of_data_dir(data_dir)))
}

/// VMMs of a data directory, or of one MicroVM's directory in it: they hold files of it open, by whatever path they know them.
#[must_use]
pub fn vmms_of(data_dir: &Path) -> Vec<i32> {
    let files = files_of(data_dir);
    let process = |path: PathBuf| {
        let pid = path.file_name()?.to_str()?.parse().ok()?;
        let comm = fs::read_to_string(path.join("comm")).ok()?;
        (VMMS.contains(&comm.trim_end()) && holds_open(&path, data_dir, &files)).then_some(pid)
    };
    let mut pids: Vec<i32> = entries(Path::new("/proc")).into_iter().filter_map(process).collect();
    pids.sort_unstable();
    pids
}

/// Device and inode: all that a file has in common with itself in another root.
pub type Identity = (u64, u64);

/// Of a path that leads to a file.
#[must_use]
pub fn identity(path: &Path) -> Option<Identity> {
    fs::metadata(path).ok().filter(Metadata::is_file).map(|it| (it.dev(), it.ino()))
}

/// The files of a directory and of those in it, each by one of its paths.
#[must_use]
pub fn files_of(dir: &Path) -> BTreeMap<Identity, PathBuf> {
    let (dirs, files): (Vec<_>, Vec<_>) =
        entries(dir).into_iter().partition(|path| path.is_dir() && !path.is_symlink());
    let below = dirs.iter().flat_map(|dir| files_of(dir));
    files.into_iter().filter_map(|file| Some((identity(&file)?, file))).chain(below).collect()
}

/// A file that is gone still has its path.
fn holds_open(process: &Path, data_dir: &Path, files: &BTreeMap<Identity, PathBuf>) -> bool {
    let is_inside = |link: PathBuf| {
        fs::read_link(&link).is_ok_and(|target| target.starts_with(data_dir))
            || identity(&link).is_some_and(|identity| files.contains_key(&identity))
    };
    entries(&process.join("fd")).into_iter().any(is_inside)
}

fn tables(name: &str) -> Vec<String> {
    let listing = command::must(Command::new("nft").args(["list", "tables"]));
    listing.lines().filter(|line| line.ends_with(name)).map(str::to_owned).collect()
}

/// The server's own cgroups, with its VMMs' in them: in the unified hierarchy as in the older ones, which are a level
/// deeper.
fn groups(tag: &InstanceTag) -> Vec<PathBuf> {
    let root = Path::new(CGROUPS);
    let parents = std::iter::once(root.to_owned()).chain(directories(root));
    parents.map(|parent| parent.join(format!("rekindle-{tag}"))).filter(|path| path.is_dir()).collect()
}

fn directories(dir: &Path) -> Vec<PathBuf> {
    entries(dir).into_iter().filter(|path| path.is_dir()).collect()
}

fn names(dir: &Path, prefix: &str) -> Vec<String> {
    let name = |path: PathBuf| path.file_name()?.to_str().map(str::to_owned);
    entries(dir).into_iter().filter_map(name).filter(|name| name.starts_with(prefix)).collect()
}

/// Of a directory that may be gone, or go while it is read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let read = fs::read_dir(dir).into_iter().flatten();
    read.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_that_nobody_serves_has_nothing_but_its_files() {
        let dir = tempfile::tempdir().unwrap();
        assert!(vmms_of(dir.path()).is_empty());
        let left = dir.path().join("microvms/microvm-x");
        fs::create_dir_all(&left).unwrap();
        assert_eq!(entries(&dir.path().join("microvms")), [left]);
    }

    #[test]
    fn a_process_is_told_by_what_it_holds_open() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        let holds = |dir: &Path| holds_open(Path::new("/proc/self"), dir, &files_of(dir));
        assert!(!holds(&path));
        let (inside, elsewhere) = (path.join("below/x"), tempfile::tempdir().unwrap());
        fs::create_dir(path.join("below")).unwrap();
        let open = fs::File::create(&inside).unwrap();
        assert!(holds(&path));
        // As the root of another mount namespace has it.
        let known_as = elsewhere.path().join("y");
        fs::hard_link(&inside, &known_as).unwrap();
        drop(open);
        assert!(!holds(&path));
        let _open = fs::File::open(&known_as).unwrap();
        assert!(holds(&path));
        fs::remove_file(&known_as).unwrap();
        assert!(holds(&path));
    }
}
