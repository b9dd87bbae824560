//! Network connectors and their versions, and who is bound to them.

use std::collections::BTreeMap;

use ids::{AccountId, ConnectorArn, ConnectorId, ConnectorVersion};
use lifecycle::connector::{Connector, ConnectorState, Fault};
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::tx::doc;
use crate::{MicrovmRecord, StoreError, Tx};

type Result<T> = std::result::Result<T, StoreError>;

/// A network connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectorRecord {
    /// Its ARN, which names account, region and id, and no version.
    pub arn: ConnectorArn,
    /// Its name, unique in its account and region.
    pub name: String,
    /// Where it stands.
    pub life: Connector,
    /// When it was created.
    pub created_at: u64,
    /// When it last changed.
    pub updated_at: u64,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
}

/// IP versions asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NetworkProtocol {
    /// IPv4 alone.
    Ipv4,
    /// IPv4 and IPv6.
    DualStack,
}

/// Who may use a connector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectorUser {
    /// MicroVMs.
    MicroVm,
    /// What does not exist here.
    WebFunction,
}

/// Whether each guest asks for a public address of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ElasticIp {
    /// It does not.
    None,
    /// It does.
    ServiceManaged,
}

/// A version's settings, as the client gave them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectorSettings {
    /// Subnets by their ids.
    pub subnets: Vec<String>,
    /// Security groups by their ids.
    pub security_groups: Vec<String>,
    /// IP versions.
    pub protocol: Option<NetworkProtocol>,
    /// Who it is for.
    pub user: Option<ConnectorUser>,
    /// Public addresses.
    pub elastic_ip: Option<ElasticIp>,
    /// The role of the connector itself.
    pub operator_role: Option<String>,
}

/// One version of a connector.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectorVersionRecord {
    /// Its ARN, with the version.
    pub arn: ConnectorArn,
    /// Its number, which the ARN has too.
    pub version: ConnectorVersion,
    /// Where it stands.
    pub state: ConnectorState,
    /// Why it failed.
    pub fault: Option<Fault>,
    /// What it consists of; never changed.
    pub settings: ConnectorSettings,
    /// When it was asked for.
    pub created_at: u64,
    /// When it last changed.
    pub updated_at: u64,
}

impl Tx<'_> {
    /// The connector with this id.
    ///
    /// # Errors
    /// [`StoreError`], as everywhere here.
    pub fn connector(&self, id: ConnectorId) -> Result<Option<ConnectorRecord>> {
        self.one("connector", "SELECT doc FROM connectors WHERE id = ?1", [id.to_string()])
    }

    /// The connector of `account` with this name.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn connector_named(
        &self,
        account: &AccountId,
        region: &str,
        name: &str,
    ) -> Result<Option<ConnectorRecord>> {
        const SQL: &str = "SELECT doc FROM connectors WHERE account = ?1 AND region = ?2 AND name = ?3";
        self.one("connector", SQL, params![account.to_string(), region, name])
    }

    /// Up to `limit` connectors of `account`, those in `state` where one is given, whose id comes after `after`, in the
    /// order of their ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn connectors(
        &self,
        account: &AccountId,
        region: &str,
        state: Option<ConnectorState>,
        after: &str,
        limit: usize,
    ) -> Result<Vec<ConnectorRecord>> {
        // Two statements, as each finds its page in an index of its own.
        const ALL: &str = "SELECT doc FROM connectors \
            WHERE account = ?1 AND region = ?2 AND id > ?3 ORDER BY id LIMIT ?4";
        const IN_STATE: &str = "SELECT doc FROM connectors \
            WHERE account = ?1 AND region = ?2 AND state = ?5 AND id > ?3 ORDER BY id LIMIT ?4";
        let account = account.to_string();
        match state {
            None => self.many("connector", ALL, params![account, region, after, limit]),
            Some(state) => {
                self.many("connector", IN_STATE, params![account, region, after, limit, state.as_str()])
            }
        }
    }

    /// Every connector, for the look around after a restart.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn all_connectors(&self) -> Result<Vec<ConnectorRecord>> {
        self.many("connector", "SELECT doc FROM connectors ORDER BY id", [])
    }

    /// How many connectors `account` has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_connectors(&self, account: &AccountId) -> Result<usize> {
        self.count("SELECT count(*) FROM connectors WHERE account = ?1", [account.to_string()])
    }

    /// Writes a connector.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_connector(&self, connector: &ConnectorRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO connectors (id, account, region, name, state, doc) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            params![
                connector.arn.id.to_string(),
                connector.arn.account.to_string(),
                connector.arn.region,
                connector.name,
                connector.life.state.as_str(),
                doc("connector", connector)?
            ],
        )
    }

    /// Removes a connector with its versions and the tokens that led to it: its name is free again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_connector(&self, arn: &ConnectorArn) -> Result<()> {
        let id = arn.id.to_string();
        self.run("DELETE FROM connector_versions WHERE connector = ?1", [&id])?;
        self.run("DELETE FROM tokens WHERE result = ?1", [arn.to_string()])?;
        self.run("DELETE FROM connectors WHERE id = ?1", [&id])
    }

    /// One version of a connector.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn connector_version(
        &self,
        id: ConnectorId,
        version: ConnectorVersion,
    ) -> Result<Option<ConnectorVersionRecord>> {
        const SQL: &str = "SELECT doc FROM connector_versions WHERE connector = ?1 AND version = ?2";
        self.one("connector version", SQL, params![id.to_string(), version.number()])
    }

    /// Up to `limit` versions of a connector, those in `state` where one is given, that are older than `before`, newest
    /// first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn connector_versions(
        &self,
        id: ConnectorId,
        state: Option<ConnectorState>,
        before: Option<ConnectorVersion>,
        limit: usize,
    ) -> Result<Vec<ConnectorVersionRecord>> {
        const SQL: &str = "SELECT doc FROM connector_versions \
            WHERE connector = ?1 AND version < ?2 AND (?3 IS NULL OR state = ?3) ORDER BY version DESC LIMIT ?4";
        // No version has a number beyond 32 bits.
        let before = before.map_or(i64::MAX, |version| version.number().into());
        let state = state.map(ConnectorState::as_str);
        self.many("connector version", SQL, params![id.to_string(), before, state, limit])
    }

    /// How many versions a connector has.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn count_connector_versions(&self, id: ConnectorId) -> Result<usize> {
        self.count("SELECT count(*) FROM connector_versions WHERE connector = ?1", [id.to_string()])
    }

    /// Writes a version of a connector.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_connector_version(&self, version: &ConnectorVersionRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO connector_versions (connector, version, state, doc) VALUES (?1, ?2, ?3, ?4)",
            params![
                version.arn.id.to_string(),
                version.version.number(),
                version.state.as_str(),
                doc("connector version", version)?
            ],
        )
    }

    /// Removes a version of a connector. Its number is not given again.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_connector_version(&self, id: ConnectorId, version: ConnectorVersion) -> Result<()> {
        const SQL: &str = "DELETE FROM connector_versions WHERE connector = ?1 AND version = ?2";
        self.run(SQL, params![id.to_string(), version.number()])
    }

    /// How many MicroVMs that are not terminated are bound to a connector, or to one version of it.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn live_microvms_bound_to(
        &self,
        id: ConnectorId,
        version: Option<ConnectorVersion>,
    ) -> Result<usize> {
        const SQL: &str = "SELECT count(DISTINCT microvm) FROM connector_uses \
            WHERE connector = ?1 AND (?2 IS NULL OR version = ?2)";
        self.count(SQL, params![id.to_string(), version.map(ConnectorVersion::number)])
    }

    /// Keeps count of what a MicroVM is bound to, which is nothing for most of them.
    pub(crate) fn note_uses(&self, microvm: &MicrovmRecord) -> Result<()> {
        let Some(binding) = &microvm.egress_binding else { return Ok(()) };
        let id = microvm.id.to_string();
        if microvm.life.terminated_at.is_some() {
            return self.run("DELETE FROM connector_uses WHERE microvm = ?1", [id]);
        }
        binding.connectors.iter().try_for_each(|arn| {
            self.run(
                "INSERT OR IGNORE INTO connector_uses (connector, version, microvm) VALUES (?1, ?2, ?3)",
                params![arn.id.to_string(), arn.version.map(ConnectorVersion::number), id],
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use ids::{EndpointId, ImageVersion, MicrovmId};
    use lifecycle::connector::FaultCode;
    use lifecycle::microvm::{Event, Microvm, Policy};

    use super::*;
    use crate::{EgressBinding, Store};

    const REGION: &str = "us-east-1";

    fn account() -> AccountId {
        "123456789012".parse().unwrap()
    }

    fn connector(name: &str) -> ConnectorRecord {
        let arn = ConnectorArn {
            region: REGION.into(),
            account: account(),
            id: ConnectorId::random(),
            version: None,
        };
        ConnectorRecord {
            arn,
            name: name.into(),
            life: Connector::default(),
            created_at: 1,
            updated_at: 1,
            tags: BTreeMap::new(),
        }
    }

    fn version(of: &ConnectorRecord, number: ConnectorVersion) -> ConnectorVersionRecord {
        ConnectorVersionRecord {
            arn: of.arn.of_version(number),
            version: number,
            state: ConnectorState::Pending,
            fault: None,
            settings: ConnectorSettings {
                subnets: vec!["subnet-1".into()],
                security_groups: vec![],
                protocol: Some(NetworkProtocol::Ipv4),
                user: Some(ConnectorUser::MicroVm),
                elastic_ip: None,
                operator_role: None,
            },
            created_at: 1,
            updated_at: 1,
        }
    }

    fn microvm(to: &[ConnectorArn]) -> MicrovmRecord {
        MicrovmRecord {
            id: MicrovmId::random(),
            endpoint: EndpointId::random(),
            account: account(),
            image: format!("arn:aws:lambda:{REGION}:123456789012:microvm-image:a").parse().unwrap(),
            version: ImageVersion::FIRST,
            execution_role_arn: None,
            memory_mib: 512,
            run_hook_payload: None,
            ingress_network_connectors: vec![],
            http_ingress: true,
            egress_network_connectors: vec![],
            egress_binding: Some(EgressBinding { internet: false, connectors: to.to_vec() }),
            logging: None,
            life: Microvm::new(Policy { maximum_duration_seconds: 60, idle: None }, 5),
        }
    }

    async fn with_store(test: impl FnOnce(&Tx<'_>) -> Result<()> + Send + 'static) {
        let dir = tempfile::tempdir().unwrap();
        Store::open(&dir.path().join("db")).unwrap().write(test).await.unwrap();
    }

    #[tokio::test]
    async fn connectors_are_found_by_id_name_and_state() {
        with_store(|tx| {
            let mut all: Vec<_> = ["a", "b", "c"].map(connector).into();
            all[1].life.checked(Ok(()));
            all.iter().try_for_each(|connector| tx.put_connector(connector))?;
            all.sort_by_key(|connector| connector.arn.id.to_string());
            assert_eq!(tx.connector(all[0].arn.id)?.as_ref(), Some(&all[0]));
            let name = all[2].name.clone();
            assert_eq!(tx.connector_named(&account(), REGION, &name)?.as_ref(), Some(&all[2]));
            assert_eq!(tx.connector_named(&"210987654321".parse().unwrap(), REGION, &name)?, None);
            assert_eq!((tx.count_connectors(&account())?, tx.all_connectors()?.len()), (3, 3));

            let first = tx.connectors(&account(), REGION, None, "", 2)?;
            let rest = tx.connectors(&account(), REGION, None, &first[1].arn.id.to_string(), 2)?;
            assert_eq!([first, rest].concat(), all);
            let active = tx.connectors(&account(), REGION, Some(ConnectorState::Active), "", 9)?;
            assert_eq!(active.iter().map(|connector| connector.name.as_str()).collect::<Vec<_>>(), ["b"]);
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn versions_are_listed_newest_first_and_go_with_their_connector() {
        with_store(|tx| {
            let connector = connector("a");
            let (id, first) = (connector.arn.id, ConnectorVersion::FIRST);
            tx.put_connector(&connector)?;
            for number in [first, first.next(), first.next().next()] {
                tx.put_connector_version(&version(&connector, number))?;
            }
            let failed = ConnectorVersionRecord {
                state: ConnectorState::Failed,
                fault: Some(Fault { code: FaultCode::InvalidSubnet, reason: "no".into() }),
                ..version(&connector, first.next())
            };
            tx.put_connector_version(&failed)?;
            let numbers = |found: Vec<ConnectorVersionRecord>| -> Vec<u32> {
                found.iter().map(|version| version.version.number()).collect()
            };
            assert_eq!(numbers(tx.connector_versions(id, None, None, 2)?), [3, 2]);
            assert_eq!(numbers(tx.connector_versions(id, None, Some(first.next()), 2)?), [1]);
            assert_eq!(tx.connector_versions(id, Some(ConnectorState::Failed), None, 9)?, [failed]);
            tx.delete_connector_version(id, first)?;
            assert_eq!((tx.connector_version(id, first)?, tx.count_connector_versions(id)?), (None, 2));
            tx.delete_connector(&connector.arn)?;
            assert_eq!((tx.connector(id)?, tx.count_connector_versions(id)?), (None, 0));
            Ok(())
        })
        .await;
    }

    #[tokio::test]
    async fn a_microvm_uses_what_it_is_bound_to_until_it_is_terminated() {
        with_store(|tx| {
            let (one, two) = (connector("a").arn, connector("b").arn);
            let first = ConnectorVersion::FIRST;
            let mut vm =
                microvm(&[one.of_version(first), one.of_version(first.next()), two.of_version(first)]);
            tx.put_microvm(&vm)?;
            tx.put_microvm(&vm)?;
            tx.put_microvm(&microvm(&[two.of_version(first)]))?;
            let uses = |arn: &ConnectorArn, version| tx.live_microvms_bound_to(arn.id, version);
            assert_eq!((uses(&one, None)?, uses(&one, Some(first))?, uses(&two, None)?), (1, 1, 2));
            assert_eq!(uses(&two, Some(first.next()))?, 0);
            vm.life.apply(&Event::TerminateRequested, 6).unwrap();
            vm.life.apply(&Event::Released, 7).unwrap();
            tx.put_microvm(&vm)?;
            assert_eq!((uses(&one, None)?, uses(&two, None)?), (0, 1));
            Ok(())
        })
        .await;
    }
}
