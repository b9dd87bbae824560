//! A cgroup for each MicroVM's VMM: what it may take of the host, and what it has taken.
//!
//! The unified hierarchy is used where it has the controllers needed, the older one hierarchy per controller
//! otherwise. Groups are `<hierarchy>/rekindle-<tag>/<name>`.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::config::InstanceTag;

const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];
/// In the older hierarchies the last counts what the unified one's `cpu` counts too.
const OLDER_CONTROLLERS: [&str; 4] = ["memory", "pids", "cpu", "cpuacct"];
const CPU_PERIOD_MICROS: u64 = 100_000;
const MOUNTS: &str = "/proc/self/mounts";

/// Why a cgroup operation failed.
#[derive(Debug, thiserror::Error)]
pub enum CgroupError {
    /// No usable hierarchy.
    #[error(
        "cannot limit MicroVMs: no cgroup hierarchy with the controllers memory, pids and cpu is mounted; mount cgroup2 on /sys/fs/cgroup"
    )]
    NoControllers,
    /// A name that is not one.
    #[error("cannot name a cgroup {0:?}: use letters, digits, '-' and '_' only")]
    Name(String),
    /// The system refused.
    #[error("cannot {attempt} {}: {source}; the server needs root's rights on the cgroup hierarchy, and no process may remain in a group being removed", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// What one MicroVM's VMM may take, and what it gets where others want it too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of memory, page cache included.
    pub memory_bytes: u64,
    /// Bytes of them that the host takes back last. The older hierarchies have nothing for it.
    pub kept_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Thousandths of a CPU; `None` for no limit.
    pub cpu_millis: Option<u64>,
    /// Thousandths of a CPU that it weighs beside the others where CPUs are short.
    pub weight_millis: u64,
}

/// What one MicroVM's VMM has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Nanoseconds of CPU since the group was made.
    pub cpu_nanos: u64,
    /// Bytes of memory that are its own now: no page cache, which many share.
    pub memory_bytes: u64,
}

/// A MicroVM's cgroup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup {
    /// The directories (one, or one per controller) to whose `cgroup.procs` the jailed process writes its pid.
    pub dirs: Vec<PathBuf>,
}

/// The mounted hierarchies.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Hierarchies {
    /// The unified one.
    Unified(PathBuf),
    /// One for each controller, in the order of [`OLDER_CONTROLLERS`].
    PerController([PathBuf; 4]),
}

/// The cgroups of one server.
#[derive(Debug, Clone)]
pub struct Cgroups {
    hierarchies: Hierarchies,
    parent: String,
}

impl Cgroups {
    /// Finds the hierarchies and makes the server's own group in them.
    pub fn open(instance: &InstanceTag) -> Result<Self, CgroupError> {
        let mounts = std::fs::read_to_string(MOUNTS).map_err(failed("read", Path::new(MOUNTS)))?;
        let hierarchies = detect(&mounts, |mount| {
            std::fs::read_to_string(mount.join("cgroup.controllers")).unwrap_or_default()
        });
        Self::prepare(hierarchies.ok_or(CgroupError::NoControllers)?, instance)
    }

    fn prepare(hierarchies: Hierarchies, instance: &InstanceTag) -> Result<Self, CgroupError> {
        let groups = Self { hierarchies, parent: format!("rekindle-{instance}") };
        for dir in groups.parents() {
            std::fs::create_dir_all(&dir).map_err(failed("create", &dir))?;
        }
        if let Hierarchies::Unified(root) = &groups.hierarchies {
            delegate(root)?;
            delegate(&root.join(&groups.parent))?;
        }
        let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get) as u64;
        for (file, value) in groups.own_settings(cpus) {
            std::fs::write(&file, value).map_err(failed("write", &file))?;
        }
        Ok(groups)
    }

    /// Makes the group of a MicroVM, or finds it, and sets its limits.
    pub fn create(&self, name: &str, limits: &Limits) -> Result<Cgroup, CgroupError> {
        let group = self.group(name)?;
        for dir in &group.dirs {
            match std::fs::create_dir(dir) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(failed("create", dir)(error));
                }
                _ => {}
            }
        }
        for (file, value) in self.settings(&group, limits) {
            std::fs::write(&file, value).map_err(failed("write", &file))?;
        }
        Ok(group)
    }

    /// The group of that name, existing or not.
    pub fn group(&self, name: &str) -> Result<Cgroup, CgroupError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        if name.is_empty() || !name.chars().all(allowed) {
            return Err(CgroupError::Name(name.to_owned()));
        }
        Ok(Cgroup { dirs: self.parents().into_iter().map(|dir| dir.join(name)).collect() })
    }

    /// Kills every process of a MicroVM's group, and returns once they have ended. Blocks.
    pub fn kill(&self, name: &str) -> Result<(), CgroupError> {
        for dir in &self.group(name)?.dirs {
            kill_all(dir).map_err(failed("kill the processes of", dir))?;
        }
        Ok(())
    }

    /// Whether the kernel killed a process of a MicroVM's group for want of memory: the group's own, or the host's.
    #[must_use]
    pub fn ran_out_of_memory(&self, name: &str) -> bool {
        let Ok(group) = self.group(name) else { return false };
        let read = |file: &str| {
            let found = group.dirs.iter().find_map(|dir| std::fs::read_to_string(dir.join(file)).ok());
            found.unwrap_or_default()
        };
        match self.hierarchies {
            Hierarchies::Unified(_) => counts_kills(&read("memory.events")),
            Hierarchies::PerController(_) => counts_kills(&read("memory.oom_control")),
        }
    }

    /// What a MicroVM's group has taken; `None` where there is none.
    #[must_use]
    pub fn usage(&self, name: &str) -> Option<Usage> {
        let group = self.group(name).ok()?;
        let read =
            |file: &str| group.dirs.iter().find_map(|dir| std::fs::read_to_string(dir.join(file)).ok());
        let (cpu_nanos, own) = match self.hierarchies {
            Hierarchies::Unified(_) => {
                (field(&read("cpu.stat")?, "usage_usec")?.saturating_mul(1000), "anon")
            }
            Hierarchies::PerController(_) => (read("cpuacct.usage")?.trim().parse().ok()?, "rss"),
        };
        Some(Usage { cpu_nanos, memory_bytes: field(&read("memory.stat")?, own)? })
    }

    /// Removes a MicroVM's group, if it is there; its processes must have ended.
    pub fn remove(&self, name: &str) -> Result<(), CgroupError> {
        self.group(name)?.dirs.iter().try_for_each(|dir| remove_dir(dir))
    }

    /// Removes the groups which are not in `keep`, with what still runs in them; returns their names. Blocks.
    pub fn reap(&self, keep: &BTreeSet<String>) -> Result<BTreeSet<String>, CgroupError> {
        let mut left_over = self.names()?;
        left_over.retain(|name| !keep.contains(name));
        for name in &left_over {
            self.kill(name)?;
            self.remove(name)?;
        }
        Ok(left_over)
    }

    /// Removes the server's own group too; all MicroVMs' must be gone.
    pub fn close(&self) -> Result<(), CgroupError> {
        self.parents().iter().try_for_each(|dir| remove_dir(dir))
    }

    fn names(&self) -> Result<BTreeSet<String>, CgroupError> {
        let mut names = BTreeSet::new();
        for parent in self.parents() {
            for entry in std::fs::read_dir(&parent).map_err(failed("list", &parent))? {
                let entry = entry.map_err(failed("list", &parent))?;
                let is_group = entry.file_type().map_err(failed("list", &parent))?.is_dir();
                names.extend(entry.file_name().into_string().ok().filter(|_| is_group));
            }
        }
        Ok(names)
    }

    fn parents(&self) -> Vec<PathBuf> {
        match &self.hierarchies {
            Hierarchies::Unified(root) => vec![root.join(&self.parent)],
            Hierarchies::PerController(roots) => {
                distinct(roots).map(|root| root.join(&self.parent)).collect()
            }
        }
    }

    /// MicroVMs together weigh as much as all the host's CPUs: whoever else wants one has it, and they have the others.
    fn own_settings(&self, cpus: u64) -> Vec<(PathBuf, String)> {
        let millis = cpus * 1000;
        match &self.hierarchies {
            Hierarchies::Unified(root) => {
                let dir = root.join(&self.parent);
                vec![
                    (dir.join("cpu.weight"), weight(millis).to_string()),
                    // What is not kept for the group is kept for none in it.
                    (dir.join("memory.low"), "max".to_owned()),
                ]
            }
            Hierarchies::PerController([_, _, cpu, _]) => {
                vec![(cpu.join(&self.parent).join("cpu.shares"), shares(millis).to_string())]
            }
        }
    }

    fn settings(&self, group: &Cgroup, limits: &Limits) -> Vec<(PathBuf, String)> {
        let name = group.dirs.first().and_then(|dir| dir.file_name()).unwrap_or_default();
        let quota = limits.cpu_millis.map(|millis| millis * CPU_PERIOD_MICROS / 1000);
        match &self.hierarchies {
            Hierarchies::Unified(root) => {
                let dir = root.join(&self.parent).join(name);
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                vec![
                    (dir.join("memory.max"), limits.memory_bytes.to_string()),
                    (dir.join("memory.low"), limits.kept_bytes.to_string()),
                    (dir.join("pids.max"), limits.pids.to_string()),
                    (dir.join("cpu.weight"), weight(limits.weight_millis).to_string()),
                    (dir.join("cpu.max"), format!("{quota} {CPU_PERIOD_MICROS}")),
                ]
            }
            Hierarchies::PerController(roots) => {
                let [memory, pids, cpu, _] = roots.each_ref().map(|root| root.join(&self.parent).join(name));
                let quota = quota.map_or("-1".to_owned(), |quota| quota.to_string());
                vec![
                    (memory.join("memory.limit_in_bytes"), limits.memory_bytes.to_string()),
                    (pids.join("pids.max"), limits.pids.to_string()),
                    (cpu.join("cpu.shares"), shares(limits.weight_millis).to_string()),
                    (cpu.join("cpu.cfs_period_us"), CPU_PERIOD_MICROS.to_string()),
                    (cpu.join("cpu.cfs_quota_us"), quota),
                ]
            }
        }
    }
}

/// As the unified hierarchy counts: a CPU is 100, as much as a group has that nobody weighed.
fn weight(millis: u64) -> u64 {
    (millis / 10).clamp(1, 10_000)
}

/// The same in the older one: a CPU is 1024.
fn shares(millis: u64) -> u64 {
    (millis * 1024 / 1000).clamp(2, 262_144)
}

fn counts_kills(events: &str) -> bool {
    field(events, "oom_kill").is_some_and(|count| count > 0)
}

/// Of a file with a name and a number on each line.
fn field(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.and_then(|value| value.trim().parse().ok())
}

/// Controllers may share a hierarchy, which then has one directory for them.
fn distinct(roots: &[PathBuf; 4]) -> impl Iterator<Item = &PathBuf> {
    roots.iter().enumerate().filter(|(at, root)| !roots[..*at].contains(root)).map(|(_, root)| root)
}

/// Lets the groups below have the controllers.
fn delegate(dir: &Path) -> Result<(), CgroupError> {
    let file = dir.join("cgroup.subtree_control");
    let wanted = CONTROLLERS.map(|controller| format!("+{controller}")).join(" ");
    std::fs::write(&file, wanted).map_err(failed("give MicroVMs' groups the controllers by writing", &file))
}

/// A process that forks meanwhile has its child killed on the next look.
fn kill_all(dir: &Path) -> io::Result<()> {
    loop {
        let list = match std::fs::read_to_string(dir.join("cgroup.procs")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            list => list?,
        };
        let pids: Vec<Pid> = list.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)).collect();
        if pids.is_empty() {
            return Ok(());
        }
        for pid in pids {
            kill_and_wait(pid)?;
        }
    }
}

/// By descriptor, so that no other process is ever hit; one that has ended already is what was wanted.
fn kill_and_wait(pid: Pid) -> io::Result<()> {
    let process = match pidfd_open(pid, PidfdFlags::empty()) {
        Err(Errno::SRCH) => return Ok(()),
        process => process?,
    };
    match pidfd_send_signal(&process, Signal::KILL) {
        Err(Errno::SRCH) => return Ok(()),
        sent => sent?,
    }
    poll(&mut [PollFd::new(&process, PollFlags::IN)], None)?;
    Ok(())
}

fn remove_dir(dir: &Path) -> Result<(), CgroupError> {
    match std::fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed("remove", dir)(error)),
        _ => Ok(()),
    }
}

fn failed(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CgroupError {
    let path = path.to_owned();
    move |source| CgroupError::Io { attempt, path, source }
}

/// Chooses among the mounts: lines of device, mount point, type and options.
fn detect(mounts: &str, controllers: impl Fn(&Path) -> String) -> Option<Hierarchies> {
    let mounts: Vec<[&str; 4]> = mounts.lines().filter_map(fields).collect();
    let unified = mounts.iter().filter(|mount| mount[2] == "cgroup2").map(|mount| PathBuf::from(mount[1]));
    let complete = |mount: &PathBuf| {
        let available = controllers(mount);
        CONTROLLERS.iter().all(|wanted| available.split_whitespace().any(|have| have == *wanted))
    };
    if let Some(root) = unified.into_iter().find(complete) {
        return Some(Hierarchies::Unified(root));
    }
    let older = |controller: &str| {
        let carries = |mount: &&[&str; 4]| {
            mount[2] == "cgroup" && mount[3].split(',').any(|option| option == controller)
        };
        mounts.iter().find(carries).map(|mount| PathBuf::from(mount[1]))
    };
    let [memory, pids, cpu, cpuacct] = OLDER_CONTROLLERS.map(older);
    Some(Hierarchies::PerController([memory?, pids?, cpu?, cpuacct?]))
}

fn fields(line: &str) -> Option<[&str; 4]> {
    let mut words = line.split_whitespace();
    Some([words.next()?, words.next()?, words.next()?, words.next()?])
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLDER: &str = "cgroup /cg/memory cgroup rw,memory 0 0\ncgroup /cg/pids cgroup rw,pids 0 0\n\
                         cgroup /cg/cpu cgroup rw,cpu,cpuacct 0 0\ncgroup2 /cg/unified cgroup2 rw 0 0\n";
    const LIMITS: Limits = Limits {
        memory_bytes: 1 << 30,
        kept_bytes: 1 << 28,
        pids: 64,
        cpu_millis: Some(500),
        weight_millis: 250,
    };

    #[test]
    fn the_unified_hierarchy_is_preferred_if_it_has_the_controllers() {
        let unified = detect(OLDER, |_| "cpuset cpu io memory pids\n".to_owned());
        assert_eq!(unified, Some(Hierarchies::Unified("/cg/unified".into())));
        let older = detect(OLDER, |_| "cpuset\n".to_owned());
        let dirs = ["/cg/memory", "/cg/pids", "/cg/cpu", "/cg/cpu"].map(PathBuf::from);
        assert_eq!(older, Some(Hierarchies::PerController(dirs)));
        assert_eq!(detect("cgroup2 /cg cgroup2 rw 0 0\n", |_| String::new()), None);
    }

    #[test]
    fn both_kinds_get_the_same_limits() {
        let unified =
            Cgroups { hierarchies: Hierarchies::Unified("/cg".into()), parent: "rekindle-ab".into() };
        let settings = unified.settings(&unified.group("vm").unwrap(), &LIMITS);
        assert!(settings.contains(&("/cg/rekindle-ab/vm/cpu.max".into(), "50000 100000".into())));
        assert!(settings.contains(&("/cg/rekindle-ab/vm/memory.max".into(), "1073741824".into())));
        assert!(settings.contains(&("/cg/rekindle-ab/vm/memory.low".into(), "268435456".into())));
        assert!(settings.contains(&("/cg/rekindle-ab/vm/cpu.weight".into(), "25".into())));
        assert!(unified.own_settings(4).contains(&("/cg/rekindle-ab/cpu.weight".into(), "400".into())));
        let older =
            Cgroups { hierarchies: detect(OLDER, |_| String::new()).unwrap(), parent: "rekindle-ab".into() };
        let settings = older.settings(&older.group("vm").unwrap(), &LIMITS);
        assert!(settings.contains(&("/cg/cpu/rekindle-ab/vm/cpu.cfs_quota_us".into(), "50000".into())));
        assert!(settings.contains(&("/cg/cpu/rekindle-ab/vm/cpu.shares".into(), "256".into())));
        assert_eq!(older.own_settings(4), [("/cg/cpu/rekindle-ab/cpu.shares".into(), "4096".into())]);
        assert!(
            settings
                .contains(&("/cg/memory/rekindle-ab/vm/memory.limit_in_bytes".into(), "1073741824".into()))
        );
    }

    #[test]
    fn kills_are_counted_in_both_kinds() {
        assert!(counts_kills("low 0\nhigh 0\noom 3\noom_kill 1\noom_group_kill 0\n"));
        assert!(counts_kills("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n"));
        assert!(!counts_kills("oom_kill_disable 0\nunder_oom 1\noom_kill 0\n"));
    }

    #[test]
    fn weights_stay_within_what_the_kernel_takes() {
        assert_eq!([0, 1000, u64::MAX / 2048].map(weight), [1, 100, 10_000]);
        assert_eq!([0, 1000, u64::MAX / 2048].map(shares), [2, 1024, 262_144]);
    }

    #[test]
    fn names_cannot_leave_the_parent() {
        let groups = Cgroups { hierarchies: Hierarchies::Unified("/cg".into()), parent: "p".into() };
        for bad in ["", ".", "..", "a/b", "a b"] {
            assert!(groups.group(bad).is_err(), "{bad}");
        }
    }
}
