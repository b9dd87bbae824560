//! A network connector and its versions (SPEC §7).
//!
//! A version's settings never change. Every version is checked once it is there: the connector becomes usable with its
//! first, and moves on to a later one only where that one passes; otherwise the one before it stays in force.

use ids::ConnectorVersion;
use serde::{Deserialize, Serialize};

/// The state of a connector, or of a version of it. One that is gone has no record any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ConnectorState {
    /// Its settings have not been checked yet.
    Pending,
    /// It can be used.
    Active,
    /// It could be used, until the host's own settings changed.
    Inactive,
    /// It cannot be used.
    Failed,
    /// It is being removed.
    Deleting,
}

impl ConnectorState {
    /// The name that clients know.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
            Self::Failed => "FAILED",
            Self::Deleting => "DELETING",
        }
    }
}

/// What kind of fault it is, of those that this host can find.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum FaultCode {
    /// The operator role cannot be assumed.
    InsufficientRolePermissions,
    /// There is no way to the internet of the kind asked for.
    InternetGatewayNotAttached,
    /// No such security group, or not for this account.
    InvalidSecurityGroup,
    /// No such subnet, or not for this account, or not with this protocol.
    InvalidSubnet,
}

/// Why settings cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}")]
pub struct Fault {
    /// For programs.
    pub code: FaultCode,
    /// For people.
    pub reason: String,
}

/// How the last update stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Update {
    /// This version's settings have not been checked yet.
    InProgress(ConnectorVersion),
    /// The version is in force.
    Successful,
    /// The version before it stays in force.
    Failed(Fault),
}

/// A change that a connector's state does not allow now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectorRefused {
    /// Something is under way.
    #[error("the network connector is in state {0}; wait for it to settle and ask again")]
    Busy(&'static str),
    /// An update is under way.
    #[error("an update of the network connector is in progress; wait for it to end and ask again")]
    Updating,
    /// MicroVMs that are not terminated use it.
    #[error("{0} MicroVMs use the network connector; terminate them first")]
    InUse(usize),
    /// A connector without its latest version is none.
    #[error("the latest version of a network connector cannot be deleted; delete the connector instead")]
    Latest,
}

/// The lifecycle part of a connector's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connector {
    /// What clients see.
    pub state: ConnectorState,
    /// Why it is Failed or Inactive.
    pub fault: Option<Fault>,
    /// The version in force; the first where there has not been one yet.
    pub current: ConnectorVersion,
    /// The highest number given to a version; numbers are not given twice.
    pub last: ConnectorVersion,
    /// The last update, if there has been one.
    pub update: Option<Update>,
}

impl Default for Connector {
    /// One that CreateNetworkConnector accepted.
    fn default() -> Self {
        let (current, last) = (ConnectorVersion::FIRST, ConnectorVersion::FIRST);
        Self { state: ConnectorState::Pending, fault: None, current, last, update: None }
    }
}

impl Connector {
    /// The version whose settings are to be checked now, if there is one.
    #[must_use]
    pub fn unchecked(&self) -> Option<ConnectorVersion> {
        match (self.state, &self.update) {
            (ConnectorState::Deleting, _) => None,
            (ConnectorState::Pending, _) => Some(self.current),
            (_, Some(Update::InProgress(version))) => Some(*version),
            _ => None,
        }
    }

    /// Takes the outcome of checking [`Connector::unchecked`]; without one, of checking the version in force again.
    /// Returns the state of the version that was checked.
    pub fn checked(&mut self, verdict: Result<(), Fault>) -> ConnectorState {
        let updated = match self.update {
            Some(Update::InProgress(version)) if self.state != ConnectorState::Deleting => Some(version),
            _ => None,
        };
        match (updated, verdict) {
            (Some(version), Ok(())) => {
                self.current = version;
                self.update = Some(Update::Successful);
                self.settle(ConnectorState::Active, None)
            }
            (Some(_), Err(fault)) => {
                self.update = Some(Update::Failed(fault));
                ConnectorState::Failed
            }
            (None, verdict) => self.reconsider(verdict),
        }
    }

    fn reconsider(&mut self, verdict: Result<(), Fault>) -> ConnectorState {
        use ConnectorState::{Active, Deleting, Failed, Inactive, Pending};
        match (self.state, verdict) {
            (Pending | Active | Inactive, Ok(())) => self.settle(Active, None),
            (Pending, Err(fault)) => self.settle(Failed, Some(fault)),
            (Active | Inactive, Err(fault)) => self.settle(Inactive, Some(fault)),
            // What failed stays so until it is updated, and what is going goes.
            (state @ (Failed | Deleting), _) => state,
        }
    }

    fn settle(&mut self, state: ConnectorState, fault: Option<Fault>) -> ConnectorState {
        self.state = state;
        self.fault = fault;
        state
    }

    /// Accepts an UpdateNetworkConnector. Returns the number of the version that it makes.
    ///
    /// # Errors
    /// [`ConnectorRefused`] while something is under way.
    pub fn begin_update(&mut self) -> Result<ConnectorVersion, ConnectorRefused> {
        self.settled()?;
        self.last = self.last.next();
        self.update = Some(Update::InProgress(self.last));
        Ok(self.last)
    }

    /// Accepts a DeleteNetworkConnector of the whole. Returns whether the deletion begins with this: deleting again what
    /// is being deleted is success. `live_microvms`: those bound to any of its versions.
    ///
    /// # Errors
    /// [`ConnectorRefused`].
    pub fn begin_delete(&mut self, live_microvms: usize) -> Result<bool, ConnectorRefused> {
        if self.state == ConnectorState::Deleting {
            return Ok(false);
        }
        self.settled()?;
        unused(live_microvms)?;
        self.state = ConnectorState::Deleting;
        Ok(true)
    }

    /// Accepts a DeleteNetworkConnector of one version. `live_microvms`: those bound to it.
    ///
    /// # Errors
    /// [`ConnectorRefused`].
    pub fn delete_version(
        &self,
        version: ConnectorVersion,
        live_microvms: usize,
    ) -> Result<(), ConnectorRefused> {
        self.settled()?;
        if version == self.current {
            return Err(ConnectorRefused::Latest);
        }
        unused(live_microvms)
    }

    fn settled(&self) -> Result<(), ConnectorRefused> {
        if matches!(self.state, ConnectorState::Pending | ConnectorState::Deleting) {
            return Err(ConnectorRefused::Busy(self.state.as_str()));
        }
        match self.update {
            Some(Update::InProgress(_)) => Err(ConnectorRefused::Updating),
            _ => Ok(()),
        }
    }
}

fn unused(live_microvms: usize) -> Result<(), ConnectorRefused> {
    if live_microvms > 0 { Err(ConnectorRefused::InUse(live_microvms)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fault() -> Fault {
        Fault { code: FaultCode::InvalidSubnet, reason: "no such subnet".into() }
    }

    fn active() -> Connector {
        let mut connector = Connector::default();
        assert_eq!(connector.checked(Ok(())), ConnectorState::Active);
        connector
    }

    #[test]
    fn a_connector_is_used_once_its_settings_passed() {
        let mut connector = Connector::default();
        assert_eq!(connector.unchecked(), Some(ConnectorVersion::FIRST));
        assert_eq!(connector.begin_update(), Err(ConnectorRefused::Busy("PENDING")));
        assert_eq!(connector.begin_delete(0), Err(ConnectorRefused::Busy("PENDING")));
        assert_eq!(connector.checked(Err(fault())), ConnectorState::Failed);
        assert_eq!((connector.fault.clone(), connector.unchecked()), (Some(fault()), None));
        // Only an update helps.
        assert_eq!(connector.checked(Ok(())), ConnectorState::Failed);
        let second = connector.begin_update().unwrap();
        assert_eq!(connector.unchecked(), Some(second));
        assert_eq!(connector.checked(Ok(())), ConnectorState::Active);
        assert_eq!((connector.current, connector.fault), (second, None));
    }

    #[test]
    fn a_failed_update_leaves_the_old_version_in_force() {
        let mut connector = active();
        let second = connector.begin_update().unwrap();
        assert_eq!(connector.begin_update(), Err(ConnectorRefused::Updating));
        assert_eq!(connector.begin_delete(0), Err(ConnectorRefused::Updating));
        assert_eq!(connector.checked(Err(fault())), ConnectorState::Failed);
        assert_eq!((connector.state, connector.current), (ConnectorState::Active, ConnectorVersion::FIRST));
        assert_eq!(connector.update, Some(Update::Failed(fault())));
        assert_eq!(connector.begin_update(), Ok(second.next()), "numbers are not given twice");
    }

    #[test]
    fn what_the_host_no_longer_has_is_out_of_use_until_it_is_back() {
        let mut connector = active();
        assert_eq!(connector.checked(Err(fault())), ConnectorState::Inactive);
        assert_eq!(connector.checked(Ok(())), ConnectorState::Active);
        assert_eq!(connector.fault, None);
    }

    #[test]
    fn what_is_in_use_or_in_force_stays() {
        let mut connector = active();
        assert_eq!(connector.begin_delete(2), Err(ConnectorRefused::InUse(2)));
        assert_eq!(connector.delete_version(ConnectorVersion::FIRST, 0), Err(ConnectorRefused::Latest));
        connector.begin_update().unwrap();
        connector.checked(Ok(()));
        assert_eq!(connector.delete_version(ConnectorVersion::FIRST, 1), Err(ConnectorRefused::InUse(1)));
        assert_eq!(connector.delete_version(ConnectorVersion::FIRST, 0), Ok(()));
        assert_eq!(connector.begin_delete(0), Ok(true));
        assert_eq!(connector.begin_delete(0), Ok(false));
        assert_eq!(connector.checked(Ok(())), ConnectorState::Deleting);
    }

    proptest! {
        #[test]
        fn whatever_happens_one_version_is_in_force_and_none_is_given_twice(steps in prop::collection::vec(0..4, 0..40)) {
            let mut connector = Connector::default();
            for step in steps {
                let before = connector.clone();
                match step {
                    0 => { connector.checked(Ok(())); }
                    1 => { connector.checked(Err(fault())); }
                    2 => {
                        if let Ok(version) = connector.begin_update() {
                            prop_assert!(version > before.last);
                        } else {
                            prop_assert_eq!(&connector, &before);
                        }
                    }
                    _ => if connector.begin_delete(0).is_err() {
                        prop_assert_eq!(&connector, &before);
                    }
                }
                prop_assert!(connector.current >= before.current && connector.current <= connector.last);
                prop_assert!(connector.state != ConnectorState::Active || connector.fault.is_none());
                if before.state == ConnectorState::Deleting {
                    prop_assert_eq!(connector.state, ConnectorState::Deleting);
                }
            }
        }
    }
}
