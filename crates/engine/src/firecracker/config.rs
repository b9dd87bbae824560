//! A machine in Firecracker's terms: what is asked of its API before it boots, and which files it needs.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::arch::KERNEL_COMMAND_LINE;
use super::paths;
use super::start::CHANNEL_PORT;
use crate::GUEST_MAC;
use crate::error::StartError;
use crate::jail::JailFile;
use crate::spec::{Disk, MachineSpec};

/// What snapshots say of the machine. It changes with whatever a saved state is bound to.
pub(crate) const MACHINE: &str = "virtio-mmio, vsock, balloon; root 1";
/// The guest's address on its socket device; each VMM has but one guest.
const GUEST_CID: u32 = 3;
/// The guest has one NIC.
pub(crate) const NIC: &str = "net";
pub(crate) const API_SOCKET: &str = "api.sock";
pub(crate) const CHANNEL_SOCKET: &str = "channel.sock";
/// Firecracker's limit.
const MAX_VCPUS: u32 = 32;
const MAX_NAME: usize = 64;

/// What is to be set, and in which order, each by its path. `processor`: a template of it.
pub(crate) fn requests(spec: &MachineSpec, processor: Value) -> Result<Vec<(String, Value)>, StartError> {
    check(spec)?;
    let sockets = Path::new(paths::SOCKETS);
    let mut requests = vec![
        (
            "/machine-config".to_owned(),
            json!({"vcpu_count": spec.vcpus, "mem_size_mib": spec.memory_mib, "smt": false}),
        ),
        ("/cpu-config".to_owned(), processor),
        (
            "/boot-source".to_owned(),
            json!({
                "kernel_image_path": paths::KERNEL,
                "initrd_path": paths::INITRAMFS,
                "boot_args": command_line(spec),
            }),
        ),
        ("/vsock".to_owned(), json!({"guest_cid": GUEST_CID, "uds_path": sockets.join(CHANNEL_SOCKET)})),
        // Takes nothing from the guest: by it the guest tells what it does not use.
        (
            "/balloon".to_owned(),
            json!({"amount_mib": 0, "deflate_on_oom": false, "free_page_reporting": true}),
        ),
    ];
    requests.extend(spec.disks.iter().map(drive));
    if let Some(tap) = &spec.tap {
        let nic = json!({"iface_id": NIC, "host_dev_name": tap, "guest_mac": GUEST_MAC});
        requests.push((format!("/network-interfaces/{NIC}"), nic));
    }
    Ok(requests)
}

fn drive(disk: &Disk) -> (String, Value) {
    let drive = json!({
        "drive_id": disk.serial,
        "path_on_host": disk_path(disk),
        "is_root_device": false,
        "is_read_only": disk.read_only,
        // A machine does not outlive its host, and a disk is synced by the server before it counts as saved.
        "cache_type": "Unsafe",
    });
    (format!("/drives/{}", disk.serial), drive)
}

pub(crate) fn disk_path(disk: &Disk) -> PathBuf {
    Path::new(paths::DISKS).join(&disk.serial)
}

/// Firecracker gives disks no serial numbers of our choice: the guest is told their names in the order in which it finds
/// them.
fn command_line(spec: &MachineSpec) -> String {
    let disks: Vec<_> = spec.disks.iter().map(|disk| disk.serial.as_str()).collect();
    let line = format!(
        "{KERNEL_COMMAND_LINE} rekindle.vsock={CHANNEL_PORT} rekindle.disks={} {}",
        disks.join(","),
        spec.cmdline
    );
    line.trim_end().to_owned()
}

/// Ids of the API are of these characters only, and paths are made of them.
fn is_word(text: &str, most: usize) -> bool {
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    (1..=most).contains(&text.len()) && text.bytes().all(legal)
}

fn check(spec: &MachineSpec) -> Result<(), StartError> {
    let wrong = |what: String| Err(StartError::Spec(what));
    if spec.memory_mib == 0 || !(1..=MAX_VCPUS).contains(&spec.vcpus) {
        return wrong(format!("memory must not be zero, nor vCPUs zero or more than {MAX_VCPUS}"));
    }
    match spec.disks.iter().find(|disk| !is_word(&disk.serial, MAX_NAME) || disk.layers.len() != 1) {
        Some(disk) => wrong(format!("disk '{}' needs a plain name and one raw file", disk.serial)),
        None => Ok(()),
    }
}

/// The machine's own files, besides the VMM's.
pub(crate) fn disk_files(spec: &MachineSpec) -> impl Iterator<Item = JailFile> {
    spec.disks.iter().filter_map(|disk| {
        let path = disk.layers.first()?.path.clone();
        Some(JailFile { path, writable: !disk.read_only, at: Some(disk_path(disk)) })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Jail, Layer, LayerFormat};

    fn spec() -> MachineSpec {
        let layer = |path: &str| vec![Layer { path: path.into(), format: LayerFormat::Raw }];
        MachineSpec {
            name: "one".into(),
            run_dir: "/run/one".into(),
            memory_mib: 512,
            vcpus: 2,
            kernel: "/host/kernel".into(),
            initramfs: "/host/initramfs".into(),
            cmdline: "more=1".into(),
            disks: vec![
                Disk { serial: "code".into(), read_only: true, layers: layer("/host/code") },
                Disk { serial: "scratch".into(), read_only: false, layers: layer("/host/scratch") },
            ],
            tap: Some("tap0".into()),
            jail: Jail::default(),
        }
    }

    #[test]
    fn a_machine_is_described_by_paths_of_its_own_root() {
        let requests = requests(&spec(), json!({"cpuid_modifiers": []})).unwrap();
        let of = |path: &str| &requests.iter().find(|(at, _)| at == path).unwrap().1;
        assert_eq!(of("/machine-config")["mem_size_mib"], 512);
        assert_eq!(of("/drives/code")["is_read_only"], true);
        assert_eq!(of("/drives/scratch")["path_on_host"], "/disks/scratch");
        assert_eq!(of("/network-interfaces/net")["host_dev_name"], "tap0");
        let line = of("/boot-source")["boot_args"].as_str().unwrap();
        assert!(line.contains(" rekindle.vsock=900 rekindle.disks=code,scratch more=1"), "{line}");
        assert!(!format!("{requests:?}").contains("host/"), "a path of the host's is in {requests:?}");
    }

    #[test]
    fn the_disks_are_put_where_they_are_looked_for() {
        let files: Vec<_> = disk_files(&spec()).collect();
        assert_eq!(files[0].at.as_deref(), Some(Path::new("/disks/code")));
        assert!(files[1].writable && !files[0].writable);
    }

    #[test]
    fn what_firecracker_cannot_do_is_refused() {
        type Change = fn(&mut MachineSpec);
        let changes: [Change; 5] = [
            |spec| spec.memory_mib = 0,
            |spec| spec.vcpus = 33,
            |spec| spec.disks[0].serial = "../code".into(),
            |spec| spec.disks[0].layers.clear(),
            |spec| {
                let top = Layer { path: "/top".into(), format: LayerFormat::Qcow2 };
                spec.disks[1].layers.push(top);
            },
        ];
        for change in changes {
            let mut spec = spec();
            change(&mut spec);
            assert!(matches!(requests(&spec, Value::Null), Err(StartError::Spec(_))), "{spec:?}");
        }
    }
}
