//! A real machine, end to end: boot, snapshot, two clones, suspend one, resume it.
//!
//! Needs root, QEMU, a C compiler and, in `REKINDLE_TEST_KERNEL`, an unpacked Debian kernel package (with `boot` and
//! `lib/modules`); without that variable it says so and passes.

// A test, though not one that the lint recognises.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use rekindle_engine::qemu::{Qemu, detect, overlay};
use rekindle_engine::{Disk, Engine, Jail, Layer, LayerFormat, Machine, MachineSpec, Restore, jail};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Not root: the machines must work without its rights.
const UID: u32 = 65534;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "jail") {
        eprintln!("{}", jail::exec(args));
        return ExitCode::FAILURE;
    }
    let Some(kernel) = std::env::var_os("REKINDLE_TEST_KERNEL") else {
        println!("machine test skipped: REKINDLE_TEST_KERNEL is not set");
        return ExitCode::SUCCESS;
    };
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(life(Path::new(&kernel), dir.path()));
    println!("machine test passed");
    ExitCode::SUCCESS
}

async fn life(kernel: &Path, dir: &Path) {
    let program = PathBuf::from("/usr/bin/qemu-system-x86_64");
    let jailer = vec!["/proc/self/exe".into(), "jail".into()];
    let qemu = Qemu { accelerator: detect(&program).await, program, jailer };
    let base_spec = prepare(kernel, dir).await;

    let memory = dir.join("memory");
    let source = timed("boot", qemu.boot(base_spec.clone(), memory.clone())).await.unwrap();
    assert_eq!(timed("first answer", ask(&*source, "count")).await, "1");
    assert_eq!(ask(&*source, "fill 8 7").await, "filled");
    let base_sum = ask(&*source, "sum").await;
    let device = dir.join("device");
    timed("save_full", source.save_full(&device)).await.unwrap();
    end(&*source).await;
    assert!(qemu.adopt(&base_spec.run_dir).await.unwrap().is_none());

    let from = Restore { base_memory: memory, device_state: device, diff: None };
    let before = fs::read(&from.base_memory).unwrap();
    let one = timed("clone", qemu.restore(clone_spec(&base_spec, dir, "one"), from.clone())).await.unwrap();
    let two = timed("clone", qemu.restore(clone_spec(&base_spec, dir, "two"), from.clone())).await.unwrap();
    for clone in [&one, &two] {
        assert_eq!(timed("answer of a clone", ask(&**clone, "count")).await, "2");
        assert_eq!(ask(&**clone, "sum").await, base_sum);
    }
    assert_eq!(ask(&*one, "fill 16 99").await, "filled");
    let one_sum = ask(&*one, "sum").await;
    println!("private memory: {:?}", one.private_memory().await.unwrap());

    // As after a restart of the server: the object is gone, the process is not.
    let pid = one.pid();
    drop(one);
    let one = timed("adopt", qemu.adopt(&dir.join("one"))).await.unwrap().unwrap();
    assert_eq!(one.pid(), pid);
    assert_eq!(ask(&*one, "count").await, "3");

    let suspended =
        Restore { device_state: dir.join("one.device"), diff: Some(dir.join("one.diff")), ..from.clone() };
    let resumed = suspend_and_resume(&qemu, one, clone_spec(&base_spec, dir, "one"), &suspended).await;
    assert_eq!(timed("answer after resume", ask(&*resumed, "count")).await, "4");
    assert_eq!(ask(&*resumed, "sum").await, one_sum);
    let again = suspend_and_resume(&qemu, resumed, clone_spec(&base_spec, dir, "one"), &suspended).await;
    assert_eq!(ask(&*again, "sum").await, one_sum);
    assert_eq!(ask(&*two, "sum").await, base_sum);
    end(&*again).await;
    end(&*two).await;
    assert!(fs::read(&from.base_memory).unwrap() == before, "a clone wrote to its base");

    damage(suspended.diff.as_deref().unwrap());
    assert!(qemu.restore(clone_spec(&base_spec, dir, "bad"), suspended).await.is_err());
}

async fn suspend_and_resume(
    qemu: &Qemu,
    machine: Box<dyn Machine>,
    spec: MachineSpec,
    to: &Restore,
) -> Box<dyn Machine> {
    machine.pause().await.unwrap();
    let saved = machine.save_diff(&to.device_state, to.diff.as_deref().unwrap());
    println!("{:?}", timed("save_diff", saved).await.unwrap());
    end(&*machine).await;
    timed("resume", qemu.restore(spec, to.clone())).await.unwrap()
}

async fn end(machine: &dyn Machine) {
    machine.kill().unwrap();
    machine.wait_exit().await.unwrap();
}

async fn ask(machine: &dyn Machine, line: &str) -> String {
    let mut stream = BufReader::new(machine.channel().await.unwrap());
    stream.get_mut().write_all(format!("{line}\n").as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_line(&mut answer);
    if tokio::time::timeout(std::time::Duration::from_secs(60), read).await.is_err() {
        panic!("no answer to '{line}'; console: {}", machine.console().await.unwrap());
    }
    answer.trim().to_owned()
}

async fn timed<T>(what: &str, work: impl Future<Output = T>) -> T {
    let start = Instant::now();
    let result = work.await;
    println!("{what}: {:?}", start.elapsed());
    result
}

fn damage(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(path, bytes).unwrap();
}

fn clone_spec(base: &MachineSpec, dir: &Path, name: &str) -> MachineSpec {
    let mut spec = base.clone();
    spec.name = name.into();
    spec.run_dir = dir.join(name);
    let overlay = dir.join(format!("{name}.qcow2"));
    if !overlay.exists() {
        overlay::copy_template(&dir.join("template"), &overlay).unwrap();
    }
    spec.disks[0].layers.push(Layer { path: overlay, format: LayerFormat::Qcow2 });
    spec
}

async fn prepare(kernel: &Path, dir: &Path) -> MachineSpec {
    const SIZE: u64 = 64 << 20;
    let disk = dir.join("scratch");
    fs::File::create(&disk).unwrap().set_len(SIZE).unwrap();
    overlay::make_template(&dir.join("template"), SIZE).await.unwrap();
    let first = dir.join("first.qcow2");
    overlay::copy_template(&dir.join("template"), &first).unwrap();
    let image = fs::read_dir(kernel.join("boot")).unwrap().map(|entry| entry.unwrap().path());
    let raw = Layer { path: disk, format: LayerFormat::Raw };
    MachineSpec {
        name: "source".into(),
        run_dir: dir.join("source"),
        memory_mib: 256,
        vcpus: 1,
        kernel: image.into_iter().find(|path| path.to_string_lossy().contains("vmlinuz")).unwrap(),
        initramfs: initramfs(kernel, dir),
        cmdline: String::new(),
        disks: vec![Disk {
            serial: "scratch".into(),
            read_only: false,
            layers: vec![raw, Layer { path: first, format: LayerFormat::Qcow2 }],
        }],
        tap: None,
        jail: Jail { uid: UID, gid: UID, ..Jail::default() },
    }
}

fn initramfs(kernel: &Path, dir: &Path) -> PathBuf {
    let init = dir.join("init");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/guest/init.c");
    assert!(
        Command::new("cc")
            .args(["-static", "-O2", "-o"])
            .args([init.as_os_str(), source.as_ref()])
            .status()
            .unwrap()
            .success()
    );
    let release = fs::read_dir(kernel.join("lib/modules")).unwrap().next().unwrap().unwrap().path();
    let mut archive = Vec::new();
    cpio(&mut archive, "init", 0o100_755, &fs::read(init).unwrap());
    for module in ["virtio/virtio", "virtio/virtio_ring", "virtio/virtio_mmio", "char/virtio_console"] {
        let (_, name) = module.split_once('/').unwrap();
        let content = fs::read(release.join(format!("kernel/drivers/{module}.ko"))).unwrap();
        cpio(&mut archive, &format!("{name}.ko"), 0o100_644, &content);
    }
    cpio(&mut archive, "TRAILER!!!", 0, &[]);
    let path = dir.join("initramfs");
    fs::write(&path, archive).unwrap();
    path
}

/// One entry of a "newc" archive.
fn cpio(archive: &mut Vec<u8>, name: &str, mode: u32, content: &[u8]) {
    let fields = [0, mode, 0, 0, 1, 0, content.len() as u32, 0, 0, 0, 0, name.len() as u32 + 1, 0];
    archive.extend(b"070701");
    fields.iter().for_each(|field| archive.extend(format!("{field:08X}").bytes()));
    archive.extend(name.bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
