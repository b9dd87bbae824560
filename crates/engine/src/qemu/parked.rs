//! A VMM that was started ahead: everything but what one machine has to itself, its state and its disks.
//!
//! Starting a VMM takes longer than loading a machine into it. Until then its disks are stand-ins of the right size; the
//! machine's own are opened here and handed over through QMP, as the VMM itself can open nothing.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::fchown;
use std::path::Path;

use async_trait::async_trait;
use serde_json::{Value, json};
use timeline::Step;

use super::command::{self, Start};
use super::machine::QemuMachine;
use super::start::{self, vmm_error};
use super::{MEMORY_BREAKS, Qemu};
use crate::error::{CommandError, StartError};
use crate::memory::{load_layers, open_chain};
use crate::spec::{Disk, MachineSpec, Restore};
use crate::vmm::file_error;
use crate::{Machine, Parked};

#[derive(Debug)]
pub(crate) struct ParkedQemu {
    qemu: Qemu,
    machine: QemuMachine,
}

/// Parks a VMM for suspended machines over `base_memory` that are like `spec` but for the disks' highest layers.
pub(crate) async fn park(
    qemu: &Qemu,
    spec: MachineSpec,
    base_memory: &Path,
) -> Result<ParkedQemu, StartError> {
    let (machine, _) = start::launch(qemu, spec, base_memory.to_owned(), Start::Parked).await?;
    Ok(ParkedQemu { qemu: qemu.clone(), machine })
}

#[async_trait]
impl Parked for ParkedQemu {
    async fn restore(
        mut self: Box<Self>,
        spec: MachineSpec,
        from: Restore,
    ) -> Result<Box<dyn Machine>, StartError> {
        let loaded = self.load(spec, &from).await;
        self.machine.vmm.unless_failed(loaded).await?;
        Ok(Box::new(self.machine))
    }

    fn kill(&self) -> std::io::Result<()> {
        self.machine.kill()
    }

    async fn wait_exit(&self) -> std::io::Result<()> {
        self.machine.wait_exit().await
    }
}

impl ParkedQemu {
    async fn load(&mut self, spec: MachineSpec, from: &Restore) -> Result<(), StartError> {
        if from.base_memory != self.machine.vmm.record.memory {
            return Err(StartError::Spec("the VMM was parked for machines of another image".to_owned()));
        }
        let layers = open_chain(from)?;
        let device_state = start::moved_on(&self.qemu, &spec.run_dir, from)?;
        self.machine.vmm.becomes(spec)?;
        let spec = &self.machine.vmm.record.spec;
        for (set, disk) in (0..).zip(&spec.disks).filter(|(_, disk)| !disk.read_only) {
            self.attach(set, disk, spec).await?;
        }
        let state = File::open(&device_state).map_err(file_error("opening", &device_state))?;
        let state = self.hand_over(spec.disks.len(), &state).await.map_err(|error| self.error(error))?;
        timeline::reached(Step::Spare);
        if let Some(layers) = layers {
            load_layers(self.machine.pid(), &self.machine.vmm.record.memory, MEMORY_BREAKS, layers).await?;
            timeline::reached(Step::Memory);
        }
        start::load_state(&self.machine.qmp, &state).await.map_err(|error| self.error(error))
    }

    /// Puts a disk in its stand-in's place.
    async fn attach(&self, set: usize, disk: &Disk, spec: &MachineSpec) -> Result<(), StartError> {
        let Some(top) = disk.layers.last() else { return Ok(()) };
        let open = || {
            let file = File::options().read(true).write(true).open(&top.path)?;
            fchown(&file, Some(spec.jail.uid), Some(spec.jail.gid))?;
            Ok(file)
        };
        let file = open().map_err(file_error("opening", &top.path))?;
        let attached = async {
            let path = self.hand_over(set, &file).await?;
            let node = command::top_node(disk, &path);
            self.machine.qmp.execute("blockdev-add", node).await?;
            let device = format!("/machine/peripheral/{}", disk.serial);
            let drive = json!({"path": device, "property": "drive", "value": command::node_name(disk)});
            self.machine.qmp.execute("qom-set", drive).await
        };
        attached.await.map(drop).map_err(|error| self.error(error))
    }

    /// Gives the VMM a file that was opened here; the path by which it opens that.
    async fn hand_over(&self, set: usize, file: &File) -> Result<String, CommandError> {
        let set = Value::from(set);
        let path = format!("/dev/fdset/{set}");
        self.machine.qmp.execute_with("add-fd", json!({"fdset-id": set}), file.as_fd()).await?;
        Ok(path)
    }

    fn error(&self, error: CommandError) -> StartError {
        vmm_error(&self.machine.vmm.record.spec.run_dir, error)
    }
}
