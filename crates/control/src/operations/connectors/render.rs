//! Connectors as clients give and see them.

use api::Error;
use api::connectors::*;
use ids::ConnectorVersion;
use lifecycle::connector::{ConnectorState, FaultCode, Update};
use store::{
    ConnectorRecord, ConnectorSettings, ConnectorUser, ConnectorVersionRecord, ElasticIp,
    NetworkProtocol as Protocol,
};

use crate::operations::render::iso_time;

/// What a version is made from.
pub(super) fn settings(
    configuration: NetworkConnectorConfiguration,
    operator_role: Option<String>,
) -> Result<ConnectorSettings, Error> {
    let NetworkConnectorConfiguration::VpcEgressConfiguration(vpc) = configuration;
    let subnets = vpc.subnet_ids.ok_or_else(|| {
        Error::validation(
            "VpcEgressConfiguration must have SubnetIds: the subnets that MicroVMs are let into",
        )
    })?;
    let users = vpc.associated_compute_resource_types.unwrap_or_default();
    Ok(ConnectorSettings {
        subnets,
        security_groups: vpc.security_group_ids.unwrap_or_default(),
        protocol: vpc.network_protocol.map(|protocol| match protocol {
            NetworkProtocol::IPv4 => Protocol::Ipv4,
            NetworkProtocol::DualStack => Protocol::DualStack,
        }),
        user: users.first().map(|user| match user {
            ComputeResourceType::MicroVm => ConnectorUser::MicroVm,
            ComputeResourceType::WebFunction => ConnectorUser::WebFunction,
        }),
        elastic_ip: vpc.elastic_ip_configuration.map(|elastic| match elastic.r#type {
            ElasticIpType::None => ElasticIp::None,
            ElasticIpType::ServiceManaged => ElasticIp::ServiceManaged,
        }),
        operator_role,
    })
}

fn configuration(settings: &ConnectorSettings) -> NetworkConnectorConfiguration {
    let elastic_ip = |elastic| ElasticIpConfiguration {
        r#type: match elastic {
            ElasticIp::None => ElasticIpType::None,
            ElasticIp::ServiceManaged => ElasticIpType::ServiceManaged,
        },
    };
    NetworkConnectorConfiguration::VpcEgressConfiguration(NetworkConnectorVpcEgressConfiguration {
        subnet_ids: Some(settings.subnets.clone()),
        security_group_ids: Some(settings.security_groups.clone()),
        network_protocol: settings.protocol.map(|protocol| match protocol {
            Protocol::Ipv4 => NetworkProtocol::IPv4,
            Protocol::DualStack => NetworkProtocol::DualStack,
        }),
        associated_compute_resource_types: settings.user.map(|user| match user {
            ConnectorUser::MicroVm => vec![ComputeResourceType::MicroVm],
            ConnectorUser::WebFunction => vec![ComputeResourceType::WebFunction],
        }),
        elastic_ip_configuration: settings.elastic_ip.map(elastic_ip),
    })
}

/// What is answered to whoever made or removed `version`: its state, which a new connector shares.
pub(super) fn changed(
    connector: &ConnectorRecord,
    version: &ConnectorVersionRecord,
) -> CreateNetworkConnectorResponse {
    CreateNetworkConnectorResponse {
        arn: connector.arn.to_string(),
        name: connector.name.clone(),
        id: connector.arn.id.to_string(),
        version_arn: Some(version.arn.to_string()),
        version: Some(number(version.version)),
        configuration: Some(configuration(&version.settings)),
        operator_role: version.settings.operator_role.clone(),
        state: Some(state(version.state)),
    }
}

/// What is answered to whoever removes the whole.
pub(super) fn deleting(
    connector: &ConnectorRecord,
    version: ConnectorVersionRecord,
) -> DeleteNetworkConnectorResponse {
    changed(connector, &ConnectorVersionRecord { state: connector.life.state, ..version })
}

/// What is answered to whoever asked for `version`, or for what was so already.
pub(super) fn updated(
    connector: &ConnectorRecord,
    version: &ConnectorVersionRecord,
) -> UpdateNetworkConnectorResponse {
    let status = match version.state {
        ConnectorState::Pending => NetworkConnectorLastUpdateStatus::InProgress,
        ConnectorState::Failed => NetworkConnectorLastUpdateStatus::Failed,
        _ => NetworkConnectorLastUpdateStatus::Successful,
    };
    UpdateNetworkConnectorResponse {
        arn: connector.arn.to_string(),
        name: connector.name.clone(),
        id: connector.arn.id.to_string(),
        version_arn: Some(version.arn.to_string()),
        version: Some(number(version.version)),
        operator_role: version.settings.operator_role.clone(),
        configuration: Some(configuration(&version.settings)),
        state: Some(state(connector.life.state)),
        last_update_status: Some(status),
        last_update_status_reason: version.fault.as_ref().map(|fault| fault.reason.clone()),
        last_modified: Some(iso_time(connector.updated_at)),
    }
}

/// A connector, with its version in force.
pub(super) fn connector(
    connector: &ConnectorRecord,
    version: ConnectorVersionRecord,
) -> GetNetworkConnectorResponse {
    let life = &connector.life;
    let (status, failed) = match &life.update {
        None => (None, None),
        Some(Update::InProgress(_)) => (Some(NetworkConnectorLastUpdateStatus::InProgress), None),
        Some(Update::Successful) => (Some(NetworkConnectorLastUpdateStatus::Successful), None),
        Some(Update::Failed(fault)) => (Some(NetworkConnectorLastUpdateStatus::Failed), Some(fault)),
    };
    let latest = was_in_force(&version).then_some(version.version);
    GetNetworkConnectorResponse {
        arn: connector.arn.to_string(),
        name: connector.name.clone(),
        id: connector.arn.id.to_string(),
        version_arn: None,
        version: Some(number(version.version)),
        latest_version_arn: latest.map(|latest| connector.arn.of_version(latest).to_string()),
        latest_version: latest.map(number),
        configuration: Some(configuration(&version.settings)),
        operator_role: version.settings.operator_role,
        state: Some(state(life.state)),
        state_reason: life.fault.as_ref().map(|fault| fault.reason.clone()),
        state_reason_code: life.fault.as_ref().map(|fault| state_code(fault.code)),
        last_update_status: status,
        last_update_status_reason: failed.map(|fault| fault.reason.clone()),
        last_update_status_reason_code: failed.map(|fault| update_code(fault.code)),
        last_modified: Some(iso_time(connector.updated_at)),
    }
}

/// One version of a connector.
pub(super) fn version(
    connector: &ConnectorRecord,
    version: ConnectorVersionRecord,
) -> GetNetworkConnectorResponse {
    GetNetworkConnectorResponse {
        arn: connector.arn.to_string(),
        name: connector.name.clone(),
        id: connector.arn.id.to_string(),
        version_arn: Some(version.arn.to_string()),
        version: Some(number(version.version)),
        latest_version_arn: None,
        latest_version: None,
        configuration: Some(configuration(&version.settings)),
        operator_role: version.settings.operator_role,
        state: Some(state(version.state)),
        state_reason: version.fault.as_ref().map(|fault| fault.reason.clone()),
        state_reason_code: version.fault.as_ref().map(|fault| state_code(fault.code)),
        last_update_status: None,
        last_update_status_reason: None,
        last_update_status_reason_code: None,
        last_modified: Some(iso_time(version.updated_at)),
    }
}

/// A connector in a listing.
pub(super) fn summary(connector: &ConnectorRecord) -> NetworkConnectorSummary {
    let latest = connector.life.current;
    NetworkConnectorSummary {
        arn: connector.arn.to_string(),
        name: connector.name.clone(),
        id: connector.arn.id.to_string(),
        r#type: NetworkConnectorType::VpcEgress,
        state: Some(state(connector.life.state)),
        last_modified: Some(iso_time(connector.updated_at)),
        latest_version_arn: Some(connector.arn.of_version(latest).to_string()),
        latest_version: Some(number(latest)),
    }
}

/// A version in a listing.
pub(super) fn version_summary(
    connector: &ConnectorRecord,
    version: ConnectorVersionRecord,
) -> NetworkConnectorVersionSummary {
    NetworkConnectorVersionSummary {
        arn: connector.arn.to_string(),
        version_arn: version.arn.to_string(),
        name: connector.name.clone(),
        id: connector.arn.id.to_string(),
        version: number(version.version),
        state: state(version.state),
        state_reason_code: version.fault.as_ref().map(|fault| state_code(fault.code)),
        state_reason: version.fault.map(|fault| fault.reason),
        last_modified: Some(iso_time(version.updated_at)),
    }
}

fn was_in_force(version: &ConnectorVersionRecord) -> bool {
    version.state == ConnectorState::Active
}

fn number(version: ConnectorVersion) -> i64 {
    version.number().into()
}

fn state(state: ConnectorState) -> NetworkConnectorState {
    match state {
        ConnectorState::Pending => NetworkConnectorState::Pending,
        ConnectorState::Active => NetworkConnectorState::Active,
        ConnectorState::Inactive => NetworkConnectorState::Inactive,
        ConnectorState::Failed => NetworkConnectorState::Failed,
        ConnectorState::Deleting => NetworkConnectorState::Deleting,
    }
}

/// The model has one list of codes twice.
macro_rules! code {
    ($function:ident, $codes:ident) => {
        fn $function(code: FaultCode) -> $codes {
            match code {
                FaultCode::InsufficientRolePermissions => $codes::InsufficientRolePermissions,
                FaultCode::InternetGatewayNotAttached => $codes::InternetGatewayNotAttached,
                FaultCode::InvalidSecurityGroup => $codes::InvalidSecurityGroup,
                FaultCode::InvalidSubnet => $codes::InvalidSubnet,
            }
        }
    };
}
code!(state_code, NetworkConnectorStateReasonCode);
code!(update_code, NetworkConnectorLastUpdateStatusReasonCode);
