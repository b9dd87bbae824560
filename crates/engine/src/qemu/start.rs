//! Starting QEMU: booting, restoring, and finding it again.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use serde_json::{Value, json};
use timeline::Step;
use tokio::process::{Child, Command};

use super::arch::{self, clock};
use super::command::{self, CommandLine, Start};
use super::machine::QemuMachine;
use super::qmp::Qmp;
use super::{MEMORY_BREAKS, Qemu};
use crate::Machine;
use crate::error::{CommandError, StartError};
use crate::jail::JailPlan;
use crate::memory::{load_layers, open_chain};
use crate::process::{PID, Process};
use crate::spec::{MachineSpec, Restore};
use crate::vmm::{Record, Vmm, file_error, state_out};

const QMP: &str = "qmp.sock";
pub(crate) const CHANNEL: &str = "channel.sock";
pub(crate) const LOG: &str = "vmm.log";
const STATE_IN: &str = "state.in";
const KERNEL_HEAD: &str = "kernel.head";
/// Setup code and header of a bzImage, with room to spare.
const KERNEL_HEAD_BYTES: u64 = 64 << 10;
/// Most bytes of the VMM's log quoted in an error.
const LOG_TAIL: u64 = 2048;

pub(crate) async fn boot(qemu: &Qemu, spec: MachineSpec, memory: PathBuf) -> Result<QemuMachine, StartError> {
    let size = u64::from(arch::memory_mib(&spec)) << 20;
    let create = || File::options().write(true).create_new(true).open(&memory)?.set_len(size);
    create().map_err(file_error("creating the memory file", &memory))?;
    launch(qemu, spec, memory, Start::Boot).await.map(|(machine, _)| machine)
}

pub(crate) async fn restore(
    qemu: &Qemu,
    spec: MachineSpec,
    from: Restore,
) -> Result<QemuMachine, StartError> {
    // A damaged chain is found before anything is started.
    let layers = open_chain(&from)?;
    let device_state = moved_on(qemu, &spec.run_dir, &from)?;
    let start = Start::Incoming { device_state: &device_state, diff: layers.is_some() };
    let (machine, state_in) = launch(qemu, spec, from.base_memory, start).await?;
    timeline::reached(Step::Vmm);
    if let Some(layers) = layers {
        let loaded = load_layers(machine.pid(), &machine.vmm.record.memory, MEMORY_BREAKS, layers).await;
        machine.vmm.unless_failed(loaded.map_err(StartError::from)).await?;
        timeline::reached(Step::Memory);
    }
    let loaded = load_state(&machine.qmp, &state_in.unwrap_or_default()).await;
    let loaded = loaded.map_err(|error| vmm_error(&machine.vmm.record.spec.run_dir, error));
    machine.vmm.unless_failed(loaded).await?;
    Ok(machine)
}

/// The device state to load: where the machine's clocks are to go on, a copy in which they have. The time that loading
/// takes is not in it: some milliseconds, by which the guest is late.
pub(crate) fn moved_on(qemu: &Qemu, run_dir: &Path, from: &Restore) -> Result<PathBuf, StartError> {
    let Some(stopped_at) = from.stopped_at else {
        return Ok(from.device_state.clone());
    };
    // A wall clock that was set back meanwhile is no reason to stand still for ever.
    let away = SystemTime::now().duration_since(stopped_at).unwrap_or_default();
    let mut state = fs::read(&from.device_state).map_err(file_error("reading", &from.device_state))?;
    clock::advance(&mut state, away, qemu.compatibility.accelerator)
        .ok_or_else(|| StartError::Spec("the device state has no clock that is known here".to_owned()))?;
    fs::create_dir_all(run_dir).map_err(file_error("creating", run_dir))?;
    let path = run_dir.join(STATE_IN);
    fs::write(&path, state).map_err(file_error("writing", &path))?;
    Ok(path)
}

pub(crate) async fn load_state(qmp: &Qmp, state: &str) -> Result<(), CommandError> {
    set_capabilities(qmp).await?;
    qmp.execute("migrate-incoming", json!({"uri": format!("file:{state}")})).await?;
    migrated(qmp).await?;
    timeline::reached(Step::Load);
    let status = qmp.execute("query-status", json!({})).await?;
    if status["running"] != Value::Bool(true) {
        qmp.execute("cont", json!({})).await?;
    }
    timeline::reached(Step::Resume);
    Ok(())
}

/// Memory stays out of the device state, and progress comes as events.
pub(crate) async fn set_capabilities(qmp: &Qmp) -> Result<(), CommandError> {
    let on = |name: &str| json!({"capability": name, "state": true});
    let capabilities = json!({"capabilities": [on("x-ignore-shared"), on("events")]});
    qmp.execute("migrate-set-capabilities", capabilities).await.map(drop)
}

/// Waits until a migration, in or out, has succeeded or failed.
pub(crate) async fn migrated(qmp: &Qmp) -> Result<(), CommandError> {
    let ended = qmp.event("the end of a migration", |event| match event.data["status"].as_str() {
        Some(status @ ("completed" | "failed")) if event.name == "MIGRATION" => Some(status == "completed"),
        _ => None,
    });
    if ended.await? {
        return Ok(());
    }
    let info = qmp.execute("query-migrate", json!({})).await?;
    let reason = info["error-desc"].as_str().unwrap_or("no reason given").to_owned();
    Err(CommandError::Refused { command: "migrate".into(), reason })
}

pub(crate) async fn launch(
    qemu: &Qemu,
    spec: MachineSpec,
    memory: PathBuf,
    start: Start<'_>,
) -> Result<(QemuMachine, Option<String>), StartError> {
    let dir = spec.run_dir.clone();
    fs::create_dir_all(&dir).map_err(file_error("creating", &dir))?;
    let state_out = state_out(&dir);
    File::create(&state_out).map_err(file_error("creating", &state_out))?;
    let booted = matches!(start, Start::Boot);
    let kernel = if booted { spec.kernel.clone() } else { kernel_head(&spec)? };
    let line = command::build(&spec, &qemu.compatibility, &kernel, &memory, &state_out, start)?;
    let (state_in, record) =
        (line.state_in.clone(), Record { spec, memory, booted, state_out: line.state_out.clone() });
    record.begin()?;
    let child = spawn(qemu, &record.spec, line)?;
    let process = Process::started(child).map_err(file_error("watching the VMM of", &dir))?;
    let vmm = Vmm { record, process };
    let qmp = Qmp::connect(&dir.join(QMP)).await.map_err(|error| vmm_error(&dir, error));
    let qmp = vmm.unless_failed(qmp).await?;
    let kept = qmp.keep_going(vmm.process.pid()).await.map_err(|error| vmm_error(&dir, error));
    vmm.unless_failed(kept).await?;
    Ok((QemuMachine { vmm, qmp }, state_in))
}

/// A machine that is restored has its kernel in its memory. QEMU wants to see one all the same, but only as much as it
/// looks at: the whole would cost every clone the time to read it and the memory to keep it.
fn kernel_head(spec: &MachineSpec) -> Result<PathBuf, StartError> {
    let (from, to) = (&spec.kernel, spec.run_dir.join(KERNEL_HEAD));
    let mut head = Vec::new();
    File::open(from)
        .and_then(|file| file.take(KERNEL_HEAD_BYTES).read_to_end(&mut head))
        .map_err(file_error("reading", from))?;
    fs::write(&to, head).map_err(file_error("writing", &to))?;
    Ok(to)
}

/// The sockets listen before QEMU runs, so nobody has to wait for them; they travel as its standard input and output.
fn spawn(qemu: &Qemu, spec: &MachineSpec, line: CommandLine) -> Result<Child, StartError> {
    let dir = &spec.run_dir;
    let log = dir.join(LOG);
    let mut command = vec![qemu.program.clone().into_os_string()];
    command.extend(line.args);
    let plan = JailPlan {
        netns: spec.jail.netns.clone(),
        cgroups: spec.jail.cgroups.clone(),
        shared_root: None,
        pid_file: dir.join(PID),
        uid: spec.jail.uid,
        gid: spec.jail.gid,
        files: line.files,
        root: None,
        devices: vec![],
        tap: spec.tap.clone(),
        command,
    };
    let (program, first) =
        qemu.jailer.split_first().ok_or_else(|| StartError::Spec("no jailer is configured".into()))?;
    Command::new(program)
        .args(first)
        .args(plan.to_args())
        .stdin(listen(&dir.join(QMP))?)
        .stdout(listen(&dir.join(CHANNEL))?)
        .stderr(File::create(&log).map_err(file_error("creating", &log))?)
        .spawn()
        .map_err(file_error("running", Path::new(program)))
}

fn listen(path: &Path) -> Result<Stdio, StartError> {
    let _ = fs::remove_file(path);
    let listener = UnixListener::bind(path).map_err(file_error("listening on", path))?;
    Ok(OwnedFd::from(listener).into())
}

pub(crate) fn vmm_error(dir: &Path, source: CommandError) -> StartError {
    StartError::Vmm { source: Box::new(source), log: log_tail(&dir.join(LOG)).unwrap_or_default() }
}

/// What the VMM said last.
pub(crate) fn log_tail(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL)))?;
    let mut tail = Vec::new();
    file.take(LOG_TAIL).read_to_end(&mut tail)?;
    Ok(String::from_utf8_lossy(&tail).trim().to_owned())
}

/// The control connection of a machine that runs, or has stopped for want of room while nobody heard.
async fn find(path: &Path, pid: i32) -> Result<Qmp, CommandError> {
    let qmp = Qmp::connect(path).await?;
    qmp.keep_going(pid).await?;
    if qmp.execute("query-status", json!({})).await?["status"] == "io-error" {
        qmp.execute("cont", json!({})).await?;
    }
    Ok(qmp)
}

pub(crate) async fn adopt(dir: &Path) -> Result<Option<QemuMachine>, StartError> {
    let Some(vmm) = Vmm::adopt(dir)? else { return Ok(None) };
    let qmp = find(&dir.join(QMP), vmm.process.pid()).await.map_err(|error| vmm_error(dir, error))?;
    Ok(Some(QemuMachine { vmm, qmp }))
}
