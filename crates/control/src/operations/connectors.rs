//! Network connectors: making, changing, showing and deleting them (SPEC §7).

mod render;

use api::connectors::*;
use api::{Error, ErrorKind, Request};
use connectors::ConnectorError;
use ids::{AccountId, ConnectorArn, ConnectorId, ConnectorVersion};
use lifecycle::connector::{Connector, ConnectorRefused, ConnectorState};
use node::now_ms;
use store::{ConnectorRecord, ConnectorSettings, ConnectorVersionRecord, EgressBinding, Tx};

use super::failure::Failure;
use super::idempotency::Claim;
use super::pages::Listing;
use super::{Operations, retention};

/// Versions of one connector.
const MAX_VERSIONS: usize = 100;
/// Longest pages, as the model has them; longer ones may be asked for.
const MAX_CONNECTORS_SHOWN: i64 = 50;
const MAX_VERSIONS_SHOWN: i64 = 100;
const MAX_NAME_CHARS: usize = 64;

/// Where the connectors of a caller are.
#[derive(Debug, Clone)]
struct Place {
    region: String,
    account: AccountId,
}

impl Operations {
    pub(super) async fn create_connector(
        &self,
        account: AccountId,
        request: CreateNetworkConnectorRequest,
    ) -> Result<CreateNetworkConnectorResponse, Failure> {
        let claim = Claim::of(&account, &request)?;
        check_name(&request.name)?;
        let settings = render::settings(request.configuration, request.operator_role)?;
        let place = self.place(account);
        let (quota, now) = (self.settings.quotas.network_connectors, now_ms());
        let write = move |tx: &Tx<'_>| {
            retention::tidy(tx, now)?;
            if let Some(earlier) = claim.earlier(tx, now)?
                && let Some((connector, version)) = made_before(tx, &earlier.result)?
            {
                return Ok((render::changed(&connector, &version), None));
            }
            if tx.connector_named(&place.account, &place.region, &request.name)?.is_some() {
                let message = format!("A network connector with the name '{}' already exists", request.name);
                return Err(Error::conflict("NetworkConnector", request.name, message).into());
            }
            if tx.count_connectors(&place.account)? >= quota {
                let message = format!("The account has the maximum number of network connectors, {quota}");
                return Err(Error::new(ErrorKind::ServiceQuotaExceeded, message).into());
            }
            let Place { region, account } = place;
            let arn = ConnectorArn { region, account, id: ConnectorId::random(), version: None };
            let version = new_version(&arn, ConnectorVersion::FIRST, settings, now);
            let connector = ConnectorRecord {
                arn,
                name: request.name,
                life: Connector::default(),
                created_at: now,
                updated_at: now,
                tags: request.tags.unwrap_or_default(),
            };
            tx.put_connector(&connector)?;
            tx.put_connector_version(&version)?;
            claim.remember(tx, version.arn.to_string(), None, now)?;
            Ok((render::changed(&connector, &version), Some(connector.arn.id)))
        };
        self.change(write).await
    }

    pub(super) async fn get_connector(
        &self,
        account: AccountId,
        request: GetNetworkConnectorRequest,
    ) -> Result<GetNetworkConnectorResponse, Failure> {
        let place = self.place(account);
        self.store.read(|tx| {
            let (connector, number) = place.find(tx, &request.identifier)?;
            let shown = number.unwrap_or(connector.life.current);
            let version = known_version(tx, &connector, shown)?;
            Ok(match number {
                None => render::connector(&connector, version),
                Some(_) => render::version(&connector, version),
            })
        })
    }

    pub(super) async fn list_connectors(
        &self,
        account: AccountId,
        request: ListNetworkConnectorsRequest,
    ) -> Result<ListNetworkConnectorsResponse, Failure> {
        let place = self.place(account);
        let filter = request.state.map_or("", NetworkConnectorState::as_str);
        let scope = [ListNetworkConnectorsRequest::OPERATION.name(), &place.account.to_string(), filter];
        let listing =
            self.marked(&scope, request.max_items, MAX_CONNECTORS_SHOWN, request.marker.as_deref())?;
        let Some(state) = filtered(request.state) else {
            return Ok(ListNetworkConnectorsResponse { network_connectors: vec![], next_marker: None });
        };
        self.store.read(|tx| {
            let after = listing.after().unwrap_or_default();
            let found = tx.connectors(&place.account, &place.region, state, after, listing.wanted())?;
            let (page, next_marker) = listing.page(found, |connector| connector.arn.id.to_string());
            let network_connectors = page.iter().map(render::summary).collect();
            Ok(ListNetworkConnectorsResponse { network_connectors, next_marker })
        })
    }

    pub(super) async fn list_connector_versions(
        &self,
        account: AccountId,
        request: ListNetworkConnectorVersionsRequest,
    ) -> Result<ListNetworkConnectorVersionsResponse, Failure> {
        let place = self.place(account);
        let filter = request.state.map_or("", NetworkConnectorState::as_str);
        self.store.read(|tx| {
            let connector = place.find_whole(tx, &request.identifier)?;
            let id = connector.arn.id;
            let scope = [ListNetworkConnectorVersionsRequest::OPERATION.name(), &id.to_string(), filter];
            let listing =
                self.marked(&scope, request.max_items, MAX_VERSIONS_SHOWN, request.marker.as_deref())?;
            // Signed by us, so it is a version.
            let before = listing.after().and_then(|text| text.parse().ok());
            let found = match filtered(request.state) {
                Some(state) => tx.connector_versions(id, state, before, listing.wanted())?,
                None => vec![],
            };
            let (page, next_marker) = listing.page(found, |version| version.version.to_string());
            let shown = page.into_iter().map(|version| render::version_summary(&connector, version));
            Ok(ListNetworkConnectorVersionsResponse {
                network_connector_versions: shown.collect(),
                next_marker,
            })
        })
    }

    pub(super) async fn update_connector(
        &self,
        account: AccountId,
        request: UpdateNetworkConnectorRequest,
    ) -> Result<UpdateNetworkConnectorResponse, Failure> {
        let claim = Claim::of(&account, &request)?;
        let (place, now) = (self.place(account), now_ms());
        let write = move |tx: &Tx<'_>| {
            retention::tidy(tx, now)?;
            let mut connector = place.find_whole(tx, &request.identifier)?;
            if let Some(earlier) = claim.earlier(tx, now)?
                && let Some((connector, version)) = made_before(tx, &earlier.result)?
            {
                return Ok((render::updated(&connector, &version), None));
            }
            let current = known_version(tx, &connector, connector.life.current)?;
            let settings = match request.configuration {
                Some(configuration) => {
                    let role = request.operator_role.or_else(|| current.settings.operator_role.clone());
                    render::settings(configuration, role)?
                }
                None => ConnectorSettings {
                    operator_role: request.operator_role.or_else(|| current.settings.operator_role.clone()),
                    ..current.settings.clone()
                },
            };
            let in_force = current.state == ConnectorState::Active;
            if in_force && settings == current.settings && connector.life.unchecked().is_none() {
                claim.remember(tx, current.arn.to_string(), None, now)?;
                return Ok((render::updated(&connector, &current), None));
            }
            let arn = connector.arn.clone();
            let number = connector.life.begin_update().map_err(|error| refused(&arn, &error))?;
            if tx.count_connector_versions(arn.id)? >= MAX_VERSIONS {
                let message = format!(
                    "Network connector {arn} has the maximum number of versions, {MAX_VERSIONS}; delete one"
                );
                return Err(Error::new(ErrorKind::ServiceQuotaExceeded, message).into());
            }
            connector.updated_at = now;
            let version = new_version(&arn, number, settings, now);
            tx.put_connector(&connector)?;
            tx.put_connector_version(&version)?;
            claim.remember(tx, version.arn.to_string(), None, now)?;
            Ok((render::updated(&connector, &version), Some(arn.id)))
        };
        self.change(write).await
    }

    pub(super) async fn delete_connector(
        &self,
        account: AccountId,
        request: DeleteNetworkConnectorRequest,
    ) -> Result<DeleteNetworkConnectorResponse, Failure> {
        let (place, now) = (self.place(account), now_ms());
        let write = move |tx: &Tx<'_>| {
            let (connector, number) = place.find(tx, &request.identifier)?;
            match number {
                None => delete_whole(tx, connector, now),
                Some(number) => delete_version(tx, &connector, number).map(|answer| (answer, None)),
            }
        };
        self.change(write).await
    }

    fn place(&self, account: AccountId) -> Place {
        Place { region: self.settings.region.clone(), account }
    }

    /// Writes, and has done what the connector's record says afterwards.
    async fn change<T: Send + 'static>(
        &self,
        write: impl FnOnce(&Tx<'_>) -> Result<(T, Option<ConnectorId>), Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (answer, changed) = self.store.write(write).await?;
        if let Some(id) = changed {
            self.connectors.start(id);
        }
        Ok(answer)
    }

    fn marked(
        &self,
        scope: &[&str],
        max_items: Option<i64>,
        most: i64,
        marker: Option<&str>,
    ) -> Result<Listing, Error> {
        let shown = max_items.unwrap_or(most).min(most);
        self.listing(scope, Some(shown), marker)
            .map_err(|error| Error { message: error.message.replace("nextToken", "Marker"), ..error })
    }
}

impl Place {
    /// The connector that an id, name or ARN names, and the version that the ARN names besides.
    fn find(
        &self,
        tx: &Tx<'_>,
        identifier: &str,
    ) -> Result<(ConnectorRecord, Option<ConnectorVersion>), Failure> {
        let (found, version) = if let Ok(arn) = identifier.parse::<ConnectorArn>() {
            (tx.connector(arn.id)?, arn.version)
        } else if let Ok(id) = identifier.parse() {
            (tx.connector(id)?, None)
        } else {
            (tx.connector_named(&self.account, &self.region, identifier)?, None)
        };
        let own = found.filter(|found| found.arn.account == self.account && found.arn.region == self.region);
        Ok((own.ok_or_else(|| unknown(identifier))?, version))
    }

    /// The same where a version makes no sense.
    fn find_whole(&self, tx: &Tx<'_>, identifier: &str) -> Result<ConnectorRecord, Failure> {
        match self.find(tx, identifier)? {
            (connector, None) => Ok(connector),
            (_, Some(_)) => {
                let message = "Identifier must not name a version here: give the connector's id, name or ARN";
                Err(Error::validation(message).into())
            }
        }
    }
}

/// What the connectors with these ARNs are for a MicroVM that is run now, or for an image that is built with them: only
/// ACTIVE ones may be used. None: the internet, and nothing but it.
pub(super) fn resolve_egress(
    tx: &Tx<'_>,
    region: &str,
    account: &AccountId,
    arns: &[String],
) -> Result<Option<EgressBinding>, Failure> {
    ::connectors::bind(tx, region, account, arns).map_err(|error| {
        let message = error.to_string();
        match error {
            ConnectorError::Store(error) => error.into(),
            ConnectorError::Unknown(arn) => Error::not_found("NetworkConnector", arn, message).into(),
            ConnectorError::NotForMicrovms(_) => Error::validation(message).into(),
            ConnectorError::NotActive { arn, .. } | ConnectorError::Fault { arn, .. } => {
                Error::conflict("NetworkConnector", arn, message).into()
            }
        }
    })
}

fn delete_whole(
    tx: &Tx<'_>,
    mut connector: ConnectorRecord,
    now: u64,
) -> Result<(DeleteNetworkConnectorResponse, Option<ConnectorId>), Failure> {
    let live = tx.live_microvms_bound_to(connector.arn.id, None)?;
    let begun = connector.life.begin_delete(live).map_err(|error| refused(&connector.arn, &error))?;
    let version = known_version(tx, &connector, connector.life.current)?;
    let answer = render::deleting(&connector, version);
    if !begun {
        return Ok((answer, None));
    }
    connector.updated_at = now;
    tx.put_connector(&connector)?;
    Ok((answer, Some(connector.arn.id)))
}

/// A version leaves nothing but its record, so it is gone at once.
fn delete_version(
    tx: &Tx<'_>,
    connector: &ConnectorRecord,
    number: ConnectorVersion,
) -> Result<DeleteNetworkConnectorResponse, Failure> {
    let version = known_version(tx, connector, number)?;
    let live = tx.live_microvms_bound_to(connector.arn.id, Some(number))?;
    connector.life.delete_version(number, live).map_err(|error| refused(&version.arn, &error))?;
    tx.delete_connector_version(connector.arn.id, number)?;
    Ok(render::changed(connector, &ConnectorVersionRecord { state: ConnectorState::Deleting, ..version }))
}

/// What a token made before. None where it is gone: then the token is free.
fn made_before(
    tx: &Tx<'_>,
    result: &str,
) -> Result<Option<(ConnectorRecord, ConnectorVersionRecord)>, Failure> {
    let Ok(ConnectorArn { id, version: Some(version), .. }) = result.parse() else { return Ok(None) };
    Ok(tx.connector(id)?.zip(tx.connector_version(id, version)?))
}

fn known_version(
    tx: &Tx<'_>,
    connector: &ConnectorRecord,
    number: ConnectorVersion,
) -> Result<ConnectorVersionRecord, Failure> {
    let unknown = || unknown(&connector.arn.of_version(number).to_string());
    Ok(tx.connector_version(connector.arn.id, number)?.ok_or_else(unknown)?)
}

fn new_version(
    arn: &ConnectorArn,
    version: ConnectorVersion,
    settings: ConnectorSettings,
    now: u64,
) -> ConnectorVersionRecord {
    ConnectorVersionRecord {
        arn: arn.of_version(version),
        version,
        state: ConnectorState::Pending,
        fault: None,
        settings,
        created_at: now,
        updated_at: now,
    }
}

/// The model lets ARNs pass for names, which could be mistaken for another's.
fn check_name(name: &str) -> Result<(), Error> {
    let legal = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if (1..=MAX_NAME_CHARS).contains(&name.len()) && name.bytes().all(legal) {
        return Ok(());
    }
    Err(Error::validation("Name must be 1 to 64 letters, digits, hyphens and underscores"))
}

/// The state to look for; the inner None: any. The outer None: one that no connector of this host is ever in.
fn filtered(state: Option<NetworkConnectorState>) -> Option<Option<ConnectorState>> {
    Some(match state {
        None => None,
        Some(NetworkConnectorState::Pending) => Some(ConnectorState::Pending),
        Some(NetworkConnectorState::Active) => Some(ConnectorState::Active),
        Some(NetworkConnectorState::Inactive) => Some(ConnectorState::Inactive),
        Some(NetworkConnectorState::Failed) => Some(ConnectorState::Failed),
        Some(NetworkConnectorState::Deleting) => Some(ConnectorState::Deleting),
        Some(NetworkConnectorState::DeleteFailed) => return None,
    })
}

fn unknown(identifier: &str) -> Error {
    Error::not_found("NetworkConnector", identifier, format!("Network connector not found: {identifier}"))
}

fn refused(arn: &ConnectorArn, error: &ConnectorRefused) -> Error {
    let message = error.to_string();
    let message = message.replacen("the network connector", &format!("network connector {arn}"), 1);
    Error::conflict("NetworkConnector", arn.to_string(), message)
}
