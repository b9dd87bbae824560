//! Starting guests, finding them again, and clearing away what is left of them.
//!
//! A guest sits in a slot: the slot's network, user and cgroup are its own. Its name is its directory's below the run
//! directory, and can be given to it later (see `spares`).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use agent_proto::host::Resolver;
use capacity::Capacity;
use engine::{Compatibility, Disk, Engine, Jail, Machine, MachineSpec, PrivateDisks, Restore};
use network::cgroup::{Cgroups, Limits, Usage};
use network::{AcquireError, Egress, Pool, Refused, Slot};
use serde::{Deserialize, Serialize};
use timeline::Step;

use crate::spares::Spares;
use crate::{Dirs, Guest, GuestError};

/// Memory of a VMM beyond its guest's: translated code, device buffers, page cache of what it reads.
const VMM_MEMORY: u64 = 1 << 30;
/// Threads of a VMM: vCPUs, its own, and those that wait for disks.
const VMM_THREADS: u64 = 256;
/// CPU of a VMM beyond its guest's vCPUs, in thousandths.
const VMM_CPU_MILLIS: u64 = 1000;
/// How much of its baseline, which it has whoever else wants it, a guest may have while there is more (SPEC §3).
const PEAK: u64 = 4;
/// What is known of a guest besides what the engine notes.
const RECORD: &str = "guest.json";

/// What a guest consists of. To be restored it must have the shape that was saved.
#[derive(Debug, Clone)]
pub struct Shape {
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// bzImage.
    pub kernel: PathBuf,
    /// With the agent in it.
    pub initramfs: PathBuf,
    /// In the order in which they were when it was saved.
    pub disks: Vec<Disk>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    slot: String,
}

/// What every guest needs of this machine.
pub struct Host {
    pub(crate) engine: Arc<dyn Engine>,
    pub(crate) pool: Pool,
    cgroups: Cgroups,
    upstreams: Arc<[SocketAddr]>,
    pub(crate) dirs: Dirs,
    pub(crate) spares: Spares,
    pub(crate) capacity: Capacity,
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("dirs", &self.dirs).finish_non_exhaustive()
    }
}

impl Host {
    /// A host whose guests' files are in `dirs` and whose guests resolve names with `upstreams`. It keeps at most
    /// `max_spares` ready for the next launches and wakes.
    #[must_use]
    pub fn new(
        engine: Arc<dyn Engine>,
        pool: Pool,
        cgroups: Cgroups,
        upstreams: Vec<SocketAddr>,
        dirs: Dirs,
        capacity: Capacity,
        max_spares: usize,
    ) -> Arc<Self> {
        let (upstreams, spares) = (upstreams.into(), Spares::at_most(max_spares));
        Arc::new(Self { engine, pool, cgroups, upstreams, dirs, spares, capacity })
    }

    /// What snapshots of this host depend on besides their files.
    #[must_use]
    pub fn compatibility(&self) -> &Compatibility {
        self.engine.compatibility()
    }

    /// How guests come by the disks that they write to.
    #[must_use]
    pub fn disks(&self) -> &dyn PrivateDisks {
        self.engine.disks()
    }

    /// Boots a guest whose memory is the new file `memory`. Nothing else may run under its name. `egress`: what it may
    /// reach, in place of the internet.
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the guest remains then.
    pub async fn boot(
        self: &Arc<Self>,
        name: &str,
        shape: Shape,
        memory: PathBuf,
        egress: Option<Egress>,
    ) -> Result<Guest, GuestError> {
        let slot = self.slot(egress).await?;
        let started = match self.prepare(name, shape, &slot) {
            Ok(spec) => self.engine.boot(spec, memory).await.map_err(GuestError::from),
            Err(error) => Err(error),
        };
        self.greet(name, slot, started, Guest::BOOT_TIME).await
    }

    /// Starts a guest from a snapshot; it runs when this returns, but the application in it is frozen. `egress` as with
    /// [`Host::boot`].
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the guest remains then.
    pub async fn restore(
        self: &Arc<Self>,
        name: &str,
        shape: Shape,
        from: Restore,
        egress: Option<Egress>,
    ) -> Result<Guest, GuestError> {
        self.spares.touch();
        let slot = self.slot(egress).await?;
        timeline::reached(Step::Slot);
        self.clone_in(slot, name, shape, from).await
    }

    pub(crate) async fn clone_in(
        self: &Arc<Self>,
        slot: Slot,
        name: &str,
        shape: Shape,
        from: Restore,
    ) -> Result<Guest, GuestError> {
        let started = match self.prepare(name, shape, &slot) {
            Ok(spec) => self.engine.restore(spec, from).await.map_err(GuestError::from),
            Err(error) => Err(error),
        };
        self.greet(name, slot, started, Guest::RESTORE_TIME).await
    }

    /// A slot for a guest that does not run yet: with what it may reach, from the first packet on.
    async fn slot(&self, egress: Option<Egress>) -> Result<Slot, GuestError> {
        let slot = self.free_slot().await?;
        if let Some(egress) = egress
            && let Err(error) = self.pool.bind(&slot, egress).await
        {
            self.pool.release(slot);
            return Err(error.into());
        }
        Ok(slot)
    }

    /// What was admitted has its place; it may be a spare's until now.
    async fn free_slot(&self) -> Result<Slot, GuestError> {
        loop {
            self.make_way().await;
            let landed = self.spares.landed();
            match self.pool.acquire().await {
                Err(AcquireError::Exhausted(_)) if self.spares.are_coming() => landed.await,
                acquired => return Ok(acquired?),
            }
        }
    }

    /// The private memory of these guests, in bytes, of those that run.
    #[must_use]
    pub fn private_memory(&self, names: Vec<String>) -> BTreeMap<String, u64> {
        let measured = |name: String| engine::private_memory(&self.dir(&name)).map(|bytes| (name, bytes));
        names.into_iter().filter_map(measured).collect()
    }

    /// What the VMM of the guest of this name has taken; `None` where there is none.
    #[must_use]
    pub fn usage(&self, name: &str) -> Option<Usage> {
        self.cgroups.usage(&self.record(name).ok()??.slot)
    }

    /// What its connectors refused to the guest of this name since this was last asked; nothing where it has none. Blocks
    /// for a moment.
    #[must_use]
    pub fn refused(&self, name: &str) -> Option<Refused> {
        let slot = self.record(name).ok()??.slot;
        self.pool.refused(&slot).unwrap_or_else(|error| {
            tracing::warn!(name, %error, "cannot tell what network connectors refused");
            None
        })
    }

    /// Whether the kernel ended the guest in this slot for want of memory.
    pub(crate) fn ran_out_of_memory(&self, slot: &Slot) -> bool {
        self.cgroups.ran_out_of_memory(&slot.name)
    }

    /// Takes charge again of a guest that an earlier server started. `None` where it no longer runs. `egress` as with
    /// [`Host::boot`].
    ///
    /// # Errors
    /// [`GuestError`]; the guest is left as it is then.
    pub async fn adopt(
        self: &Arc<Self>,
        name: &str,
        egress: Option<Egress>,
    ) -> Result<Option<Guest>, GuestError> {
        let Some(record) = self.record(name)? else { return Ok(None) };
        let Some(machine) = self.engine.adopt(&self.dir(name)).await? else { return Ok(None) };
        let slot = self.pool.adopt(&record.slot)?;
        if let Some(egress) = egress {
            self.pool.bind(&slot, egress).await?;
        }
        // A server that stopped in the middle of a save left the vCPUs stopped.
        machine.cont().await?;
        Guest::establish(Arc::clone(self), name, slot, machine, Guest::RESTORE_TIME).await.map(Some)
    }

    /// Ends whatever runs under this name, and releases everything it had.
    pub async fn discard(&self, name: &str) {
        let record = match self.record(name) {
            Ok(Some(record)) => record,
            Ok(None) => return self.forget(name),
            Err(error) => {
                tracing::error!(name, %error, "a guest's record is of no use; ending its VMM by its pid");
                return self.end_unrecorded(name).await;
            }
        };
        let (cgroups, group) = (self.cgroups.clone(), record.slot.clone());
        let killed = tokio::task::spawn_blocking(move || cgroups.kill(&group)).await;
        if let Ok(Err(error)) = killed {
            tracing::error!(name, %error, "cannot end a left-over VMM");
        }
        self.release(name, &record.slot);
    }

    /// Ends a guest of which it is not known which slot it sits in: that one and its cgroup go with the next start.
    async fn end_unrecorded(&self, name: &str) {
        match self.engine.adopt(&self.dir(name)).await {
            Ok(Some(machine)) => end(&*machine).await,
            Ok(None) => {}
            Err(error) => tracing::error!(name, %error, "cannot end a left-over VMM; the next start does"),
        }
        self.forget(name);
    }

    /// Discards every guest but those named in `keep`, and the slots and cgroups that belong to none of them.
    ///
    /// # Errors
    /// [`GuestError`] where what is there cannot be listed.
    pub async fn reap(&self, keep: &BTreeSet<String>) -> Result<(), GuestError> {
        for name in self.names()?.difference(keep) {
            tracing::info!(name, "discarding a left-over guest");
            self.discard(name).await;
        }
        let records = keep.iter().filter_map(|name| self.record(name).ok().flatten());
        let slots: BTreeSet<String> = records.map(|record| record.slot).collect();
        self.cgroups.reap(&slots)?;
        if let Err(error) = self.pool.reap(slots).await {
            tracing::warn!(%error, "cannot remove left-over network slots; the next start tries again");
        }
        Ok(())
    }

    /// For the end of a server: discards every guest but those named in `keep`, and gives back what is only kept ready.
    /// Where no guest goes on, nothing of the server remains on this machine but its files.
    ///
    /// # Errors
    /// [`GuestError`].
    pub async fn close(&self, keep: &BTreeSet<String>) -> Result<(), GuestError> {
        self.reap(keep).await?;
        self.pool.close().await;
        if self.names()?.is_empty() {
            self.cgroups.close()?;
            match fs::remove_dir(self.dirs.run()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(GuestError::file("removing", self.dirs.run())(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// The guest's VMM ended, or never started: everything else goes too.
    pub(crate) fn release(&self, name: &str, slot: &str) {
        if let Err(error) = self.cgroups.remove(slot) {
            tracing::warn!(name, %error, "cannot remove a guest's cgroup; the next start tries again");
        }
        self.pool.release_named(slot);
        self.forget(name);
    }

    fn forget(&self, name: &str) {
        let dir = self.dir(name);
        match fs::remove_dir_all(&dir) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(dir = %dir.display(), %error, "cannot remove a guest's directory");
            }
            _ => {}
        }
    }

    /// Resolves names for the guest in this slot, as far as what the slot is bound to lets it.
    pub(crate) fn resolver(&self, slot: &Slot) -> Resolver {
        let resolver = self.pool.resolver(slot, Arc::clone(&self.upstreams));
        Arc::new(move |query| {
            let resolver = resolver.clone();
            Box::pin(async move { resolver.answer(&query).await })
        })
    }

    pub(crate) async fn greet(
        self: &Arc<Self>,
        name: &str,
        slot: Slot,
        started: Result<Box<dyn Machine>, GuestError>,
        seconds: u64,
    ) -> Result<Guest, GuestError> {
        match started {
            Ok(machine) => Guest::establish(Arc::clone(self), name, slot, machine, seconds).await,
            Err(error) => {
                self.release(name, &slot.name);
                Err(error)
            }
        }
    }

    /// Makes the guest's directory and cgroup, and says what to start.
    pub(crate) fn prepare(&self, name: &str, shape: Shape, slot: &Slot) -> Result<MachineSpec, GuestError> {
        let dir = self.dir(name);
        fs::create_dir_all(&dir).map_err(GuestError::file("creating", &dir))?;
        let record = dir.join(RECORD);
        serde_json::to_vec(&Record { slot: slot.name.clone() })
            .map_err(io::Error::from)
            .and_then(|json| fs::write(&record, json))
            .map_err(GuestError::file("writing", &record))?;
        let limits = Limits {
            memory_bytes: (u64::from(shape.memory_mib) << 20) + VMM_MEMORY,
            pids: u64::from(shape.vcpus) + VMM_THREADS,
            kept_bytes: (u64::from(shape.memory_mib) << 20) / PEAK,
            cpu_millis: Some(u64::from(shape.vcpus) * 1000 + VMM_CPU_MILLIS),
            weight_millis: u64::from(shape.vcpus) * 1000 / PEAK,
        };
        self.cgroups.create(&slot.name, &limits)?;
        self.spec(name, shape, slot)
    }

    /// What the engine is to start for a guest of this name in this slot.
    pub(crate) fn spec(&self, name: &str, shape: Shape, slot: &Slot) -> Result<MachineSpec, GuestError> {
        Ok(MachineSpec {
            name: name.to_owned(),
            run_dir: self.dir(name),
            memory_mib: shape.memory_mib,
            vcpus: shape.vcpus,
            kernel: shape.kernel,
            initramfs: shape.initramfs,
            cmdline: String::new(),
            disks: shape.disks,
            tap: Some(slot.tap.clone()),
            jail: Jail {
                netns: Some(slot.netns.clone()),
                cgroups: self.cgroups.group(&slot.name)?.dirs,
                uid: slot.uid,
                gid: slot.uid,
            },
        })
    }

    pub(crate) fn dir(&self, name: &str) -> PathBuf {
        self.dirs.run().join(name)
    }

    fn record(&self, name: &str) -> Result<Option<Record>, GuestError> {
        let path = self.dir(name).join(RECORD);
        match fs::read(&path) {
            Ok(text) => serde_json::from_slice(&text)
                .map(Some)
                .map_err(|error| GuestError::file("reading", &path)(error.into())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(GuestError::file("reading", &path)(error)),
        }
    }

    fn names(&self) -> Result<BTreeSet<String>, GuestError> {
        let list = match fs::read_dir(self.dirs.run()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
            list => list.map_err(GuestError::file("listing", self.dirs.run()))?,
        };
        let names = list.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.collect())
    }
}

/// Kills a machine and waits until it is gone.
pub(crate) async fn end(machine: &dyn Machine) {
    let ended = match machine.kill() {
        Ok(()) => machine.wait_exit().await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        tracing::error!(pid = machine.pid(), %error, "cannot end a VMM");
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn slots_know_the_hardware_address_that_guests_have() {
        assert_eq!(engine::GUEST_MAC, network::GUEST_MAC);
    }
}
