//! MicroVMs: launching, showing, suspending, resuming and ending them.

use std::sync::Arc;

use api::rules::MAX_DURATION_SECONDS;
use api::*;
use capacity::Reservation;
use ids::{AccountId, EndpointId, ImageArn, ImageVersion, MicrovmId};
use lifecycle::microvm::{self as rules, Event, Refused, State};
use node::{NodeError, now_ms};
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde_json::value::RawValue;
use store::{EgressBinding, MicrovmRecord, Tx, VersionRecord};
use timeline::Step;

use super::connectors::resolve_egress;
use super::failure::Failure;
use super::idempotency::Claim;
use super::images::known_image;
use super::{Operations, config, render, retention};

/// The port that an endpoint's name does not have to tell.
const HTTPS_PORT: u16 = 443;
/// AWS's code of the quota on the memory of what runs (SPEC §9).
const MEMORY_QUOTA: &str = "L-CD1C0CC4";

impl Operations {
    pub(super) async fn run(
        &self,
        account: AccountId,
        request: RunMicrovmRequest,
    ) -> Result<GetMicrovmResponse, Failure> {
        let claim = Claim::of(&account, &request)?;
        let arn = request.image_arn()?;
        let wanted = request.version()?;
        let http = ManagedConnector::HttpIngress.arn(&self.settings.region);
        let region = &self.settings.region;
        let ingress = config::connectors(region, request.ingress_network_connectors.clone(), vec![http])?;
        let egress = config::connectors(region, request.egress_network_connectors.clone(), vec![])?;
        let (quota, now) = (self.settings.quotas.memory_mib, now_ms());
        let capacity = self.capacity.clone();
        let launch = move |tx: &Tx<'_>| -> Result<(MicrovmRecord, Option<Reservation>), Failure> {
            retention::tidy(tx, now)?;
            if let Some(earlier) = made_before(tx, &claim, now)? {
                return Ok((earlier, None));
            }
            let version = runnable(tx, &arn, wanted)?;
            if request.run_hook_payload.is_some() && version.hooks.run.is_none() {
                return Err(Error::run_hook_needed().into());
            }
            if tx.live_memory_mib(&account)? + version.minimum_memory_mib as usize > quota {
                let message = format!(
                    "The account's running and suspended MicroVMs would have more than the {quota} MiB of memory \
                     allowed; terminate some first"
                );
                return Err(Error::quota(MEMORY_QUOTA, message).into());
            }
            let egress = if egress.is_empty() { version.egress_network_connectors.clone() } else { egress };
            let binding = resolve_egress(tx, &arn.region, &account, &egress)?;
            let record = record(account, version, request, Networks { ingress, egress, binding }, now);
            let place = capacity.reserve(node::want(&record, 0));
            let place = place.map_err(|shortage| Error::capacity(shortage.to_string()))?;
            tx.put_microvm(&record)?;
            claim.remember(tx, record.id.to_string(), None, now)?;
            Ok((record, Some(place)))
        };
        timeline::reached(Step::Validation);
        let (record, place) = self.store.write(launch).await?;
        timeline::reached(Step::Store);
        if let Some(place) = place {
            self.node.launch(record.clone(), place);
        }
        Ok(self.shown(&record))
    }

    pub(super) async fn get(
        &self,
        account: AccountId,
        request: GetMicrovmRequest,
    ) -> Result<GetMicrovmResponse, Failure> {
        let record = self.known_microvm(&account, request.microvm_id()?)?;
        Ok(self.shown(&record))
    }

    pub(super) async fn list(
        &self,
        account: AccountId,
        request: ListMicrovmsRequest,
    ) -> Result<MicrovmPage, Failure> {
        let (image, version) = (request.image_arn()?, request.version()?);
        let text = |shown: Option<String>| shown.unwrap_or_default();
        let scope = [
            ListMicrovmsRequest::OPERATION.name(),
            &account.to_string(),
            &text(image.as_ref().map(ToString::to_string)),
            &text(version.as_ref().map(ToString::to_string)),
        ];
        let listing = self.listing(&scope, request.max_results, request.next_token.as_deref())?;
        let after = listing.after().unwrap_or_default();
        let found = self.store.read_again::<_, Failure>(&listing.key(&scope), |tx| {
            let found = match (&image, version) {
                (Some(image), version) => {
                    known_image(tx, image)?;
                    tx.microvms_of(image, version, after, listing.wanted())?
                }
                (None, None) => tx.microvms(&account, after, listing.wanted())?,
                (None, Some(_)) => {
                    let message = "imageVersion selects within an image: give its imageIdentifier too";
                    return Err(Error::validation(message).into());
                }
            };
            let (page, last) = listing.cut(found, |microvm| microvm.id.to_string());
            Ok(MicrovmItems { json: render::items(page.iter().map(render::microvm_item))?, last })
        })?;
        let next_token = found.last.as_deref().map(|last| listing.sign(last));
        Ok(MicrovmPage { items: found, next_token })
    }

    pub(super) async fn suspend(
        &self,
        account: AccountId,
        request: SuspendMicrovmRequest,
    ) -> Result<Empty, Failure> {
        self.ask(&account, request.microvm_id()?, Event::SuspendRequested).await
    }

    pub(super) async fn resume(
        &self,
        account: AccountId,
        request: ResumeMicrovmRequest,
    ) -> Result<Empty, Failure> {
        self.ask(&account, request.microvm_id()?, Event::ResumeRequested).await
    }

    pub(super) async fn terminate(
        &self,
        account: AccountId,
        request: TerminateMicrovmRequest,
    ) -> Result<Empty, Failure> {
        self.ask(&account, request.microvm_id()?, Event::TerminateRequested).await
    }

    /// The account's MicroVM; another's is as unknown as none.
    pub(super) fn known_microvm(
        &self,
        account: &AccountId,
        id: MicrovmId,
    ) -> Result<Arc<MicrovmRecord>, Failure> {
        let owned = self.store.microvm(id)?.filter(|record| record.account == *account);
        owned.ok_or_else(|| Error::unknown_microvm(&id.to_string()).into())
    }

    async fn ask(&self, account: &AccountId, id: MicrovmId, event: Event) -> Result<Empty, Failure> {
        self.known_microvm(account, id)?;
        match self.node.ask(id, event.clone()).await {
            Ok(()) => Ok(Empty {}),
            Err(NodeError::Refused(error)) => Err(refused(id, &error).into()),
            Err(NodeError::Store(error)) => Err(error.into()),
            Err(NodeError::Full(shortage)) => Err(Error::no_room_to_resume(shortage.to_string()).into()),
            Err(NodeError::Unknown(_)) => {
                // Nobody owns it: it has ended meanwhile, or its owner is only about to begin.
                let mut life = self.known_microvm(account, id)?.life.clone();
                if life.state != State::Terminated {
                    return Err(refused(id, &Refused { state: life.state }).into());
                }
                life.apply(&event, now_ms()).map_err(|error| refused(id, &error))?;
                Ok(Empty {})
            }
        }
    }

    fn shown(&self, record: &MicrovmRecord) -> GetMicrovmResponse {
        let host = self.settings.hosts.host(record.endpoint);
        let endpoint = match self.settings.endpoint_port {
            HTTPS_PORT => host,
            port => format!("{host}:{port}"),
        };
        render::microvm(record, endpoint)
    }
}

/// A page of MicroVMs, rendered: it is what is asked for most, and by whoever waits for one of them, often.
struct MicrovmItems {
    json: Box<RawValue>,
    /// Key of the last, where another page follows.
    last: Option<String>,
}

/// A [`ListMicrovmsResponse`].
pub(super) struct MicrovmPage {
    items: Arc<MicrovmItems>,
    next_token: Option<String>,
}

impl Serialize for MicrovmPage {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut page = to.serialize_struct("ListMicrovmsResponse", 2)?;
        page.serialize_field("items", &self.items.json)?;
        if let Some(token) = &self.next_token {
            page.serialize_field("nextToken", token)?;
        }
        page.end()
    }
}

/// A state that does not allow what was asked.
pub(super) fn refused(id: MicrovmId, error: &Refused) -> Error {
    Error::conflict("Microvm", id.to_string(), error.to_string())
}

/// What the claim's token launched before, as it is now.
fn made_before(tx: &Tx<'_>, claim: &Claim, now: u64) -> Result<Option<MicrovmRecord>, Failure> {
    let earlier = claim.earlier(tx, now)?;
    let id: Option<MicrovmId> = earlier.and_then(|earlier| earlier.result.parse().ok());
    Ok(id.map_or(Ok(None), |id| tx.microvm(id))?)
}

/// The version to launch: SUCCESSFUL, ACTIVE, and the newest such where none is named.
fn runnable(tx: &Tx<'_>, arn: &ImageArn, wanted: Option<ImageVersion>) -> Result<VersionRecord, Failure> {
    let image = tx.image(arn)?.filter(|image| image.state.can_run());
    let found = match (image, wanted) {
        (None, _) => None,
        (Some(_), None) => tx.latest_runnable_version(arn)?,
        (Some(_), Some(number)) => tx.version(arn, number)?.filter(VersionRecord::is_runnable),
    };
    found.ok_or_else(|| {
        let wanted = wanted.map(|number| number.to_string());
        Error::no_active_version(&arn.to_string(), wanted.as_deref()).into()
    })
}

/// The connectors of a MicroVM.
struct Networks {
    ingress: Vec<String>,
    egress: Vec<String>,
    binding: Option<EgressBinding>,
}

fn record(
    account: AccountId,
    version: VersionRecord,
    request: RunMicrovmRequest,
    networks: Networks,
    now: u64,
) -> MicrovmRecord {
    let admits_http = |arn: &String| ManagedConnector::from_arn(arn).is_ok_and(ManagedConnector::admits_http);
    MicrovmRecord {
        id: MicrovmId::random(),
        endpoint: EndpointId::random(),
        account,
        image: version.image,
        version: version.version,
        memory_mib: version.minimum_memory_mib,
        execution_role_arn: request.execution_role_arn,
        run_hook_payload: request.run_hook_payload.map(|payload| payload.0),
        http_ingress: networks.ingress.iter().any(admits_http),
        ingress_network_connectors: networks.ingress,
        egress_network_connectors: networks.egress,
        egress_binding: networks.binding,
        logging: request.logging.map(config::logging),
        life: rules::Microvm::new(
            policy(request.maximum_duration_in_seconds, request.idle_policy.as_ref()),
            now,
        ),
    }
}

fn policy(maximum_duration: Option<i64>, idle: Option<&IdlePolicy>) -> rules::Policy {
    rules::Policy {
        maximum_duration_seconds: seconds(maximum_duration.unwrap_or(MAX_DURATION_SECONDS)),
        idle: idle.map(|idle| rules::IdlePolicy {
            max_idle_duration_seconds: seconds(idle.max_idle_duration_seconds),
            suspended_duration_seconds: seconds(idle.suspended_duration_seconds),
            auto_resume_enabled: idle.auto_resume_enabled,
        }),
    }
}

/// Validated to be no less than nothing; what is beyond 136 years is forever.
fn seconds(value: i64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}
