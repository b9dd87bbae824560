//! Starting Firecracker: booting, restoring, and finding it again.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode};
use serde_json::json;
use snapshot::chain::Chain;
use timeline::Step;
use tokio::net::UnixListener;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::api::Api;
use super::config::{self, API_SOCKET, CHANNEL_SOCKET};
use super::machine::FirecrackerMachine;
use super::socket::{self, Watch};
use super::{Firecracker, arch, paths};
use crate::Machine;
use crate::error::{CommandError, StartError};
use crate::jail::{JailFile, JailPlan};
use crate::memory::{self, open_chain};
use crate::process::{PID, Process};
use crate::spec::{MachineSpec, Restore};
use crate::vmm::{Record, Vmm, file_error};

/// The agent's port: the guest listens there, and tells the host so at the host's port of the same number.
pub(crate) const CHANNEL_PORT: u32 = 900;
const SOCKETS: &str = "sockets";
const ROOT: &str = "root";
const CONSOLE: &str = "console";
const STATE_IN: &str = "state.in";
/// In the place of a disk that comes later.
const EMPTY: &str = "empty";
/// How long Firecracker may take to listen.
const START_TIME: Duration = Duration::from_secs(30);
/// Most bytes of the console quoted in an error.
const QUOTED: usize = 2048;

/// What it is told by.
pub(crate) fn api(record: &Record) -> Api {
    Api { socket: record.path(SOCKETS).join(API_SOCKET) }
}

fn record(spec: MachineSpec, memory: PathBuf, booted: bool) -> Record {
    Record { spec, memory, booted, state_out: paths::STATE_OUT.to_owned() }
}

pub(crate) async fn boot(
    engine: &Firecracker,
    spec: MachineSpec,
    memory: PathBuf,
) -> Result<FirecrackerMachine, StartError> {
    let host = arch::supported().map_err(file_error(
        "asking KVM what it offers guests of the processor, by",
        Path::new(paths::KVM),
    ))?;
    let requests = config::requests(&spec, arch::template(&host))?;
    let size = u64::from(spec.memory_mib) << 20;
    let create = || File::options().write(true).create_new(true).open(&memory)?.set_len(size);
    create().map_err(file_error("creating the memory file", &memory))?;
    let mut files: Vec<_> = config::disk_files(&spec).collect();
    for (path, at) in [(&spec.kernel, paths::KERNEL), (&spec.initramfs, paths::INITRAMFS)] {
        files.push(JailFile { path: path.clone(), writable: false, at: Some(at.into()) });
    }
    let machine = launch(engine, record(spec, memory, true), files).await?;
    let api = machine.api();
    let configure = async {
        for (path, body) in &requests {
            api.put(path, body).await?;
        }
        api.put("/actions", &json!({"action_type": "InstanceStart"})).await
    };
    let booted = configure.await.map_err(|error| vmm_error(&machine.vmm.record.spec.run_dir, error));
    machine.vmm.unless_failed(booted).await?;
    Ok(machine)
}

pub(crate) async fn restore(
    engine: &Firecracker,
    spec: MachineSpec,
    from: Restore,
) -> Result<FirecrackerMachine, StartError> {
    match restore_once(engine, spec.clone(), &from).await {
        Err(error) if lacks_clock(&error) => {
            engine.clock_stops.store(true, Ordering::Relaxed);
            restore_once(engine, spec, &from).await
        }
        restored => restored,
    }
}

async fn restore_once(
    engine: &Firecracker,
    spec: MachineSpec,
    from: &Restore,
) -> Result<FirecrackerMachine, StartError> {
    // A damaged chain is found before anything is started.
    let layers = open_chain(from)?;
    let files = config::disk_files(&spec).collect();
    let machine = launch(engine, record(spec, from.base_memory.clone(), false), files).await?;
    timeline::reached(Step::Vmm);
    let loaded = load(engine, &machine, from, layers).await;
    machine.vmm.unless_failed(loaded).await?;
    Ok(machine)
}

/// Whether a snapshot was refused because this host could not note with it what clocks are moved on by.
fn lacks_clock(error: &StartError) -> bool {
    let StartError::Vmm { source, .. } = error else { return false };
    matches!(&**source, CommandError::Refused { reason, .. } if reason.contains("clock_realtime"))
}

/// Starts a Firecracker for machines over `memory` whose private disks come later.
pub(crate) async fn launch_empty(
    engine: &Firecracker,
    spec: MachineSpec,
    memory: &Path,
) -> Result<FirecrackerMachine, StartError> {
    let empty = spec.run_dir.join(EMPTY);
    let mut files: Vec<_> = config::disk_files(&spec).collect();
    for disk in files.iter_mut().filter(|file| file.writable) {
        *disk = JailFile { path: empty.clone(), writable: false, at: disk.at.take() };
    }
    launch(engine, record(spec, memory.to_owned(), false), files).await
}

/// Loads a machine into a Firecracker that has nothing yet, and lets it run.
pub(crate) async fn load(
    engine: &Firecracker,
    machine: &FirecrackerMachine,
    from: &Restore,
    layers: Option<Chain>,
) -> Result<(), StartError> {
    let record = &machine.vmm.record;
    let state = record.path(STATE_IN);
    // In place: it is the file that the VMM has.
    fs::read(&from.device_state)
        .and_then(|content| fs::write(&state, content))
        .map_err(file_error("copying", &from.device_state))?;
    let taps = record.spec.tap.iter().map(|tap| json!({"iface_id": config::NIC, "host_dev_name": tap}));
    let moves_on = from.stopped_at.is_some() && !engine.clock_stops.load(Ordering::Relaxed);
    let snapshot = json!({
        "snapshot_path": paths::STATE_IN,
        "mem_backend": {"backend_type": "File", "backend_path": paths::MEMORY},
        "network_overrides": taps.collect::<Vec<_>>(),
        "clock_realtime": moves_on,
        "resume_vm": layers.is_none(),
    });
    let failed = |error| vmm_error(&record.spec.run_dir, error);
    machine.api().put("/snapshot/load", &snapshot).await.map_err(failed)?;
    timeline::reached(Step::Load);
    if let Some(layers) = layers {
        memory::load_layers(machine.pid(), &record.memory, arch::MEMORY_BREAKS, layers).await?;
        timeline::reached(Step::Memory);
        machine.resume().await.map_err(failed)?;
    }
    timeline::reached(Step::Resume);
    Ok(())
}

async fn launch(
    engine: &Firecracker,
    record: Record,
    mut files: Vec<JailFile>,
) -> Result<FirecrackerMachine, StartError> {
    let spec = &record.spec;
    let (dir, sockets) = (spec.run_dir.clone(), record.path(SOCKETS));
    for path in [&dir, &sockets, &record.path(ROOT)] {
        fs::create_dir_all(path).map_err(file_error("creating", path))?;
    }
    for path in [record.path(STATE_IN), record.state_out(), record.path(EMPTY)] {
        File::create(&path).map_err(file_error("creating", &path))?;
    }
    let file = |path: PathBuf, writable, at: &str| JailFile { path, writable, at: Some(at.into()) };
    files.extend([
        file(engine.program.clone(), false, paths::PROGRAM),
        file(record.memory.clone(), record.booted, paths::MEMORY),
        file(record.path(STATE_IN), false, paths::STATE_IN),
        file(record.state_out(), true, paths::STATE_OUT),
        file(sockets.clone(), true, paths::SOCKETS),
    ]);
    let ready = if record.booted { Some(listen(&record)?) } else { None };
    record.begin()?;
    let watch = Watch::new(&sockets).map_err(file_error("watching", &sockets))?;
    let child = spawn(engine, spec, files)?;
    let process = Process::started(child).map_err(file_error("watching the VMM of", &dir))?;
    let machine = FirecrackerMachine { vmm: Vmm { record, process }, ready: Mutex::new(ready) };
    let api = sockets.join(API_SOCKET);
    let listens = tokio::select! {
        listens = timeout(START_TIME, watch.listening(&api)) => match listens {
            Ok(listens) => listens.map_err(CommandError::Connection),
            Err(_) => Err(CommandError::Timeout("listen".to_owned())),
        },
        _ = machine.wait_exit() => Err(CommandError::Connection(io::ErrorKind::ConnectionRefused.into())),
    };
    let listens = listens.map_err(|error| vmm_error(&dir, error));
    machine.vmm.unless_failed(listens).await?;
    Ok(machine)
}

/// Where the guest says that it listens.
fn listen(record: &Record) -> Result<UnixListener, StartError> {
    let path = record.path(SOCKETS).join(format!("{CHANNEL_SOCKET}_{CHANNEL_PORT}"));
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path).and_then(|listener| {
        chown(&path, Some(record.spec.jail.uid), Some(record.spec.jail.gid))?;
        Ok(listener)
    });
    listener.map_err(file_error("listening on", &path))
}

fn spawn(engine: &Firecracker, spec: &MachineSpec, files: Vec<JailFile>) -> Result<Child, StartError> {
    let dir = &spec.run_dir;
    let api = Path::new(paths::SOCKETS).join(API_SOCKET);
    let command = [paths::PROGRAM.as_ref(), "--api-sock".as_ref(), api.as_os_str()].map(Into::into);
    // Warnings are of every port that a kernel looks for a device at.
    let level = ["--level".into(), "Error".into()];
    let devices = [paths::KVM].into_iter().chain(spec.tap.is_some().then_some(paths::TUN));
    let plan = JailPlan {
        netns: spec.jail.netns.clone(),
        cgroups: spec.jail.cgroups.clone(),
        shared_root: None,
        pid_file: dir.join(PID),
        uid: spec.jail.uid,
        gid: spec.jail.gid,
        files,
        root: Some(dir.join(ROOT)),
        devices: devices.map(PathBuf::from).collect(),
        tap: spec.tap.clone(),
        command: command.into_iter().chain(level).collect(),
    };
    let (program, first) =
        engine.jailer.split_first().ok_or_else(|| StartError::Spec("no jailer is configured".into()))?;
    let console = dir.join(CONSOLE);
    let output = console_for_vmm(&console).map_err(file_error("creating", &console))?;
    let errors = output.try_clone().map_err(file_error("creating", &console))?;
    Command::new(program)
        .args(first)
        .args(plan.to_args())
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .map_err(file_error("running", Path::new(program)))
}

/// What the guest and the VMM print goes into a pipe that both ends of are the VMM's: the kernel bounds what is kept, and a
/// full one drops what comes instead of holding anybody back.
fn console_for_vmm(path: &Path) -> io::Result<File> {
    let _ = fs::remove_file(path);
    rustix::fs::mknodat(CWD, path, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
    File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path)
}

/// What has been printed since this was last asked.
pub(crate) fn console(dir: &Path) -> io::Result<String> {
    let mut pipe = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(dir.join(CONSOLE))?;
    let mut text = Vec::new();
    match pipe.read_to_end(&mut text) {
        Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
        _ => Ok(String::from_utf8_lossy(&text).into_owned()),
    }
}

pub(crate) fn vmm_error(dir: &Path, source: CommandError) -> StartError {
    let text = console(dir).unwrap_or_default();
    let tail = text.char_indices().rev().nth(QUOTED).map_or(0, |(at, _)| at);
    StartError::Vmm { source: Box::new(source), log: text[tail..].trim().to_owned() }
}

pub(crate) fn adopt(dir: &Path) -> Result<Option<FirecrackerMachine>, StartError> {
    Ok(Vmm::adopt(dir)?.map(|vmm| FirecrackerMachine { vmm, ready: Mutex::new(None) }))
}

/// A connection to the guest's agent.
pub(crate) async fn channel(record: &Record) -> io::Result<tokio::net::UnixStream> {
    socket::connect_to_guest(&record.path(SOCKETS).join(CHANNEL_SOCKET), CHANNEL_PORT).await
}
