//! `rekindle doctor`: what this machine has, what is missing, and how to mend it.

mod virtualization;

use std::fmt;
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::Command;

use engine::accelerator::Accelerator;
use engine::kvm;
use network::InstanceTag;
use network::cgroup::Cgroups;
use platform::Assets;

use crate::agent;
use crate::cli;
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::engines::{self, Chosen, EngineError, QEMU};
use crate::listen::ENDPOINT_DEFAULTS;
use crate::server_file::ServerFile;

/// What snapshots are tested with; another series may not read them.
const QEMU_SERIES: &str = "version 10.0.";
/// A name as the endpoints have them.
const SOME_HOST: &str = "any.lambda-microvm.us-east-1.localhost";
const SET_UP: &str = "run scripts/setup (or `make setup`)";
/// Below, hardly an image can be built.
const LEAST_SPACE: u64 = 2 << 30;
/// Below, it will soon be too little.
const FAIR_SPACE: u64 = 10 << 30;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Good,
    /// It works, but not as well as it could.
    Fair,
    /// It does not work.
    Missing,
}

#[derive(Debug)]
struct Finding {
    subject: &'static str,
    verdict: Verdict,
    found: String,
    /// What to do; empty where nothing need be done.
    mend: String,
}

impl Finding {
    fn good(subject: &'static str, found: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Good, found: found.into(), mend: String::new() }
    }

    fn fair(subject: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Fair, found: found.into(), mend: mend.into() }
    }

    fn missing(subject: &'static str, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { subject, verdict: Verdict::Missing, found: found.into(), mend: mend.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.verdict {
            Verdict::Good => "ok",
            Verdict::Fair => "fair",
            Verdict::Missing => "MISSING",
        };
        write!(f, "{word:<8} {:<16} {}", self.subject, self.found)?;
        if self.mend.is_empty() { Ok(()) } else { write!(f, "\n{:26}-> {}", "", self.mend) }
    }
}

/// Prints what was found; whether a server can work here.
pub(crate) async fn run(args: &cli::Doctor) -> bool {
    let mut well = true;
    for finding in findings(args).await {
        println!("{finding}");
        well &= finding.verdict != Verdict::Missing;
    }
    well
}

async fn findings(args: &cli::Doctor) -> Vec<Finding> {
    let assets = Assets::from_env();
    let data = &args.data.data_dir;
    let qemu = version_of(QEMU);
    let mut findings = vec![privileges(), qemu_version(qemu.as_deref())];
    if qemu.is_some() {
        findings.extend(machines(args).await);
    }
    if let Some(server) = server(data) {
        let Chosen { engine, accelerator, because, .. } = server.machines_by;
        findings
            .push(Finding::good("server", format!("runs on {engine} with {accelerator}, because {because}")));
    }
    findings.push(tool("ip", &["-Version"], "iproute2"));
    findings.push(tool("nft", &["--version"], "nftables"));
    findings.push(rules());
    findings.push(tool("qemu-img", &["--version"], "qemu-utils"));
    findings.push(cgroups());
    findings.push(kernel(&assets));
    findings.push(asset("build tools", &assets.tools()));
    findings.push(asset("base images", &assets.bases()));
    findings.push(set_up(&assets));
    findings.push(guest_agent(&assets));
    findings.push(names());
    findings.extend(ports(&args.addresses, server(data).as_ref()));
    findings.push(space(data));
    findings
}

fn privileges() -> Finding {
    if rustix::process::geteuid().is_root() {
        Finding::good("privileges", "root")
    } else {
        let mend = "start the server as root: VMMs get users, namespaces and cgroups of their own";
        Finding::missing("privileges", "not root", mend)
    }
}

/// The first line a program prints about itself; `None` where it does not run.
fn version_of(program: &str) -> Option<String> {
    first_line(program, &["--version"])
}

fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    output.status.success().then(|| text.lines().next().unwrap_or_default().to_owned())
}

fn qemu_version(found: Option<&str>) -> Finding {
    match found {
        None => Finding::missing("QEMU", format!("{QEMU} does not run"), SET_UP),
        Some(version) if version.contains(QEMU_SERIES) => Finding::good("QEMU", version),
        Some(version) => {
            Finding::fair("QEMU", version, format!("tested is {QEMU_SERIES}x; {SET_UP} for that one"))
        }
    }
}

/// What executes guests as the settings have it, and whether it has the processor that every snapshot is made for.
async fn machines(args: &cli::Doctor) -> Vec<Finding> {
    let mut config = match Config::load(args.config.as_deref(), &[]) {
        Ok(config) => config,
        Err(error) => return vec![Finding::missing("settings", error.to_string(), "mend them")],
    };
    config.prefer(&args.machines);
    let found =
        engines::open(config.engine, config.accelerator, PathBuf::new()).await.map(|(_, chosen)| chosen);
    let mut findings = judge_machines(found);
    if findings.iter().any(|finding| finding.subject == "accelerator" && finding.verdict == Verdict::Good) {
        findings.push(virtualization::creation(&virtualization::Kernel::read()));
    }
    findings
}

fn judge_machines(found: Result<Chosen, EngineError>) -> Vec<Finding> {
    match found {
        Ok(Chosen { engine, accelerator, because, cpu }) => {
            let accelerator = judge_accelerator(accelerator, &because);
            vec![Finding::good("engine", engine), accelerator, Finding::good("guest CPU", cpu)]
        }
        Err(EngineError::Qemu(error)) => {
            let mend = "use a host whose processor has it (Intel since Haswell, AMD since Zen)";
            vec![Finding::missing("guest CPU", error.to_string(), mend)]
        }
        Err(error) => {
            vec![Finding::missing("accelerator", error.to_string(), "change the settings, or the host")]
        }
    }
}

fn judge_accelerator(found: Accelerator, because: &str) -> Finding {
    let found_because = format!("{found}, because {because}");
    match found {
        Accelerator::Kvm => Finding::good("accelerator", found_because),
        Accelerator::Tcg => {
            let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
            let mend = match kvm::find(&cpuinfo).advice() {
                "" => "the settings have it so; everything works, several times slower".to_owned(),
                advice => format!("everything works, several times slower; for KVM {advice}"),
            };
            Finding::fair("accelerator", found_because, mend)
        }
    }
}

fn tool(program: &'static str, arguments: &[&str], package: &str) -> Finding {
    match first_line(program, arguments) {
        Some(version) => Finding::good(program, version),
        None => Finding::missing(program, "does not run", format!("install {package}, or {SET_UP}")),
    }
}

/// Whether MicroVMs can be kept from what they are not to reach, by address and by name.
fn rules() -> Finding {
    match network::check_rules() {
        Ok(()) => Finding::good("nf_tables", "egress rules can be applied, by domain name too"),
        Err(error) => Finding::missing("nf_tables", "does not take the rules of MicroVMs", error.to_string()),
    }
}

/// Opening makes a group, so it is done under a name that no server has, and undone.
fn cgroups() -> Finding {
    let tag: InstanceTag = InstanceTag::of_data_dir(Path::new("doctor"));
    match Cgroups::open(&tag).and_then(|groups| groups.close()) {
        Ok(()) => Finding::good("cgroups", "memory, pids and cpu can be limited"),
        Err(error) => Finding::missing("cgroups", "cannot be used", error.to_string()),
    }
}

fn kernel(assets: &Assets) -> Finding {
    let release = std::fs::read_to_string(assets.dir.join("kernel/release"));
    if assets.kernel().is_file() {
        let release = release.unwrap_or_default();
        Finding::good("guest kernel", format!("{} ({})", release.trim(), assets.kernel().display()))
    } else {
        absent("guest kernel", &assets.kernel())
    }
}

fn absent(subject: &'static str, path: &Path) -> Finding {
    let mend = format!("{SET_UP}; if it is elsewhere, set {}", platform::ASSETS_VARIABLE);
    Finding::missing(subject, format!("{} is not there", path.display()), mend)
}

fn asset(subject: &'static str, path: &Path) -> Finding {
    match path.metadata() {
        Ok(file) => Finding::good(subject, format!("{} ({} MiB)", path.display(), file.len() >> 20)),
        Err(_) => absent(subject, path),
    }
}

fn set_up(assets: &Assets) -> Finding {
    match assets.missing().first() {
        None => Finding::good("set-up", "complete"),
        Some(path) => absent("set-up", path),
    }
}

fn guest_agent(assets: &Assets) -> Finding {
    match agent::find(assets) {
        Some(path) => Finding::good("guest agent", path.display().to_string()),
        None => Finding::missing("guest agent", "not found", "run `make build`, or set REKINDLE_AGENT"),
    }
}

fn names() -> Finding {
    let loopback = |address: SocketAddr| address.ip().is_loopback();
    match (SOME_HOST, 0).to_socket_addrs().map(|mut addresses| addresses.any(loopback)) {
        Ok(true) => Finding::good("host names", "*.localhost is this host"),
        _ => Finding::fair(
            "host names",
            "*.localhost does not resolve to this host",
            format!("curl and browsers know better, other programs need libnss-myhostname: {SET_UP}"),
        ),
    }
}

/// The server that runs on the data directory, if there is one to be seen.
fn server(data: &Path) -> Option<ServerFile> {
    ServerFile::read(&DataDir::find(data).ok()?).ok()?
}

fn ports(addresses: &cli::Addresses, server: Option<&ServerFile>) -> [Finding; 2] {
    let api = port("API port", &[addresses.listen], "--listen", server.map(|server| server.listen));
    let endpoints = addresses.endpoint_listen.map_or(ENDPOINT_DEFAULTS.to_vec(), |address| vec![address]);
    let of_server = server.map(|server| server.endpoint_listen);
    [api, port("endpoint port", &endpoints, "--endpoint-listen", of_server)]
}

/// The first of the addresses that is free; the server's own counts as such.
fn port(subject: &'static str, wanted: &[SocketAddr], option: &str, server: Option<SocketAddr>) -> Finding {
    let mut troubles = Vec::new();
    for address in wanted {
        match TcpListener::bind(address) {
            Ok(_) => return Finding::good(subject, format!("{address} is free")),
            Err(_) if server == Some(*address) => {
                return Finding::good(subject, format!("{address} is used by this data directory's server"));
            }
            Err(error) => troubles.push(format!("{address}: {error}")),
        }
    }
    Finding::missing(
        subject,
        troubles.join("; "),
        format!("stop what uses it, or choose another with {option}"),
    )
}

fn space(data: &Path) -> Finding {
    let there = data.ancestors().find(|dir| dir.exists()).map_or_else(|| PathBuf::from("/"), Path::to_owned);
    let free = match rustix::fs::statvfs(&there) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => {
            return Finding::missing("disk", format!("{}: {error}", there.display()), "check --data-dir");
        }
    };
    judge_space(&there, free)
}

fn judge_space(dir: &Path, free: u64) -> Finding {
    let found = format!("{:.1} GiB free for {}", free as f64 / f64::from(1 << 30), dir.display());
    let mend = "images and suspended MicroVMs take their memory's size each: make room, or choose another --data-dir";
    match free {
        ..LEAST_SPACE => Finding::missing("disk", found, mend),
        LEAST_SPACE..FAIR_SPACE => Finding::fair("disk", found, mend),
        FAIR_SPACE.. => Finding::good("disk", found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_missing_unless_the_server_has_it() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let others = port("x", &[address], "--listen", None);
        assert_eq!(others.verdict, Verdict::Missing);
        assert!(others.to_string().contains("--listen"), "{others}");
        assert_eq!(port("x", &[address], "--listen", Some(address)).verdict, Verdict::Good);
        assert_eq!(port("x", &[address, "127.0.0.1:0".parse().unwrap()], "", None).verdict, Verdict::Good);
    }

    #[test]
    fn what_set_up_has_not_made_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let assets = Assets { dir: dir.path().to_owned() };
        for finding in [kernel(&assets), asset("x", &assets.tools()), set_up(&assets)] {
            assert_eq!(finding.verdict, Verdict::Missing);
            assert!(finding.to_string().contains("scripts/setup"), "{finding}");
        }
    }

    #[test]
    fn a_host_without_the_guests_cpu_is_told_so() {
        let error =
            engine::qemu::ProbeError::Machine { cpu: "x86-64-v3".into(), complaint: "no avx2".into() };
        let [finding] = &judge_machines(Err(error.into()))[..] else { panic!("one finding") };
        assert_eq!(finding.verdict, Verdict::Missing);
        let text = finding.to_string();
        assert!(["x86-64-v3", "no avx2", "Haswell"].iter().all(|word| text.contains(word)), "{text}");
    }

    #[test]
    fn what_is_chosen_and_why_is_told() {
        let kvm = judge_accelerator(Accelerator::Kvm, "KVM runs guests");
        assert_eq!(kvm.verdict, Verdict::Good);
        assert!(kvm.to_string().contains("because KVM runs guests"), "{kvm}");
        let emulated = judge_accelerator(Accelerator::Tcg, "KVM is not there");
        assert_eq!(emulated.verdict, Verdict::Fair);
        let text = emulated.to_string();
        assert!(text.contains("because KVM is not there") && text.contains("slower"), "{text}");
    }

    #[test]
    fn versions_and_space_are_judged() {
        assert_eq!(qemu_version(None).verdict, Verdict::Missing);
        assert_eq!(qemu_version(Some("QEMU emulator version 10.0.2 (Debian)")).verdict, Verdict::Good);
        assert_eq!(qemu_version(Some("QEMU emulator version 7.2.1")).verdict, Verdict::Fair);
        let space = |free| judge_space(Path::new("/"), free).verdict;
        let verdicts = [space(0), space(LEAST_SPACE), space(FAIR_SPACE)];
        assert_eq!(verdicts, [Verdict::Missing, Verdict::Fair, Verdict::Good]);
    }

    #[test]
    fn a_program_that_is_not_there_is_missing() {
        assert_eq!(tool("no-such-program", &[], "nothing").verdict, Verdict::Missing);
        assert_eq!(tool("true", &[], "coreutils").verdict, Verdict::Good);
    }
}
