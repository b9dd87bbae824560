//! Checking connectors, and resolving what is bound to them.

use std::sync::Arc;
use std::time::Duration;

use api::ManagedConnector;
use iam::ServiceRoles;
use ids::{AccountId, ConnectorArn, ConnectorId};
use lifecycle::connector::{ConnectorState, Fault, FaultCode};
use network::Egress;
use network::egress::{Routes, Way};
use store::{
    ConnectorRecord, ConnectorSettings, ConnectorUser, ConnectorVersionRecord, EgressBinding, Store,
    StoreError, Tx, now_ms,
};

use crate::Networks;

/// Between two tries to write down what came of a check, which must not be lost to a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// Why a connector cannot be used now.
#[derive(Debug, thiserror::Error)]
pub enum ConnectorError {
    /// There is none of this ARN, or none of the account's.
    #[error("there is no network connector {0}")]
    Unknown(String),
    /// Not ready, not any more, or never.
    #[error("network connector {arn} is in state {state}: only an ACTIVE one can be used")]
    NotActive {
        /// Which.
        arn: String,
        /// Its state.
        state: &'static str,
    },
    /// It is associated with another kind of compute resource.
    #[error("network connector {0} is for WebFunction, not for MicroVm")]
    NotForMicrovms(String),
    /// The host no longer offers what it consists of.
    #[error("network connector {arn} cannot be used: {fault}")]
    Fault {
        /// Which.
        arn: String,
        /// Why.
        fault: Fault,
    },
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The connectors of every account on this host. Clones share the same.
#[derive(Debug, Clone)]
pub struct Connectors {
    store: Store,
    networks: Arc<Networks>,
    roles: Arc<dyn ServiceRoles>,
}

impl Connectors {
    /// Connectors to what `networks` offers, with operator roles that are assumed through `roles`.
    #[must_use]
    pub fn new(store: Store, networks: Networks, roles: Arc<dyn ServiceRoles>) -> Self {
        Self { store, networks: Arc::new(networks), roles }
    }

    /// Takes up what a restart interrupted, and checks every connector against what the host offers now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn recover(&self) -> Result<(), StoreError> {
        for connector in self.store.read::<_, StoreError>(|tx| tx.all_connectors())? {
            self.settle(connector.arn.id).await?;
        }
        Ok(())
    }

    /// Does for a connector what its record on the disk says is left to do. Returns at once.
    pub fn start(&self, id: ConnectorId) {
        let connectors = self.clone();
        tokio::spawn(async move {
            while let Err(error) = connectors.settle(id).await {
                tracing::error!(connector = %id, %error, "cannot settle a network connector, trying again");
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    async fn settle(&self, id: ConnectorId) -> Result<(), StoreError> {
        let connectors = self.clone();
        self.store.write(move |tx| connectors.settle_in(tx, id, now_ms())).await
    }

    fn settle_in(&self, tx: &Tx<'_>, id: ConnectorId, now: u64) -> Result<(), StoreError> {
        let Some(mut connector) = tx.connector(id)? else { return Ok(()) };
        if connector.life.state == ConnectorState::Deleting {
            return tx.delete_connector(&connector.arn);
        }
        let unchecked = connector.life.unchecked();
        let number = unchecked.unwrap_or(connector.life.current);
        let Some(mut version) = tx.connector_version(id, number)? else { return Ok(()) };
        let verdict = self.check(&connector, &version);
        let before = connector.life.clone();
        version.fault = verdict.clone().err();
        version.state = connector.life.checked(verdict);
        if connector.life == before {
            return Ok(());
        }
        connector.updated_at = now;
        version.updated_at = now;
        tx.put_connector(&connector)?;
        if unchecked.is_some() { tx.put_connector_version(&version) } else { Ok(()) }
    }

    fn check(&self, connector: &ConnectorRecord, version: &ConnectorVersionRecord) -> Result<(), Fault> {
        let (arn, settings) = (&connector.arn, &version.settings);
        self.networks.way(&arn.account, settings)?;
        let Some(role) = &settings.operator_role else { return Ok(()) };
        match self.roles.assume(role, &arn.account.to_string(), &arn.to_string()) {
            Ok(_) => Ok(()),
            Err(error) => Err(Fault {
                code: FaultCode::InsufficientRolePermissions,
                reason: format!("the operator role cannot be assumed: {error}"),
            }),
        }
    }

    /// What a guest with this binding may reach now.
    ///
    /// # Errors
    /// [`ConnectorError`] where the host no longer offers all of it.
    pub fn egress(&self, account: &AccountId, binding: &EgressBinding) -> Result<Egress, ConnectorError> {
        self.store.read(|tx| {
            let internet = binding.internet.then(|| Way { routes: Routes::internet(), allowed: None });
            let own = binding.connectors.iter().map(|arn| {
                let settings = settings(tx, arn)?;
                let fault = |fault| ConnectorError::Fault { arn: arn.to_string(), fault };
                self.networks.way(account, &settings).map_err(fault)
            });
            Ok(Egress {
                ways: internet.into_iter().map(Ok).chain(own).collect::<Result<_, ConnectorError>>()?,
            })
        })
    }

    /// The same for a guest that lives already, which reaches nothing where the host no longer offers all of it.
    #[must_use]
    pub fn egress_still(&self, account: &AccountId, binding: &EgressBinding) -> Egress {
        self.egress(account, binding).unwrap_or_else(|error| {
            tracing::warn!(%error, "a MicroVM reaches nothing from now on");
            Egress::default()
        })
    }

    /// What a build with these connectors may reach now. None: what the managed network has.
    ///
    /// # Errors
    /// [`ConnectorError`].
    pub fn egress_of(
        &self,
        region: &str,
        account: &AccountId,
        arns: &[String],
    ) -> Result<Option<Egress>, ConnectorError> {
        let binding = self.store.read(|tx| bind(tx, region, account, arns))?;
        binding.map(|binding| self.egress(account, &binding)).transpose()
    }
}

/// Fixes what the connectors with these ARNs are: the versions of an account's own, and whether a managed one leads to
/// the internet. None: that is all there is.
///
/// # Errors
/// [`ConnectorError`] for one that there is not, or that is not ACTIVE.
pub fn bind(
    tx: &Tx<'_>,
    region: &str,
    account: &AccountId,
    arns: &[String],
) -> Result<Option<EgressBinding>, ConnectorError> {
    let mut binding = EgressBinding { internet: false, connectors: vec![] };
    for text in arns {
        match text.parse::<ConnectorArn>() {
            Ok(arn) => binding.connectors.push(bind_one(tx, region, account, &arn)?),
            Err(_) => binding.internet |= leads_to_the_internet(text)?,
        }
    }
    let only_the_internet = binding.connectors.is_empty() && (binding.internet || arns.is_empty());
    Ok((!only_the_internet).then_some(binding))
}

fn leads_to_the_internet(managed: &str) -> Result<bool, ConnectorError> {
    match ManagedConnector::from_arn(managed) {
        Ok(ManagedConnector::InternetEgress) => Ok(true),
        Ok(ManagedConnector::NoEgress) => Ok(false),
        _ => Err(ConnectorError::Unknown(managed.to_owned())),
    }
}

fn bind_one(
    tx: &Tx<'_>,
    region: &str,
    account: &AccountId,
    arn: &ConnectorArn,
) -> Result<ConnectorArn, ConnectorError> {
    let unknown = || ConnectorError::Unknown(arn.to_string());
    if arn.account != *account || arn.region != region {
        return Err(unknown());
    }
    let connector = tx.connector(arn.id)?.ok_or_else(unknown)?;
    let bound = arn.of_version(arn.version.unwrap_or(connector.life.current));
    let version = tx.connector_version(arn.id, bound.version.unwrap_or(connector.life.current))?;
    let version = version.ok_or_else(unknown)?;
    for state in [connector.life.state, version.state] {
        if state != ConnectorState::Active {
            return Err(ConnectorError::NotActive { arn: arn.to_string(), state: state.as_str() });
        }
    }
    if version.settings.user == Some(ConnectorUser::WebFunction) {
        return Err(ConnectorError::NotForMicrovms(arn.to_string()));
    }
    Ok(bound)
}

fn settings(tx: &Tx<'_>, arn: &ConnectorArn) -> Result<ConnectorSettings, ConnectorError> {
    let unknown = || ConnectorError::Unknown(arn.to_string());
    let version = arn.version.ok_or_else(unknown)?;
    Ok(tx.connector_version(arn.id, version)?.ok_or_else(unknown)?.settings)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use iam::RoleSession;
    use ids::ConnectorVersion;
    use lifecycle::connector::{Connector, Update};

    use super::*;
    use crate::networks::tests::{OWNER, account, networks, settings};

    const REGION: &str = "us-east-1";
    const INTERNET: &str =
        "arn:aws:lambda:us-east-1:aws:network-connector:aws-network-connector:INTERNET_EGRESS";

    /// Lets one role in.
    #[derive(Debug)]
    struct Roles;

    #[derive(Debug)]
    struct Session;

    impl ServiceRoles for Roles {
        fn assume(&self, role: &str, _: &str, _: &str) -> Result<Arc<dyn RoleSession>, String> {
            if role == "trusting" { Ok(Arc::new(Session)) } else { Err("no trust".into()) }
        }
    }

    impl RoleSession for Session {
        fn may(&self, _: &str, _: &str) -> Result<(), String> {
            Ok(())
        }
    }

    struct Bed {
        dir: tempfile::TempDir,
        connectors: Connectors,
        arn: ConnectorArn,
    }

    impl Bed {
        fn open(dir: tempfile::TempDir, arn: ConnectorArn, networks: Networks) -> Self {
            let store = Store::open(&dir.path().join("db")).unwrap();
            Self { dir, connectors: Connectors::new(store, networks, Arc::new(Roles)), arn }
        }

        /// A connector that was only just accepted.
        async fn with(settings: ConnectorSettings) -> Self {
            let id = ConnectorId::random();
            let arn = ConnectorArn { region: REGION.into(), account: account(OWNER), id, version: None };
            let bed = Self::open(tempfile::tempdir().unwrap(), arn.clone(), networks());
            let connector = ConnectorRecord {
                arn,
                name: "a".into(),
                life: Connector::default(),
                created_at: 1,
                updated_at: 1,
                tags: BTreeMap::new(),
            };
            let version = bed.version(ConnectorVersion::FIRST, settings);
            let write = move |tx: &Tx<'_>| {
                tx.put_connector(&connector)?;
                tx.put_connector_version(&version)
            };
            bed.connectors.store.write::<_, StoreError>(write).await.unwrap();
            bed
        }

        fn version(&self, version: ConnectorVersion, settings: ConnectorSettings) -> ConnectorVersionRecord {
            ConnectorVersionRecord {
                arn: self.arn.of_version(version),
                version,
                state: ConnectorState::Pending,
                fault: None,
                settings,
                created_at: 1,
                updated_at: 1,
            }
        }

        /// A server that starts with these networks.
        async fn restart(self, networks: Networks) -> Self {
            let Self { dir, connectors, arn } = self;
            drop(connectors);
            let bed = Self::open(dir, arn, networks);
            bed.connectors.recover().await.unwrap();
            bed
        }

        async fn update(&self, settings: ConnectorSettings) {
            let mut connector = self.connector().unwrap();
            let version = self.version(connector.life.begin_update().unwrap(), settings);
            let write = move |tx: &Tx<'_>| {
                tx.put_connector(&connector)?;
                tx.put_connector_version(&version)
            };
            self.connectors.store.write::<_, StoreError>(write).await.unwrap();
            self.connectors.settle(self.arn.id).await.unwrap();
        }

        fn connector(&self) -> Option<ConnectorRecord> {
            self.connectors.store.read::<_, StoreError>(|tx| tx.connector(self.arn.id)).unwrap()
        }

        fn bind(&self, arns: &[&str]) -> Result<Option<EgressBinding>, ConnectorError> {
            let arns: Vec<String> = arns.iter().map(ToString::to_string).collect();
            self.connectors.store.read(|tx| bind(tx, REGION, &account(OWNER), &arns))
        }
    }

    #[tokio::test]
    async fn what_was_accepted_before_a_restart_is_checked_after_it() {
        let bed = Bed::with(settings(&["subnet-a"], &[])).await.restart(networks()).await;
        assert_eq!(bed.connector().unwrap().life.state, ConnectorState::Active);
        let mut leaving = bed.connector().unwrap();
        leaving.life.begin_delete(0).unwrap();
        bed.connectors.store.write::<_, StoreError>(move |tx| tx.put_connector(&leaving)).await.unwrap();
        let bed = bed.restart(networks()).await;
        assert_eq!(bed.connector(), None);
    }

    #[tokio::test]
    async fn only_what_passed_can_be_used() {
        let bed = Bed::with(settings(&["subnet-x"], &[])).await;
        let arn = bed.arn.to_string();
        for state in ["PENDING", "FAILED"] {
            let refused = bed.bind(&[&arn]).unwrap_err();
            assert!(
                matches!(&refused, ConnectorError::NotActive { state: at, .. } if *at == state),
                "{refused}"
            );
            bed.connectors.settle(bed.arn.id).await.unwrap();
        }
        assert_eq!(bed.connector().unwrap().life.fault.unwrap().code, FaultCode::InvalidSubnet);

        bed.update(settings(&["subnet-a"], &["sg-web"])).await;
        let second = bed.arn.of_version(ConnectorVersion::FIRST.next());
        let binding = bed.bind(&[INTERNET, &arn]).unwrap().unwrap();
        assert_eq!(binding, EgressBinding { internet: true, connectors: vec![second.clone()] });
        let egress = bed.connectors.egress(&account(OWNER), &binding).unwrap();
        let way = networks().way(&account(OWNER), &settings(&["subnet-a"], &["sg-web"])).unwrap();
        assert_eq!(egress.ways, [Way { routes: Routes::internet(), allowed: None }, way]);
        assert_eq!(bed.bind(&[INTERNET]).unwrap(), None);
        assert_eq!(bed.bind(&[]).unwrap(), None);

        // A binding stays with its version, whatever comes after.
        bed.update(settings(&["subnet-x"], &[])).await;
        assert!(matches!(bed.connector().unwrap().life.update, Some(Update::Failed(_))));
        bed.update(settings(&["subnet-b"], &[])).await;
        assert_eq!(bed.connectors.egress(&account(OWNER), &binding).unwrap(), egress);
        assert_eq!(bed.bind(&[&second.to_string()]).unwrap().unwrap().connectors, [second]);
        assert_ne!(bed.bind(&[&arn]).unwrap().unwrap().connectors, binding.connectors);
    }

    #[tokio::test]
    async fn no_egress_is_a_binding_to_nothing() {
        let bed = Bed::with(settings(&["subnet-a"], &[])).await;
        let none = INTERNET.replace("INTERNET_EGRESS", "NO_EGRESS");
        let binding = bed.bind(&[&none]).unwrap().unwrap();
        assert_eq!(binding, EgressBinding { internet: false, connectors: vec![] });
        assert_eq!(bed.connectors.egress(&account(OWNER), &binding).unwrap(), Egress::default());
        // What is not known never opens anything.
        let ingress = INTERNET.replace("INTERNET_EGRESS", "HTTP_INGRESS");
        assert!(matches!(bed.bind(&[&ingress]), Err(ConnectorError::Unknown(_))));
    }

    #[tokio::test]
    async fn nobody_uses_anothers_or_what_there_is_not() {
        let bed = Bed::with(settings(&["subnet-a"], &[])).await;
        bed.connectors.settle(bed.arn.id).await.unwrap();
        let other = ConnectorArn { account: account("210987654321"), ..bed.arn.clone() };
        let elsewhere = ConnectorArn { region: "eu-west-1".into(), ..bed.arn.clone() };
        let unknown = ConnectorArn { id: ConnectorId::random(), ..bed.arn.clone() };
        let later = bed.arn.of_version(ConnectorVersion::FIRST.next());
        for arn in [other, elsewhere, unknown, later] {
            assert!(matches!(bed.bind(&[&arn.to_string()]), Err(ConnectorError::Unknown(_))), "{arn}");
        }
        bed.update(ConnectorSettings {
            user: Some(ConnectorUser::WebFunction),
            ..settings(&["subnet-a"], &[])
        })
        .await;
        let refused = bed.bind(&[&bed.arn.to_string()]);
        assert!(matches!(refused, Err(ConnectorError::NotForMicrovms(_))));
    }

    #[tokio::test]
    async fn an_operator_role_must_be_assumed() {
        let with_role = |role: &str| ConnectorSettings {
            operator_role: Some(role.to_owned()),
            ..settings(&["subnet-a"], &[])
        };
        let bed = Bed::with(with_role("mistrustful")).await;
        bed.connectors.settle(bed.arn.id).await.unwrap();
        let fault = bed.connector().unwrap().life.fault.unwrap();
        assert_eq!(fault.code, FaultCode::InsufficientRolePermissions);
        bed.update(with_role("trusting")).await;
        assert_eq!(bed.connector().unwrap().life.state, ConnectorState::Active);
    }

    #[tokio::test]
    async fn what_the_operator_takes_away_is_out_of_use_until_it_is_back() {
        let bed = Bed::with(settings(&["subnet-a"], &[])).await.restart(networks()).await;
        let binding = bed.bind(&[&bed.arn.to_string()]).unwrap().unwrap();
        let bed = bed.restart(Networks::default()).await;
        assert_eq!(bed.connector().unwrap().life.state, ConnectorState::Inactive);
        let gone = bed.connectors.egress(&account(OWNER), &binding);
        assert!(matches!(gone, Err(ConnectorError::Fault { .. })));
        assert_eq!(bed.connectors.egress_still(&account(OWNER), &binding), Egress::default());
        let bed = bed.restart(networks()).await;
        assert_eq!(bed.connector().unwrap().life.state, ConnectorState::Active);
    }
}
