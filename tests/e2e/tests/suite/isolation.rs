//! What a MicroVM cannot do, seen from outside and from inside.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use rekindle_e2e::{Image, Json, Microvm, Neighbour, census, command, json, machines, neighbour};

use crate::fixture;

/// Docker's default set (SPEC §3).
const DOCKER_CAPABILITIES: &str = "00000000a80425fb";

/// Where a guest finds its metadata service.
const METADATA: &str = "169.254.169.254";
/// Whether anything comes back, before any rule of the host's, from the application and from the metadata service.
const WHO_ANSWERS: &str = r#"
import socket

link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
link.settimeout(2)

def answers(address, port):
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex((address, port))
    try:
        while link.recv(2048)[26:30] != socket.inet_aton(address):
            pass
    except TimeoutError:
        return False
    return True

print(answers("169.254.77.2", 8080), answers("169.254.169.254", 80))
"#;

/// A process of the host.
struct Process(i32);

impl Process {
    fn status(&self, field: &str) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0)).unwrap();
        field_of(&status, field)
    }

    fn link(&self, name: &str) -> String {
        fs::read_link(format!("/proc/{}/{name}", self.0)).unwrap().to_string_lossy().into_owned()
    }

    fn cgroup(&self) -> String {
        fs::read_to_string(format!("/proc/{}/cgroup", self.0)).unwrap()
    }
}

fn field_of(status: &str, field: &str) -> String {
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    value.unwrap_or_else(|| panic!("no {field} in {status}")).trim().to_owned()
}

pub(crate) fn every_vmm_is_confined_on_its_own() {
    let server = fixture::shared();
    let image = fixture::probe(&server);
    let microvms = [Microvm::run(&server, &image, &[]), Microvm::run(&server, &image, &[])];
    let mut own = [const { BTreeSet::new() }; 3];
    for microvm in &microvms {
        let pids = server.vmms(&microvm.id);
        assert_eq!(pids.len(), 1, "one MicroVM, one process");
        let vmm = Process(pids[0]);
        let uids: BTreeSet<String> = vmm.status("Uid").split_whitespace().map(str::to_owned).collect();
        assert_eq!(uids.len(), 1, "real, effective, saved and file system user are one: {uids:?}");
        assert!(!uids.contains("0"), "a VMM runs as root");
        assert_eq!((vmm.status("Seccomp").as_str(), vmm.status("NoNewPrivs").as_str()), ("2", "1"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            assert_eq!(vmm.status(set), "0000000000000000", "{set}");
        }
        sees_no_file_but_its_program(&vmm);
        has_open_only_what_is_its_own(&vmm, server.data_dir(), microvm, &image);
        assert_eq!(vmm.status("Groups"), "", "a VMM has groups of its own alone");
        assert_ne!(vmm.link("ns/net"), Process(std::process::id().cast_signed()).link("ns/net"));
        assert!(vmm.cgroup().contains("/rekindle-"), "{}", vmm.cgroup());
        own[0].extend(uids);
        own[1].insert(vmm.link("ns/net"));
        own[2].insert(vmm.cgroup());
    }
    assert_eq!(own.each_ref().map(BTreeSet::len), [2, 2, 2], "what is shared: {own:?}");
    microvms.iter().for_each(|microvm| drop(microvm.terminate()));
}

/// What an escape from the VMM would find.
fn sees_no_file_but_its_program(vmm: &Process) {
    assert_ne!(vmm.link("ns/mnt"), Process(std::process::id().cast_signed()).link("ns/mnt"));
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", vmm.0)).unwrap();
    let writable = |mount: &str| {
        let mut fields = mount.split(' ').skip(4);
        let (at, options) = (fields.next()?, fields.next()?);
        options.split(',').all(|option| option != "ro").then(|| at.to_owned())
    };
    let writable: BTreeSet<String> = mounts.lines().filter_map(writable).collect();
    if machines::last().starts_with("Firecracker") {
        only_its_own_files(vmm);
        assert_eq!(writable, ["/disks/scratch", "/sockets", "/state.out"].map(str::to_owned).into());
    } else {
        only_system_libraries(vmm);
        assert!(writable.is_empty(), "writable: {writable:?}");
        assert!(mounts.contains("hidepid=invisible"), "other processes show: {mounts}");
    }
}

/// A Firecracker's root.
fn only_its_own_files(vmm: &Process) {
    let only = |path, allowed: &[&str]| has_only(vmm, path, allowed);
    only("", &["dev", "disks", "firecracker", "memory", "sockets", "state.in", "state.out"]);
    only("dev", &["kvm", "net"]);
    only("dev/net", &["tun"]);
}

/// The root that QEMU's VMMs share.
fn only_system_libraries(vmm: &Process) {
    let only = |path, allowed: &[&str]| has_only(vmm, path, allowed);
    only("", &["dev", "etc", "lib", "lib64", "proc", "processes", "usr"]);
    only("proc", &["self", "sys"]);
    only("proc/sys", &["vm"]);
    only("proc/sys/vm", &["overcommit_memory"]);
    only("dev", &["kvm", "null"]);
    only("etc", &["ld.so.cache"]);
    only("usr", &["bin", "lib", "lib64", "share"]);
    only("usr/bin", &["qemu-system-x86_64"]);
    only("usr/share", &["qemu", "seabios"]);
}

fn has_only(vmm: &Process, path: &str, allowed: &[&str]) {
    let list = fs::read_dir(format!("/proc/{}/root/{path}", vmm.0)).unwrap();
    let names = list.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let extra: Vec<String> = names.filter(|name| !allowed.contains(&name.as_str())).collect();
    assert!(extra.is_empty(), "a VMM sees {extra:?} in /{path}");
}

/// Every descriptor is a file of its MicroVM's, of its image's or of the platform's, its tap or KVM, or has nothing behind it;
/// and what it may write is its MicroVM's.
fn has_open_only_what_is_its_own(vmm: &Process, data: &Path, microvm: &Microvm<'_>, image: &Image) {
    let (name, run) = (image.arn.rsplit(':').next().unwrap(), census::run_dir(data));
    let is_in =
        |dir: &Path, name: &str, path: &Path| path.starts_with(dir) && path.iter().any(|part| part == name);
    let known: BTreeMap<_, _> = census::files_of(data).into_iter().chain(census::files_of(&run)).collect();
    let mut seen = 0;
    for entry in fs::read_dir(format!("/proc/{}/fd", vmm.0)).unwrap() {
        let (path, number) = (entry.as_ref().unwrap().path(), entry.as_ref().unwrap().file_name());
        let Ok(target) = fs::read_link(&path) else { continue };
        // In a root of its own it has another path.
        let target = census::identity(&path).and_then(|file| known.get(&file).cloned()).unwrap_or(target);
        let info = fs::read_to_string(format!("/proc/{}/fdinfo/{}", vmm.0, number.display())).unwrap();
        let flags = field_of(&info, "flags");
        let writable = u32::from_str_radix(&flags, 8).unwrap() & 0o3 != 0;
        let text = target.to_string_lossy();
        let nothing = ["socket:", "pipe:", "anon_inode:"].iter().any(|kind| text.starts_with(kind));
        let device = ["/dev/net/tun", "/dev/kvm"].contains(&&*text);
        let id = &microvm.id;
        let mine = device || is_in(&data.join("microvms"), id, &target) || is_in(&run, id, &target);
        let shared = target.starts_with(data.join("platforms")) || is_in(&data.join("images"), name, &target);
        let harmless = nothing || text == "/dev/null";
        assert!(mine || harmless || shared && !writable, "a VMM has {text} open, flags {flags}");
        assert!(!fs::metadata(&path).unwrap().is_dir(), "a VMM has the directory {text} open");
        seen += usize::from(mine || shared);
    }
    assert!(seen > 4, "only {seen} files are seen: memory, disks, tap and log are missing");
}

fn reaches(microvm: &Microvm<'_>, host: &str, port: u16) -> bool {
    microvm.json(&format!("/connect?host={host}&port={port}"))["reached"] == true
}

pub(crate) fn a_guest_reaches_public_addresses_and_nothing_else() {
    let server = fixture::shared();
    let image = fixture::probe(&server);
    let (guest, other) = (Microvm::run(&server, &image, &[]), Microvm::run(&server, &image, &[]));
    let public = Neighbour::new("public", "198.51.101");
    let private = Neighbour::new("private", "192.168.217");
    // Listening everywhere on this host, its API's port aside: whatever a guest cannot connect to is there.
    let listener = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));

    assert!(reaches(&guest, &public.address, neighbour::PORT), "the internet");
    assert!(reaches(&guest, "127.0.0.1", 9000), "its own hooks");
    assert!(!reaches(&guest, &private.address, neighbour::PORT), "a private network");
    // The networks of other tests come and go: an address that has gone is somebody else's, who may well answer.
    let is_gone = |address: &String| !addresses(&[]).contains(address);
    for address in addresses(&[]) {
        for port in [port, server.endpoint_port()] {
            let refused = !reaches(&guest, &address, port) || is_gone(&address);
            assert!(refused, "the host at {address}, port {port}");
        }
    }
    // The guest's own loopback is not the host's.
    assert!(!reaches(&guest, "127.0.0.1", port) && !reaches(&guest, "127.0.0.1", server.endpoint_port()));
    let neighbours = namespace_of(&server.vmms(&other.id));
    for address in addresses(&["-n", &neighbours]) {
        assert!(!reaches(&guest, &address, 8080), "another guest at {address}");
    }
    assert!(!reaches(&guest, "169.254.170.2", 80), "a cloud's credentials");
    assert!(reaches(&guest, METADATA, 80), "its own metadata");
    the_same_is_so_of_ipv6(&guest, &public, &private, &neighbours);
    metadata_is_told_inside_alone(&guest, &other, &neighbours);
    [guest, other].iter().for_each(|microvm| drop(microvm.terminate()));
}

/// `neighbours`: the namespace of another guest.
fn the_same_is_so_of_ipv6(guest: &Microvm<'_>, public: &Neighbour, private: &Neighbour, neighbours: &str) {
    // Nobody's range of the internet's addresses.
    let (public, private) = (public.by_ipv6("2e00:217:1:"), private.by_ipv6("fd12:217:1:"));
    let listener = TcpListener::bind("[::]:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    for has_slept in [false, true] {
        if has_slept {
            guest.suspend();
            guest.resume();
        }
        assert!(reaches(guest, &public, neighbour::PORT), "has slept: {has_slept}: the internet");
        // What a packet of 1500 bytes has room for.
        let path = format!("/datagram?host={public}&port={}&bytes=1452", neighbour::PORT);
        let sent = guest.json(&path);
        assert_eq!(sent["came_back"], 1452, "has slept: {has_slept}: {sent}");
    }
    assert!(!reaches(guest, &private, neighbour::PORT), "a private network");
    let is_gone = |address: &String| !addresses_of("-6", &[]).contains(address);
    for address in addresses_of("-6", &[]) {
        let refused = !reaches(guest, &address, port) || is_gone(&address);
        assert!(refused, "the host at {address}");
    }
    for address in addresses_of("-6", &["-n", neighbours]) {
        assert!(!reaches(guest, &address, 8080), "another guest at {address}");
    }
    assert!(!reaches(guest, "::1", port), "its own loopback is not the host's");
}

/// The protocol of IMDSv2, to every user of the guest and to nobody else. `outside`: the namespace of the other's VMM.
fn metadata_is_told_inside_alone(guest: &Microvm<'_>, other: &Microvm<'_>, outside: &str) {
    let ask = |microvm: &Microvm<'_>, query: &str| {
        let answer = microvm.json(&format!("/metadata{query}"));
        (answer["status"].as_u64().unwrap(), answer["text"].as_str().unwrap().to_owned())
    };
    let region = guest.server().variable("AWS_REGION").to_owned();
    let see = |path: &str| ask(guest, &format!("?path=/latest/meta-data/{path}"));
    assert_eq!(see(""), (200, "iam/\nplacement/\ntags/".into()));
    assert_eq!(see("iam/security-credentials/"), (200, "execution_role".into()));
    assert_eq!(see("placement/"), (200, "availability-zone-id\nregion".into()));
    assert_eq!(see("placement/region"), (200, region.clone()));
    assert_eq!(see("placement/region&uid=65534"), (200, region), "to another user");
    let key = "tags/instance/aws_instance-group-symmetric-key";
    assert_eq!(see(key).1.len(), 44);
    assert_eq!(ask(other, &format!("?path=/latest/meta-data/{key}")), see(key), "of one image");

    let refused = (401, "MMDS token not valid.".to_owned());
    assert_eq!(see("&token=wrong"), refused);
    let (status, text) = see("&token=");
    assert!(status == 401 && text.starts_with("No MMDS token provided. Use "), "{status} {text}");
    let (status, token) = ask(guest, "/token?ttl=21600");
    assert_eq!((status, token.len()), (200, 48));
    assert_eq!(see(&format!("&token={token}")).0, 200);
    assert_eq!(ask(other, &format!("?path=/&token={token}")), refused, "another's token");
    for (query, status) in [("?ttl=0", 400), ("?ttl=21601", 400), ("", 400), ("?ttl=1&method=POST", 405)] {
        assert_eq!(ask(guest, &format!("/token{query}")).0, status, "{query}");
    }
    // The proxy reaches the application's ports alone, and a packet for the address from outside goes nowhere.
    guest.request("/latest/meta-data/", &["--header", "X-aws-proxy-port: 80"]).expect(502);
    let inside = |what: &[&str]| command::run(Command::new("ip").args(["netns", "exec", outside]).args(what));
    let route = ["ip", "route", "replace", METADATA, "via", "169.254.77.2"];
    assert!(inside(&route).status.success(), "no way to the guest to try");
    let tried = inside(&["python3", "-c", WHO_ANSWERS]);
    assert_eq!(command::text(&tried.stdout).trim(), "True False", "metadata is told outside: {tried:?}");
    inside(&["ip", "route", "delete", METADATA]);
}

/// IPv4 addresses that `ip` shows, loopback aside.
fn addresses(options: &[&str]) -> Vec<String> {
    addresses_of("-4", options)
}

fn addresses_of(family: &str, options: &[&str]) -> Vec<String> {
    let listing = command::must(Command::new("ip").args(options).args(["-json", family, "address", "show"]));
    let links: Json = serde_json::from_str(&listing).unwrap();
    let links = links.as_array().unwrap().iter().flat_map(|link| link["addr_info"].as_array().unwrap());
    let all: Vec<String> = links.filter_map(|info| info["local"].as_str()).map(str::to_owned).collect();
    let all: Vec<String> =
        all.into_iter().filter(|address| !address.starts_with("127.") && address != "::1").collect();
    assert!(!all.is_empty(), "no addresses: {listing}");
    all
}

/// The name of the namespace that a process is in.
fn namespace_of(pids: &[i32]) -> String {
    let name = command::must(Command::new("ip").args(["netns", "identify", &pids[0].to_string()]));
    assert!(!name.trim().is_empty(), "VMM {pids:?} is in no named namespace");
    name.trim().to_owned()
}

/// What a container of Docker's finds, started without options, and `/dev/console` aside, which it has with a terminal.
fn assert_confined_as_by_docker(found: &Json) {
    let calls = found["calls"].as_object().unwrap();
    for (name, came) in calls {
        let expected = match name.as_str() {
            // Raw sockets are among Docker's capabilities.
            "chroot" | "personality_query" | "ptrace_traceme" | "getpid_32" | "socket_packet" => "ok",
            "clone3" | "clone3_32" | "unheard_of" | "x32_getpid" => "ENOSYS",
            _ => "EPERM",
        };
        assert_eq!(came, expected, "{name}: {found}");
    }
    for (path, content) in found["masked"].as_object().unwrap() {
        assert!(content == "0 bytes" || content == "0 entries", "{path} shows {content}");
    }
    for (path, came) in found["written"].as_object().unwrap() {
        assert_eq!(came, "EROFS", "{path}");
    }
    let devices = [
        "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty",
        "urandom", "zero",
    ];
    assert_eq!(found["devices"], json!(devices));
    let mounts = json!({
        // Docker has a list of devices in the cgroup, where here those that are made mean nothing.
        "/dev": "tmpfs inode64 mode=755 nodev nosuid relatime rw size=65536k",
        "/dev/shm": "tmpfs inode64 nodev noexec nosuid relatime rw size=65536k",
        "/dev/mqueue": "mqueue nodev noexec nosuid relatime rw",
        "/dev/pts": "devpts gid=5 mode=620 noexec nosuid ptmxmode=666 relatime rw",
        "/sys": "sysfs nodev noexec nosuid relatime ro",
        "/sys/fs/cgroup": "cgroup2 nodev noexec nosuid relatime ro",
    });
    assert_eq!(found["mounts"], mounts, "{found}");
    assert_eq!(found["limits"], json!({"nofile": [1024, 524_288], "nproc": [-1, -1], "core": [-1, -1]}));
}

pub(crate) fn the_container_has_only_dockers_rights() {
    let server = fixture::shared();
    let microvm = Microvm::run(&server, &fixture::probe(&server), &[]);
    let file = |path: &str| microvm.request(&format!("/file?path={path}"), &[]);
    let status = file("/proc/self/status").expect(200).json()["text"].as_str().unwrap().to_owned();
    assert_eq!(field_of(&status, "Pid"), "1", "the application is the container's first process");
    for set in ["CapEff", "CapBnd"] {
        assert_eq!(field_of(&status, set), DOCKER_CAPABILITIES, "{set}");
    }
    assert_eq!(field_of(&status, "NoNewPrivs"), "1");
    assert_eq!(
        (field_of(&status, "Seccomp").as_str(), field_of(&status, "Seccomp_filters").as_str()),
        ("2", "1")
    );
    assert_confined_as_by_docker(&microvm.json("/confinement"));
    // Whatever was here would let the application speak for the agent.
    file("/dev/vport0p1").expect(404);
    let mounts = file("/proc/self/mounts").expect(200).json()["text"].as_str().unwrap().to_owned();
    let read_only = |point: &str| {
        let options = mounts.lines().find_map(|line| line.split_once(&format!(" {point} ")));
        options.is_some_and(|(_, rest)| rest.split([' ', ',']).any(|option| option == "ro"))
    };
    assert!(read_only("/proc/sys"), "{mounts}");
    let variables = microvm.json("/environment");
    assert_eq!(variables["AWS_REGION"], server.variable("AWS_REGION"), "{variables}");
    assert_eq!(variables["AWS_LAMBDA_MICROVM_IMAGE_VERSION"], "1.0", "{variables}");
    let secret = |name: &&String| name.contains("SECRET") || name.contains("ACCESS_KEY");
    assert_eq!(variables.as_object().unwrap().keys().find(secret), None);
    microvm.terminate();
}
