//! What a guest finds that has taken its VMM over: no rights, and with Firecracker no file but the machine's own.

use std::collections::BTreeSet;
use std::fs;

use engine::Machine;

use crate::machines::UID;

/// All that Firecracker's root holds, of a machine that was restored and has no NIC.
const ROOT: [&str; 7] = ["dev", "disks", "firecracker", "memory", "sockets", "state.in", "state.out"];

pub(crate) fn each_vmm(machine: &dyn Machine, engine: &str) {
    let pid = machine.pid();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        value.unwrap().split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(field("Uid"), [UID.to_string(), UID.to_string(), UID.to_string(), UID.to_string()]);
    assert_eq!((field("NoNewPrivs"), field("Seccomp")), (vec!["1".to_owned()], vec!["2".to_owned()]));
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), ["0000000000000000"], "{set}");
    }
    if engine == "Firecracker" {
        files(pid);
    }
}

fn files(pid: i32) {
    let names = |path: &str| -> BTreeSet<String> {
        let entries = fs::read_dir(format!("/proc/{pid}/root{path}")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    assert_eq!(names("/"), ROOT.map(str::to_owned).into());
    assert_eq!(names("/dev"), ["kvm".to_owned()].into());
    // Of several mounts at one place the last is what is seen.
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let mut written = BTreeSet::new();
    for mount in mounts.lines() {
        let fields: Vec<_> = mount.split(' ').collect();
        let options: BTreeSet<_> = fields[5].split(',').collect();
        assert!(options.contains("nosuid"), "{mount}");
        assert!(options.contains("noexec") || fields[4] == "/firecracker", "{mount}");
        if options.contains("rw") {
            written.insert(fields[4]);
        }
    }
    assert_eq!(written, ["/disks/scratch", "/sockets", "/state.out"].into());
    let host = fs::read_link("/proc/self/ns/ipc").unwrap();
    assert_ne!(fs::read_link(format!("/proc/{pid}/ns/ipc")).unwrap(), host);
}
