//! Where what a build prints is kept (SPEC §3).

use ids::MicrovmId;
use logs::Destination;
use store::{BuildRecord, LogSettings, VersionRecord};

/// The VMs of a build: each has a stream of its own, unless one is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Container,
    Snapshot,
    Trial,
}

impl Step {
    const ALL: [Self; 3] = [Self::Container, Self::Snapshot, Self::Trial];

    /// Of the VM in the stream's name: what a repeated build prints goes to the same streams.
    fn microvm(self, build: &BuildRecord) -> MicrovmId {
        let step = match self {
            Self::Container => 0,
            Self::Snapshot => 1,
            Self::Trial => 2,
        };
        MicrovmId::from_u128(build.id.as_u128() ^ step)
    }
}

/// Where the output of a build goes, in the order of its steps; nowhere where logging is disabled.
#[must_use]
pub fn destinations(build: &BuildRecord, version: &VersionRecord) -> Vec<Destination> {
    let mut all: Vec<Destination> =
        Step::ALL.into_iter().filter_map(|step| destination(build, version, step)).collect();
    all.dedup();
    all
}

/// Where the output of one of its VMs goes.
pub(crate) fn destination(build: &BuildRecord, version: &VersionRecord, step: Step) -> Option<Destination> {
    let (group, stream) = match &version.logging {
        Some(LogSettings::Disabled) => return None,
        Some(LogSettings::CloudWatch { group, stream }) => (group.clone(), stream.clone()),
        None => (None, None),
    };
    let default = || logs::stream_name(build.created_at, build.version, step.microvm(build));
    Some(Destination {
        account: build.image.account.clone(),
        group: group.unwrap_or_else(|| logs::default_group(&build.image)),
        stream: stream.unwrap_or_else(default),
        source: build.id.as_u128(),
    })
}
