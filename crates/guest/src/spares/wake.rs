//! VMMs started ahead, and wakes in them.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use engine::{Parked, Restore};
use network::{Egress, Slot};

use super::{Purpose, What};
use crate::host::Shape;
use crate::{Guest, GuestError, Host, ImageLayer};

/// A VMM that waits for its MicroVM.
#[derive(Debug)]
pub(super) struct SpareVmm {
    pub(super) name: String,
    slot: Slot,
    parked: Box<dyn Parked>,
}

impl Host {
    /// Starts a suspended clone of `layer` under `name`, with its private disk `disk`: in a VMM that waits for it, if
    /// there is one. It runs when this returns, but the application in it is frozen. `egress` as with [`Host::boot`].
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the guest remains then but what it was started from.
    pub async fn wake(
        self: &Arc<Self>,
        name: &str,
        layer: &ImageLayer,
        disk: PathBuf,
        from: Restore,
        egress: Option<Egress>,
    ) -> Result<Guest, GuestError> {
        if let Some(What::Vmm(vmm)) = self.spares.take(layer.dir(), Purpose::Wake) {
            let old_name = vmm.name.clone();
            let shape = layer.clone_with(disk.clone())?;
            match self.load(vmm, name, shape, from.clone(), egress.clone()).await {
                Ok(guest) => return Ok(guest),
                Err(error) => tracing::warn!(name, %error, "a waiting VMM was of no use; starting another"),
            }
            self.discard(&old_name).await;
            self.discard(name).await;
        }
        self.restore(name, layer.clone_with(disk)?, from, egress).await
    }

    /// Gives a waiting VMM its MicroVM's name, what it may reach, and the MicroVM.
    async fn load(
        self: &Arc<Self>,
        vmm: SpareVmm,
        name: &str,
        shape: Shape,
        from: Restore,
        egress: Option<Egress>,
    ) -> Result<Guest, GuestError> {
        if let Some(egress) = egress {
            self.pool.bind(&vmm.slot, egress).await?;
        }
        let (old, new) = (self.dir(&vmm.name), self.dir(name));
        fs::rename(&old, &new).map_err(GuestError::file("renaming", &old))?;
        let spec = self.spec(name, shape, &vmm.slot)?;
        let restored = vmm.parked.restore(spec, from).await.map_err(GuestError::from);
        self.greet(name, vmm.slot, restored, Guest::RESTORE_TIME).await
    }

    pub(super) async fn park(&self, name: String, layer: &ImageLayer) -> Result<SpareVmm, GuestError> {
        // Whose disk it will have is not known yet.
        let shape = layer.clone_with(PathBuf::new())?;
        let slot = self.pool.acquire().await?;
        let parked = match self.prepare(&name, shape, &slot) {
            Ok(spec) => self.engine.park(spec, &layer.memory()).await.map_err(GuestError::from),
            Err(error) => Err(error),
        };
        match parked {
            Ok(parked) => Ok(SpareVmm { name, slot, parked }),
            Err(error) => {
                self.release(&name, &slot.name);
                Err(error)
            }
        }
    }

    pub(super) async fn end_vmm(&self, vmm: SpareVmm) {
        let SpareVmm { name, slot, parked } = vmm;
        let ended = match parked.kill() {
            Ok(()) => parked.wait_exit().await,
            Err(error) => Err(error),
        };
        if let Err(error) = ended {
            tracing::error!(name, %error, "cannot end a waiting VMM");
        }
        self.release(&name, &slot.name);
    }
}
