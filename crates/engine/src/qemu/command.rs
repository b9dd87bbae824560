//! QEMU's command line. From a specification to arguments and the files to inherit.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::arch::{self, MACHINE, cpu, memory_mib};
use crate::accelerator::Accelerator;
use crate::error::StartError;
use crate::jail::{FIRST_FD, JailFile};
use crate::spec::{Disk, Layer, LayerFormat, MachineSpec};
use crate::vmm::file_error;
use crate::{Compatibility, GUEST_MAC};

/// Of the NIC. A clone has a link of its own to its host, which need not be told of a move; a guest that tells it all the
/// same does so before its agent listens.
const NIC_OPTIONS: &str = "guest_announce=off";
/// Most disks of a machine: NIC and channel are devices too.
const MAX_DISKS: usize = arch::DEVICES - 2;
/// virtio's limit.
const MAX_SERIAL: usize = 20;
const MAX_NAME: usize = 128;
const KVM: &str = "/dev/kvm";
/// Of the guest's memory in the VMM's: where the host has its file in large pages, the processor's tables can too.
const MEMORY_ALIGNMENT: &str = "2M";
/// Bytes of serial output kept.
pub(crate) const CONSOLE_BYTES: u32 = 64 << 10;

/// What snapshots say of the machine: its type, and the options of devices that a saved state is bound to.
pub(crate) fn machine_and_devices() -> String {
    format!("{MACHINE}; virtio-net {NIC_OPTIONS}")
}

/// How the machine comes by its state.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Start<'a> {
    /// By booting; the memory file is shared.
    Boot,
    /// From a device state; the memory file is only read.
    Incoming {
        /// File with the device state.
        device_state: &'a Path,
        /// Whether it comes from a diff save.
        diff: bool,
    },
    /// Not yet: its state, of a diff save, and its disks' highest layers come later (see `parked`).
    Parked,
}

/// What to run.
#[derive(Debug)]
pub(crate) struct CommandLine {
    pub(crate) args: Vec<OsString>,
    pub(crate) files: Vec<JailFile>,
    /// Where the VMM finds the file that it may write its device state to.
    pub(crate) state_out: String,
    /// Where the VMM finds the device state to load.
    pub(crate) state_in: Option<String>,
}

#[derive(Default)]
struct Files(Vec<JailFile>);

impl Files {
    /// The path by which the VMM opens `path`.
    fn inherit(&mut self, path: &Path, writable: bool) -> String {
        self.0.push(JailFile { path: path.to_owned(), writable, at: None });
        format!("/proc/self/fd/{}", self.last())
    }

    /// The descriptor of what was inherited last.
    fn last(&self) -> usize {
        FIRST_FD as usize + self.0.len() - 1
    }
}

/// Builds the command line. `kernel` is the machine's own, or enough of one to look at. Its standard input must be QMP's listening socket, its standard output the channel's.
pub(crate) fn build(
    spec: &MachineSpec,
    compatibility: &Compatibility,
    kernel: &Path,
    memory: &Path,
    state_out: &Path,
    start: Start<'_>,
) -> Result<CommandLine, StartError> {
    check(spec)?;
    let mut files = Files::default();
    let state_out = files.inherit(state_out, true);
    let mut args = common(spec, compatibility);
    args.extend(accelerator_args(compatibility.accelerator, &mut files));
    args.extend(memory_args(spec, memory, start, &mut files));
    args.extend(kernel_args(spec, compatibility.accelerator, kernel, &mut files));
    if matches!(start, Start::Boot) {
        args.extend(["-initrd".to_owned(), files.inherit(&spec.initramfs, false)]);
    }
    for disk in &spec.disks {
        args.extend(match start {
            Start::Parked if !disk.read_only => stand_in_args(disk, &mut files)?,
            _ => disk_args(disk, &mut files),
        });
    }
    args.extend(device_args());
    let state_in = match start {
        Start::Incoming { device_state, .. } => Some(files.inherit(device_state, false)),
        Start::Boot | Start::Parked => None,
    };
    args.extend(incoming_args(start));
    if spec.tap.is_some() {
        args.extend(nic_args(FIRST_FD as usize + files.0.len()));
    }
    let args = args.into_iter().map(OsString::from).collect();
    Ok(CommandLine { args, files: files.0, state_out, state_in })
}

fn is_word(text: &str, most: usize) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_' || byte == b'.';
    (1..=most).contains(&text.len()) && text.bytes().all(legal)
}

fn check(spec: &MachineSpec) -> Result<(), StartError> {
    let wrong = |what: String| Err(StartError::Spec(what));
    if spec.memory_mib == 0 || spec.vcpus == 0 {
        return wrong("memory and vCPUs must not be zero".into());
    }
    if !is_word(&spec.name, MAX_NAME) {
        return wrong(format!("'{}' is not a name", spec.name));
    }
    if let Some(tap) = spec.tap.as_ref().filter(|tap| !is_word(tap, 15)) {
        return wrong(format!("'{tap}' is not a network interface"));
    }
    if spec.disks.len() > MAX_DISKS {
        return wrong(format!("{} disks are more than {MAX_DISKS}", spec.disks.len()));
    }
    for disk in &spec.disks {
        if !is_word(&disk.serial, MAX_SERIAL) || disk.layers.is_empty() {
            return wrong(format!("disk '{}' needs a layer and a plain serial", disk.serial));
        }
    }
    Ok(())
}

/// KVM comes as an open descriptor, because the VMM's user has no right to open it.
fn accelerator_args(accelerator: Accelerator, files: &mut Files) -> Vec<String> {
    match accelerator {
        Accelerator::Tcg => vec!["-accel".into(), "tcg,thread=multi".into()],
        Accelerator::Kvm => {
            files.inherit(Path::new(KVM), true);
            let descriptor = format!("fd={},set=1", files.last());
            let accelerator = format!("{},device=/dev/fdset/1", arch::KVM_OPTIONS);
            vec!["-add-fd".into(), descriptor, "-accel".into(), accelerator]
        }
    }
}

fn common(spec: &MachineSpec, compatibility: &Compatibility) -> Vec<String> {
    let machine = format!("{MACHINE},memory-backend=mem");
    let cpu = cpu::argument(&compatibility.cpu);
    let name = format!("{},process={}", spec.name, "rekindle-vm");
    let smp = spec.vcpus.to_string();
    [
        "-name",
        &name,
        "-M",
        &machine,
        "-cpu",
        &cpu,
        "-smp",
        &smp,
        "-global",
        "virtio-mmio.force-legacy=false",
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    ]
    .map(String::from)
    .to_vec()
}

fn memory_args(spec: &MachineSpec, memory: &Path, start: Start<'_>, files: &mut Files) -> [String; 4] {
    let size = format!("{}M", memory_mib(spec));
    let path = files.inherit(memory, matches!(start, Start::Boot));
    let sharing = match start {
        Start::Boot => "share=on",
        // `rom=off`: the file is opened for reading only, the private mapping of it can be written.
        Start::Incoming { .. } | Start::Parked => "share=off,reserve=off,readonly=on,rom=off",
    };
    let backend =
        format!("memory-backend-file,id=mem,size={size},align={MEMORY_ALIGNMENT},mem-path={path},{sharing}");
    ["-m".into(), size, "-object".into(), backend]
}

fn kernel_args(
    spec: &MachineSpec,
    accelerator: Accelerator,
    kernel: &Path,
    files: &mut Files,
) -> [String; 4] {
    let kernel = files.inherit(kernel, false);
    let line = format!("{} {}", arch::kernel_command_line(accelerator), spec.cmdline);
    ["-kernel".into(), kernel, "-append".into(), line.trim_end().into()]
}

fn incoming_args(start: Start<'_>) -> Vec<String> {
    let mut args = vec![];
    if !matches!(start, Start::Boot) {
        args.extend(["-incoming", "defer"]);
    }
    if matches!(start, Start::Parked | Start::Incoming { diff: true, .. }) {
        // xen-save-devices-state does not write the configuration section that is otherwise demanded.
        args.extend(["-global", "migration.send-configuration=off"]);
    }
    args.into_iter().map(String::from).collect()
}

fn disk_args(disk: &Disk, files: &mut Files) -> Vec<String> {
    let mut node = layers_node(&disk.layers, !disk.read_only, files);
    node["node-name"] = json!(node_name(disk));
    vec!["-blockdev".into(), node.to_string(), "-device".into(), device(disk, &node_name(disk))]
}

/// The disk's lower layers, and in place of the disk one of its size that holds nothing.
fn stand_in_args(disk: &Disk, files: &mut Files) -> Result<Vec<String>, StartError> {
    let Some((lowest, lower)) = disk.layers.split_last().and_then(|(_, lower)| Some((lower.first()?, lower)))
    else {
        return Err(StartError::Spec(format!("disk '{}' has nothing below its private layer", disk.serial)));
    };
    let size = fs::metadata(&lowest.path).map_err(file_error("measuring", &lowest.path))?.len();
    let mut below = layers_node(lower, false, files);
    below["node-name"] = json!(below_name(disk));
    let stand_in = format!("stand-in-{}", disk.serial);
    let empty = json!({"driver": "null-co", "size": size, "node-name": stand_in});
    let nodes = ["-blockdev".into(), below.to_string(), "-blockdev".into(), empty.to_string()];
    Ok([&nodes[..], &["-device".into(), device(disk, &stand_in)]].concat())
}

/// The disk itself over the lower layers that [`Start::Parked`] has opened; `path` is its highest layer.
pub(crate) fn top_node(disk: &Disk, path: &str) -> Value {
    let format = disk.layers.last().map_or(LayerFormat::Qcow2, |layer| layer.format);
    let mut node = layer_node(format, path, true, &json!(below_name(disk)));
    node["node-name"] = json!(node_name(disk));
    node
}

/// Each layer over the one below it; `writable`: whether the highest is.
fn layers_node(layers: &[Layer], writable: bool, files: &mut Files) -> Value {
    (1..).zip(layers).fold(Value::Null, |below, (count, layer)| {
        let writable = writable && count == layers.len();
        let path = files.inherit(&layer.path, writable);
        layer_node(layer.format, &path, writable, &below)
    })
}

fn layer_node(format: LayerFormat, path: &str, writable: bool, below: &Value) -> Value {
    // Lower layers are immutable and shared by many machines: locks would only be in the way.
    let locking = if writable { "auto" } else { "off" };
    let file = json!({"driver": "file", "filename": path, "locking": locking, "read-only": !writable});
    let mut node = match format {
        LayerFormat::Raw => json!({"driver": "raw", "file": file, "read-only": !writable}),
        LayerFormat::Qcow2 => {
            json!({"driver": "qcow2", "file": file, "read-only": !writable, "backing": below})
        }
    };
    node["discard"] = json!(if writable { "unmap" } else { "ignore" });
    node
}

/// By which the VMM knows the disk.
pub(crate) fn node_name(disk: &Disk) -> String {
    format!("disk-{}", disk.serial)
}

fn below_name(disk: &Disk) -> String {
    format!("below-{}", disk.serial)
}

fn device(disk: &Disk, drive: &str) -> String {
    format!("virtio-blk-device,id={serial},drive={drive},serial={serial}", serial = disk.serial)
}

fn device_args() -> Vec<String> {
    let ring = format!("ringbuf,id=serial,size={CONSOLE_BYTES}");
    [
        "-chardev",
        &ring,
        "-serial",
        "chardev:serial",
        "-chardev",
        "socket,id=qmp,fd=0,server=on,wait=off",
        "-mon",
        "chardev=qmp,mode=control",
        "-chardev",
        "socket,id=channel,fd=1,server=on,wait=off",
        "-device",
        "virtio-serial-device",
        "-device",
        "virtserialport,chardev=channel,name=rekindle.agent",
    ]
    .map(String::from)
    .to_vec()
}

/// The tap comes as an open descriptor, behind those of the files.
fn nic_args(descriptor: usize) -> [String; 4] {
    let tap = format!("tap,id=nic,fd={descriptor},vhost=off");
    let device = format!("virtio-net-device,netdev=nic,mac={GUEST_MAC},{NIC_OPTIONS}");
    ["-netdev".into(), tap, "-device".into(), device]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kvm_is_inherited_because_the_vmms_user_may_not_open_it() {
        let mut files = Files::default();
        files.inherit(Path::new("/a"), false);
        let args = accelerator_args(Accelerator::Kvm, &mut files);
        assert_eq!(args[..2], ["-add-fd".to_owned(), format!("fd={},set=1", FIRST_FD + 1)]);
        assert_eq!(args[3], "kvm,kernel-irqchip=on,device=/dev/fdset/1");
        assert_eq!(files.0[1], JailFile { path: KVM.into(), writable: true, at: None });
        let mut none = Files::default();
        accelerator_args(Accelerator::Tcg, &mut none);
        assert!(none.0.is_empty());
    }
}
