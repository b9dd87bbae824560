//! The life of a machine in a real Firecracker: booted, saved, loaded a hundred times, suspended, resumed, adopted. The guest is a
//! few bytes that count. Needs root, KVM, and a Firecracker that `REKINDLE_FIRECRACKER` names; where they are not it says so.

// A test, though not one that the lint recognises.
#![allow(clippy::unwrap_used)]

use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime};

use rekindle_engine::accelerator::Accelerator;
use rekindle_engine::firecracker::Firecracker;
use rekindle_engine::{
    Compatibility, Cpu, Disk, Engine, EngineVersion, Jail, Layer, LayerFormat, Machine, MachineSpec, Restore,
    jail, open_layers,
};
use tempfile::TempDir;

const FIRECRACKER: &str = "REKINDLE_FIRECRACKER";
const MEMORY_MIB: u32 = 64;
/// Where the kernel is loaded, and where it counts.
const ENTRY: u64 = 0x100_0000;
const COUNTER: u64 = 0x110_0000;
/// `again: inc qword ptr [COUNTER]; pause; jmp again`.
const KERNEL: [u8; 12] = [0x48, 0xff, 0x04, 0x25, 0x00, 0x00, 0x10, 0x01, 0xf3, 0x90, 0xeb, 0xf4];
const UID: u32 = 65534;
/// Snapshots loaded in a row.
const LOADS: u32 = 100;
/// Times that a guest is given to get on.
const TRIES: u32 = 200;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == "jail") {
        eprintln!("{}", jail::exec(args));
        return ExitCode::FAILURE;
    }
    let Some(program) = std::env::var_os(FIRECRACKER).map(PathBuf::from) else {
        println!("skipped: {FIRECRACKER} names no Firecracker");
        return ExitCode::SUCCESS;
    };
    if !Path::new("/dev/kvm").exists() {
        println!("skipped: there is no /dev/kvm");
        return ExitCode::SUCCESS;
    }
    tokio::runtime::Runtime::new().unwrap().block_on(lives(&Bench::new(program)));
    println!("firecracker test passed");
    ExitCode::SUCCESS
}

struct Bench {
    dir: TempDir,
    engine: Firecracker,
}

impl Bench {
    fn new(program: PathBuf) -> Self {
        let compatibility = Compatibility {
            engine: EngineVersion { name: "Firecracker".into(), version: [0; 3] },
            machine: String::new(),
            accelerator: Accelerator::Kvm,
            cpu: Cpu {
                baseline: String::new(),
                model: String::new(),
                features: vec![],
                vendor: None,
                tsc_khz: None,
            },
        };
        let jailer: Vec<OsString> = vec!["/proc/self/exe".into(), "jail".into()];
        let bench = Self {
            dir: tempfile::tempdir().unwrap(),
            engine: Firecracker::new(program, jailer, compatibility),
        };
        fs::set_permissions(bench.dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(bench.path("kernel"), elf()).unwrap();
        fs::write(bench.path("initramfs"), [0; 4096]).unwrap();
        File::create(bench.path("code")).unwrap().set_len(1 << 20).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn spec(&self, name: &str) -> MachineSpec {
        let raw = |path| vec![Layer { path, format: LayerFormat::Raw }];
        let scratch = self.path(&format!("{name}.scratch"));
        File::create(&scratch).unwrap().set_len(1 << 20).unwrap();
        MachineSpec {
            name: name.into(),
            run_dir: self.path(name),
            memory_mib: MEMORY_MIB,
            vcpus: 1,
            kernel: self.path("kernel"),
            initramfs: self.path("initramfs"),
            cmdline: String::new(),
            disks: vec![
                Disk { serial: "code".into(), read_only: true, layers: raw(self.path("code")) },
                Disk { serial: "scratch".into(), read_only: false, layers: raw(scratch) },
            ],
            tap: None,
            jail: Jail { uid: UID, gid: UID, ..Jail::default() },
        }
    }

    /// Lets a machine run until it has counted further than `from`, and suspends it; how far it has come.
    async fn suspend(&self, machine: Box<dyn Machine>, from: u64, to: &Restore) -> u64 {
        for _ in 0..TRIES {
            machine.pause().await.unwrap();
            let write = machine.save_diff().await.unwrap();
            let below = write.below(&[]).unwrap();
            let _ = fs::remove_file(&to.layers[0]);
            write.run(&to.device_state, &below, &to.layers[0], &|| false).unwrap();
            let counted = counter(to);
            if counted > from {
                end(machine).await;
                return counted;
            }
            machine.cont().await.unwrap();
        }
        panic!("the guest does not get on from {from}");
    }
}

async fn lives(bench: &Bench) {
    let spec = bench.spec("source");
    let memory = bench.path("memory");
    let source = bench.engine.boot(spec, memory.clone()).await.unwrap();
    let device_state = bench.path("device");
    source.save_full(&device_state).await.unwrap();
    end(source).await;
    let file = memory.metadata().unwrap();
    assert_eq!(file.len(), u64::from(MEMORY_MIB) << 20);
    assert!(file.blocks() * 512 < file.len() / 2, "memory that nothing touched was written");

    let from = Restore { base_memory: memory.clone(), device_state, layers: vec![], stopped_at: None };
    let began = Instant::now();
    for number in 0..LOADS {
        let clone = bench.engine.restore(bench.spec(&format!("load-{number}")), from.clone()).await.unwrap();
        end(clone).await;
    }
    println!(
        "{LOADS} snapshots loaded, {:.1} ms each",
        began.elapsed().as_secs_f64() * 1000.0 / f64::from(LOADS)
    );

    let mut start = [0; 8];
    File::open(&memory).unwrap().read_exact_at(&mut start, COUNTER).unwrap();
    let clone = bench.engine.restore(bench.spec("clone"), from.clone()).await.unwrap();
    let saved = |name: &str| Restore {
        device_state: bench.path(&format!("{name}.device")),
        layers: vec![bench.path(&format!("{name}.diff"))],
        stopped_at: Some(SystemTime::now()),
        ..from.clone()
    };
    let first = saved("first");
    let counted = bench.suspend(clone, u64::from_le_bytes(start), &first).await;

    let second = saved("second");
    let resumed = bench.engine.restore(bench.spec("resumed"), first).await.unwrap();
    let counted = bench.suspend(resumed, counted, &second).await;

    let waiting = bench.spec("waiting");
    let parked = bench.engine.park(waiting.clone(), &memory).await.unwrap();
    let taken = MachineSpec { run_dir: bench.path("taken"), ..waiting.clone() };
    fs::rename(&waiting.run_dir, &taken.run_dir).unwrap();
    drop(parked.restore(taken.clone(), second.clone()).await.unwrap());
    let adopted = bench.engine.adopt(&taken.run_dir).await.unwrap().unwrap();
    adopted.cont().await.unwrap();
    bench.suspend(adopted, counted, &saved("third")).await;
}

/// How far a suspended guest has counted.
fn counter(of: &Restore) -> u64 {
    let mut counted = 0;
    let chain = open_layers(&of.base_memory, &of.layers).unwrap();
    let found = chain.restore(|offset, bytes| {
        if let Some(at) = COUNTER.checked_sub(offset).filter(|at| at + 8 <= bytes.len() as u64) {
            let at = usize::try_from(at).map_err(std::io::Error::other)?;
            counted = bytes[at..at + 8].iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte));
        }
        Ok(())
    });
    found.unwrap();
    counted
}

async fn end(machine: Box<dyn Machine>) {
    machine.kill().unwrap();
    machine.wait_exit().await.unwrap();
}

/// A program of one page, at the place where it is loaded.
fn elf() -> Vec<u8> {
    const PAGE: u64 = 4096;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    for half in [2_u16, 62] {
        file.extend(half.to_le_bytes());
    }
    file.extend(1_u32.to_le_bytes());
    for word in [ENTRY, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    file.extend(0_u32.to_le_bytes());
    for half in [64_u16, 56, 1, 0, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    for word in [1_u32, 5] {
        file.extend(word.to_le_bytes());
    }
    for word in [PAGE, ENTRY, ENTRY, PAGE, PAGE, PAGE] {
        file.extend(word.to_le_bytes());
    }
    file.resize(4096, 0);
    file.extend(KERNEL);
    file.resize(8192, 0x90);
    file
}
