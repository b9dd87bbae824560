//! A Firecracker that was started ahead, and has loaded nothing yet.

use std::path::Path;

use async_trait::async_trait;
use timeline::Step;

use super::Firecracker;
use super::config::disk_path;
use super::machine::FirecrackerMachine;
use super::start;
use crate::error::StartError;
use crate::memory::open_chain;
use crate::spec::{MachineSpec, Restore};
use crate::vmm::file_error;
use crate::{Machine, Parked, root};

#[derive(Debug)]
pub(crate) struct ParkedFirecracker {
    engine: Firecracker,
    machine: FirecrackerMachine,
}

/// Parks a VMM for suspended machines over `base_memory` that are like `spec` but for their private disks.
pub(crate) async fn park(
    engine: &Firecracker,
    spec: MachineSpec,
    base_memory: &Path,
) -> Result<ParkedFirecracker, StartError> {
    let machine = start::launch_empty(engine, spec, base_memory).await?;
    Ok(ParkedFirecracker { engine: engine.clone(), machine })
}

#[async_trait]
impl Parked for ParkedFirecracker {
    async fn restore(
        self: Box<Self>,
        spec: MachineSpec,
        from: Restore,
    ) -> Result<Box<dyn Machine>, StartError> {
        let Self { engine, mut machine } = *self;
        let loaded = load(&engine, &mut machine, spec, &from).await;
        machine.vmm.unless_failed(loaded).await?;
        Ok(Box::new(machine))
    }

    fn kill(&self) -> std::io::Result<()> {
        self.machine.kill()
    }

    async fn wait_exit(&self) -> std::io::Result<()> {
        self.machine.wait_exit().await
    }
}

async fn load(
    engine: &Firecracker,
    machine: &mut FirecrackerMachine,
    spec: MachineSpec,
    from: &Restore,
) -> Result<(), StartError> {
    if from.base_memory != machine.vmm.record.memory {
        return Err(StartError::Spec("the VMM was parked for machines of another image".to_owned()));
    }
    let layers = open_chain(from)?;
    machine.vmm.becomes(spec)?;
    let spec = &machine.vmm.record.spec;
    for disk in spec.disks.iter().filter(|disk| !disk.read_only) {
        let Some(file) = disk.layers.last() else { continue };
        root::put(machine.pid(), &file.path, &disk_path(disk), &spec.jail)
            .map_err(file_error("handing over", &file.path))?;
    }
    timeline::reached(Step::Spare);
    start::load(engine, machine, from, layers).await
}
