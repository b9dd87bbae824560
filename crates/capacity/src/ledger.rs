//! The accounting: what is left by the last measurement, less what was promised since and is not used yet.
//!
//! Memory is overcommitted on purpose. A clone shares its image's pages with all others and keeps a few dozen MiB of its
//! own, while its class would let it have 2 to 32 GiB: reserving that much would leave most of the host unused. So a
//! guest is admitted at what clones of its image have been measured to cost, with head-room, and counted at what it
//! really costs once that is more. What it may still grow by is bounded by its cgroup, and what all of them grow by is
//! met by the reserve and by those who act on [`Ledger::is_in_need`].
//!
//! Every clone that runs may have to be suspended, which writes at most its private memory: so much disk is kept free.

use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;

/// Bytes that a clone of an image is taken to cost before any was measured.
pub(crate) const FIRST_ESTIMATE: u64 = 64 * MIB;
/// What a VMM has beside its guest's memory: its heap and translated code.
pub(crate) const VMM: u64 = 32 * MIB;

/// What a server may use of its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Guests at once.
    pub slots: usize,
    /// Thousandths of a processor that the baselines of all MicroVMs together may have; `None`: however many, and where
    /// processors are short each has its share.
    pub cpu_millis: Option<u64>,
    /// Bytes of memory that all guests together may have; `None`: what the host has.
    pub memory: Option<u64>,
    /// Bytes of memory that are left to the rest of the host, and to the page cache that clones share.
    pub memory_reserve: u64,
    /// Bytes of disk that are left free.
    pub disk_reserve: u64,
    /// Bytes of memory that a build takes at most.
    pub build_memory: u64,
    /// Bytes of disk that a build takes at most, while it is under way and with what it leaves.
    pub build_disk: u64,
}

impl Default for Limits {
    /// None at all, for hosts that are not there.
    fn default() -> Self {
        Self {
            slots: usize::MAX,
            cpu_millis: None,
            memory: None,
            memory_reserve: 0,
            disk_reserve: 0,
            build_memory: 0,
            build_disk: 0,
        }
    }
}

/// What kind of guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A MicroVM.
    Clone,
    /// A clone that no MicroVM has yet: it goes as soon as its place is needed.
    Spare,
    /// The VMs of a build, one after the other.
    Build,
}

/// A guest that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    /// Its name, by which it is measured.
    pub guest: String,
    /// Its kind.
    pub kind: Kind,
    /// What it is a clone of: clones of one image cost alike.
    pub image: String,
    /// Bytes of guest memory that it is known to have of its own from the start.
    pub at_least: u64,
    /// The baseline that it is promised, in thousandths of a processor; spares and builds are promised none.
    pub cpu_millis: u64,
}

/// What the host has left, in bytes; `None` where it does not tell, which must not stop everything.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Measured {
    /// Memory that can be had without swapping.
    pub memory: Option<u64>,
    /// Disk below the data directory.
    pub disk: Option<u64>,
}

/// What there is not enough of. The text is for clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shortage {
    /// Guests at once.
    #[error("The host has all of its {limit} network slots in use; terminate or suspend MicroVMs")]
    Slots {
        /// How many there are.
        limit: usize,
    },
    /// Processors.
    #[error(
        "The host has {}.{:03} CPUs to promise MicroVMs and this needs {}.{:03}; terminate or suspend MicroVMs",
        left / 1000,
        left % 1000,
        wanted / 1000,
        wanted % 1000
    )]
    Cpu {
        /// Thousandths left.
        left: u64,
        /// Thousandths wanted.
        wanted: u64,
    },
    /// Memory.
    #[error(
        "The host has {} MiB of memory to give and this needs {} MiB; terminate or suspend MicroVMs",
        left / MIB,
        wanted / MIB
    )]
    Memory {
        /// Bytes left.
        left: u64,
        /// Bytes wanted.
        wanted: u64,
    },
    /// Disk.
    #[error(
        "The host has {} MiB of disk to give beyond what suspensions of its MicroVMs may need, and this needs {} MiB; \
         terminate MicroVMs or delete images and objects",
        left / MIB,
        wanted / MIB
    )]
    Disk {
        /// Bytes left.
        left: u64,
        /// Bytes wanted.
        wanted: u64,
    },
}

/// A reservation; never used twice.
pub(crate) type Id = u64;

#[derive(Debug)]
struct Claim {
    guest: String,
    kind: Kind,
    image: String,
    /// Thousandths of a processor promised.
    cpu_millis: u64,
    /// Bytes of memory promised.
    expected: u64,
    /// Bytes of memory seen at the last measurement.
    measured: u64,
}

impl Claim {
    fn cost(&self) -> u64 {
        self.expected.max(self.measured)
    }

    /// What was promised and is still counted among what the host has left.
    fn outstanding(&self) -> u64 {
        self.expected.saturating_sub(self.measured)
    }
}

/// What a want comes to.
#[derive(Debug, Clone, Copy)]
struct Need {
    cpu_millis: u64,
    memory: u64,
    disk: u64,
}

#[derive(Debug)]
pub(crate) struct Ledger {
    limits: Limits,
    measured: Measured,
    claims: BTreeMap<Id, Claim>,
    /// Mean cost of an image's clones when they were last measured.
    seen: BTreeMap<String, u64>,
    next: Id,
}

impl Ledger {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            measured: Measured::default(),
            claims: BTreeMap::new(),
            seen: BTreeMap::new(),
            next: 0,
        }
    }

    /// Reserves where there is room. Spares take nothing from anybody, and leave a place free beside their own.
    pub(crate) fn admit(&mut self, want: Want) -> Result<Id, Shortage> {
        let need = self.need(&want);
        match want.kind {
            Kind::Clone | Kind::Build => self.check(need, 1, |claim| claim.kind != Kind::Spare)?,
            Kind::Spare => {
                let doubled = Need { memory: need.memory * 2, disk: need.disk * 2, ..need };
                self.check(doubled, 2, |_| true)?;
            }
        }
        Ok(self.enter(want))
    }

    /// Reserves whether or not there is room.
    pub(crate) fn enter(&mut self, want: Want) -> Id {
        let expected = self.need(&want).memory;
        let id = self.next;
        self.next += 1;
        let Want { guest, kind, image, cpu_millis, .. } = want;
        self.claims.insert(id, Claim { guest, kind, image, cpu_millis, expected, measured: 0 });
        id
    }

    pub(crate) fn release(&mut self, id: Id) {
        self.claims.remove(&id);
    }

    pub(crate) fn has_room_for_a_build(&self) -> Result<(), Shortage> {
        self.check(self.build(), 1, |claim| claim.kind == Kind::Clone)
    }

    pub(crate) fn observe(&mut self, measured: Measured, guests: &BTreeMap<String, u64>) {
        self.measured = measured;
        let mut costs: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
        for claim in self.claims.values_mut() {
            claim.measured = guests.get(&claim.guest).copied().unwrap_or(0);
            if claim.measured > 0 && claim.kind == Kind::Clone {
                costs.entry(&claim.image).or_default().push(claim.measured);
            }
        }
        for (image, costs) in costs {
            let mean = costs.iter().sum::<u64>() / costs.len() as u64;
            self.seen.insert(image.to_owned(), mean);
        }
    }

    pub(crate) fn guests(&self) -> Vec<String> {
        self.claims.values().map(|claim| claim.guest.clone()).collect()
    }

    /// Whether spares have to go.
    pub(crate) fn is_crowded(&self) -> bool {
        self.is_in_need() || self.check(Need { cpu_millis: 0, memory: 0, disk: 0 }, 0, |_| true).is_err()
    }

    /// Whether what is measured, promises aside, is below the reserve.
    pub(crate) fn is_in_need(&self) -> bool {
        self.measured.memory.is_some_and(|left| left < self.limits.memory_reserve)
    }

    fn need(&self, want: &Want) -> Need {
        if want.kind == Kind::Build {
            return self.build();
        }
        let estimate = self.seen.get(&want.image).map_or(FIRST_ESTIMATE, |seen| seen + seen / 4);
        let known = if want.at_least > 0 { want.at_least + VMM } else { 0 };
        let memory = estimate.max(known);
        Need { cpu_millis: want.cpu_millis, memory, disk: memory }
    }

    fn build(&self) -> Need {
        Need { cpu_millis: 0, memory: self.limits.build_memory, disk: self.limits.build_disk }
    }

    /// Whether there is room for `need` and `slots` beside the claims that `counts` picks.
    fn check(&self, need: Need, slots: usize, counts: impl Fn(&Claim) -> bool) -> Result<(), Shortage> {
        let limit = self.limits.slots;
        if self.claims.values().filter(|claim| counts(claim)).count() + slots > limit {
            return Err(Shortage::Slots { limit });
        }
        let left = self.cpu_left(&counts);
        if need.cpu_millis > left {
            return Err(Shortage::Cpu { left, wanted: need.cpu_millis });
        }
        let left = self.memory_left(&counts);
        if need.memory > left {
            return Err(Shortage::Memory { left, wanted: need.memory });
        }
        let left = self.disk_left(&counts);
        if need.disk > left {
            return Err(Shortage::Disk { left, wanted: need.disk });
        }
        Ok(())
    }

    fn cpu_left(&self, counts: impl Fn(&Claim) -> bool) -> u64 {
        let promised: u64 =
            self.claims.values().filter(|claim| counts(claim)).map(|claim| claim.cpu_millis).sum();
        self.limits.cpu_millis.map_or(u64::MAX, |all| all.saturating_sub(promised))
    }

    fn memory_left(&self, counts: impl Fn(&Claim) -> bool) -> u64 {
        let mut outstanding = self.limits.memory_reserve;
        let (mut given, mut returning) = (0, 0);
        for claim in self.claims.values() {
            if counts(claim) {
                outstanding += claim.outstanding();
                given += claim.cost();
            } else {
                // It is measured as used, and would be there again.
                returning += claim.measured;
            }
        }
        let of_host =
            self.measured.memory.map_or(u64::MAX, |left| (left + returning).saturating_sub(outstanding));
        let of_budget = self.limits.memory.map_or(u64::MAX, |budget| budget.saturating_sub(given));
        of_host.min(of_budget)
    }

    fn disk_left(&self, counts: impl Fn(&Claim) -> bool) -> u64 {
        let promised: u64 =
            self.claims.values().filter(|claim| counts(claim)).map(|claim| self.disk(claim)).sum();
        let promised = promised + self.limits.disk_reserve;
        self.measured.disk.map_or(u64::MAX, |free| free.saturating_sub(promised))
    }

    fn disk(&self, claim: &Claim) -> u64 {
        match claim.kind {
            Kind::Clone => claim.cost(),
            // Nobody saves it.
            Kind::Spare => 0,
            Kind::Build => self.limits.build_disk,
        }
    }
}

#[cfg(test)]
mod tests;
