//! The machines of the tests, as the server makes them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_proto::{AppSpec, BuildFailure, BuildOutcome, BuildSpec, ImageConfig, Request, Response};
use engine::{Disk, Engine, Jail, Layer, LayerFormat, Machine, MachineSpec, Restore};
use rekindle_platform::{Assets, Platform};
use tempfile::TempDir;

use crate::artifact;
use crate::session::Guest;
use crate::timed;

const SCRATCH: u64 = 8 << 30;
const OUTPUT: u64 = 8 << 30;
const BLOCK: u64 = 4096;
/// Not root: the machines must work without its rights.
pub(crate) const UID: u32 = 65534;
const BUILD_WITHIN: Duration = Duration::from_secs(900);

/// What all tests share.
pub(crate) struct Bench {
    pub(crate) dir: TempDir,
    pub(crate) assets: Assets,
    pub(crate) platform: Platform,
    pub(crate) engine: Arc<dyn Engine>,
}

/// A built image.
pub(crate) struct Image {
    pub(crate) code: PathBuf,
    pub(crate) base_layers: Vec<String>,
    pub(crate) config: ImageConfig,
}

/// A snapshot of a started application.
pub(crate) struct Snapshot {
    read_only: Vec<Disk>,
    scratch: Disk,
    pub(crate) from: Restore,
}

impl Bench {
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Ends every machine that still runs.
    pub(crate) async fn end_machines(&self) {
        for entry in fs::read_dir(self.dir.path()).unwrap() {
            if let Ok(Some(machine)) = self.engine.adopt(&entry.unwrap().path()).await {
                end(machine).await;
            }
        }
    }

    fn spec(&self, name: &str, memory_mib: u32, vcpus: u32, disks: Vec<Disk>) -> MachineSpec {
        MachineSpec {
            name: name.into(),
            run_dir: self.path(name),
            memory_mib,
            vcpus,
            kernel: self.platform.kernel(),
            initramfs: self.platform.initramfs(),
            cmdline: String::new(),
            disks,
            tap: None,
            jail: Jail { uid: UID, gid: UID, ..Jail::default() },
        }
    }

    fn app_spec(&self, name: &str, mut disks: Vec<Disk>, scratch: Disk) -> MachineSpec {
        disks.push(scratch);
        self.spec(name, 2048, 1, disks)
    }

    fn read_only(&self, image: &Image) -> Vec<Disk> {
        let bases = (!image.base_layers.is_empty()).then(|| raw("bases", &self.platform.bases(), true));
        [raw("code", &image.code, true)].into_iter().chain(bases).collect()
    }

    /// A private disk.
    fn disk(&self, name: &str, below: Vec<Layer>) -> Disk {
        self.engine.disks().make(&below, &self.path(&format!("{name}.scratch"))).unwrap();
        self.private(name, below)
    }

    fn private(&self, name: &str, below: Vec<Layer>) -> Disk {
        let path = self.path(&format!("{name}.scratch"));
        Disk::private("scratch", below, Layer { path, format: self.engine.disks().format() })
    }

    /// One that begins as an empty file system.
    fn scratch(&self, name: &str) -> Disk {
        self.disk(name, vec![self.empty()])
    }

    fn empty(&self) -> Layer {
        Layer { path: self.platform.scratch(SCRATCH).unwrap(), format: LayerFormat::Raw }
    }

    /// Builds a zip; `name` must be new.
    pub(crate) async fn build(
        &self,
        name: &str,
        zip: &[u8],
        aliases: &[(&str, &str)],
    ) -> Result<Image, (BuildFailure, String)> {
        let scratch = self.scratch(name);
        self.build_on(name, zip, aliases, scratch).await
    }

    pub(crate) async fn build_on(
        &self,
        name: &str,
        zip: &[u8],
        aliases: &[(&str, &str)],
        scratch: Disk,
    ) -> Result<Image, (BuildFailure, String)> {
        let (input, output) = (self.path(&format!("{name}.artifact")), self.path(&format!("{name}.output")));
        artifact::write_disk(zip, &input);
        File::create_new(&output).unwrap().set_len(OUTPUT).unwrap();
        let disks = vec![
            raw("tools", &self.assets.tools(), true),
            raw("bases", &self.platform.bases(), true),
            scratch,
            raw("artifact", &input, true),
            raw("output", &output, false),
        ];
        let memory = self.path(&format!("{name}.memory"));
        let guest = self.boot(self.spec(name, 2048, 2, disks), memory).await;
        let aliases = aliases.iter().map(|(wanted, local)| ((*wanted).to_owned(), (*local).to_owned()));
        let spec = BuildSpec {
            artifact_bytes: zip.len() as u64,
            env: Vec::new(),
            base_aliases: aliases.collect(),
            keep_steps: false,
        };
        let answer = timed("build", guest.call_within(BUILD_WITHIN, Request::Build(spec))).await;
        println!("{}", guest.log());
        guest.power_off().await;
        match answer {
            Response::Build(BuildOutcome::Ok { code_bytes, base_layers, config }) => {
                println!("code: {code_bytes} bytes over {base_layers:?}; {config:?}");
                let length = code_bytes.next_multiple_of(BLOCK);
                File::options().write(true).open(&output).unwrap().set_len(length).unwrap();
                Ok(Image { code: output, base_layers, config })
            }
            Response::Build(BuildOutcome::Failed { kind, message }) => Err((kind, message)),
            other => panic!("no answer to a build: {other:?}"),
        }
    }

    async fn boot(&self, spec: MachineSpec, memory: PathBuf) -> Guest {
        let machine = timed("boot returned", self.engine.boot(spec, memory)).await.unwrap();
        timed("handshake after boot", Guest::meet(machine)).await
    }

    /// Boots a machine and starts the image in it.
    pub(crate) async fn start(&self, name: &str, image: &Image, all_capabilities: bool) -> Guest {
        let spec = self.app_spec(name, self.read_only(image), self.scratch(name));
        let guest = self.boot(spec, self.path(&format!("{name}.memory"))).await;
        let env = vec!["AWS_REGION=eu-test-1".to_owned()];
        let app = AppSpec {
            config: image.config.clone(),
            base_layers: image.base_layers.clone(),
            env,
            hostname: "localhost".into(),
            all_capabilities,
        };
        timed("application started", guest.done(Request::StartApp(app))).await;
        guest
    }

    /// Ends a machine that was made by [`Bench::start`] with a snapshot; the guest must be frozen.
    pub(crate) async fn snapshot(&self, name: &str, image: &Image, machine: Box<dyn Machine>) -> Snapshot {
        let device_state = self.path(&format!("{name}.device"));
        timed("save_full", machine.save_full(&device_state)).await.unwrap();
        end(machine).await;
        let base_memory = self.path(&format!("{name}.memory"));
        let from = Restore { base_memory, device_state, layers: vec![], stopped_at: None };
        Snapshot { read_only: self.read_only(image), scratch: self.private(name, vec![self.empty()]), from }
    }

    /// How to start a new clone.
    pub(crate) fn clone_spec(&self, name: &str, of: &Snapshot) -> MachineSpec {
        self.app_spec(name, of.read_only.clone(), self.disk(name, of.scratch.layers.clone()))
    }
}

pub(crate) fn raw(serial: &str, path: &Path, read_only: bool) -> Disk {
    let layer = Layer { path: path.to_owned(), format: LayerFormat::Raw };
    Disk { serial: serial.into(), read_only, layers: vec![layer] }
}

pub(crate) async fn end(machine: Box<dyn Machine>) {
    machine.kill().unwrap();
    machine.wait_exit().await.unwrap();
}
