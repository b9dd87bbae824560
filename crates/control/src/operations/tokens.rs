//! Endpoint tokens (SPEC §5.2).

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use api::rules::AUTH_TOKEN_KEY;
use api::*;
use auth::token::{MAX_TOKEN_CHARS, Ports, Scope};
use ids::{AccountId, MicrovmId};
use lifecycle::microvm::{Refused, State};
use node::now_ms;
use store::MicrovmRecord;

use super::Operations;
use super::failure::Failure;
use super::microvms::refused;

impl Operations {
    /// A token may be had before it is of use: for a MicroVM that starts or sleeps, for a port that nobody
    /// listens on. Only for one that has ended it never will be.
    pub(super) async fn create_auth_token(
        &self,
        account: AccountId,
        request: CreateMicrovmAuthTokenRequest,
    ) -> Result<CreateMicrovmAuthTokenResponse, Failure> {
        let record = self.lasting_microvm(&account, request.microvm_id()?)?;
        self.token(&record, ports(&request.allowed_ports), request.expiration_in_minutes)
    }

    /// A token for the shell alone (SPEC §6), where the MicroVM was run with a way in to it.
    pub(super) async fn create_shell_auth_token(
        &self,
        account: AccountId,
        request: CreateMicrovmShellAuthTokenRequest,
    ) -> Result<CreateMicrovmShellAuthTokenResponse, Failure> {
        let record = self.lasting_microvm(&account, request.microvm_id()?)?;
        admits_shell(&record.ingress_network_connectors)?;
        self.token(&record, Ports::Shell, request.expiration_in_minutes)
    }

    /// The account's MicroVM, unless it is over.
    fn lasting_microvm(&self, account: &AccountId, id: MicrovmId) -> Result<Arc<MicrovmRecord>, Failure> {
        let record = self.known_microvm(account, id)?;
        let state = record.life.state;
        if matches!(state, State::Terminating | State::Terminated) {
            return Err(refused(record.id, &Refused { state }).into());
        }
        Ok(record)
    }

    fn token(
        &self,
        record: &MicrovmRecord,
        ports: Ports,
        minutes: i64,
    ) -> Result<CreateMicrovmAuthTokenResponse, Failure> {
        let life = u64::try_from(minutes).unwrap_or_default() * 60;
        let scope = Scope { microvm: record.id, ports, expires_at: now_ms() / 1000 + life };
        let token = self.settings.tokens.seal(&scope);
        if token.len() > MAX_TOKEN_CHARS {
            let message = "allowedPorts names more ranges than a token can hold; join them, or use allPorts";
            return Err(Error::validation(message).into());
        }
        Ok(answer(token))
    }
}

/// Whether a MicroVM with these ingress connectors has a shell.
fn admits_shell(ingress: &[String]) -> Result<(), Error> {
    let has = |wanted| ingress.iter().any(|arn| ManagedConnector::from_arn(arn) == Ok(wanted));
    if has(ManagedConnector::AllIngress) && ingress.len() > 1 {
        return Err(Error::validation(
            "ALL_INGRESS cannot be combined with other ingress network connectors; use HTTP_INGRESS and/or \
             SHELL_INGRESS instead",
        ));
    }
    if has(ManagedConnector::ShellIngress) {
        return Ok(());
    }
    Err(Error::validation(
        "Shell access requires SHELL_INGRESS network connector to be configured on the MicroVM.",
    ))
}

/// One header, which clients send as it is.
pub(crate) fn answer(token: String) -> CreateMicrovmAuthTokenResponse {
    CreateMicrovmAuthTokenResponse {
        auth_token: BTreeMap::from([(AUTH_TOKEN_KEY.to_owned(), Sensitive(token))]),
    }
}

fn ports(allowed: &[PortSpecification]) -> Ports {
    if allowed.iter().any(|ports| matches!(ports, PortSpecification::AllPorts(_))) {
        return Ports::All;
    }
    Ports::Ranges(allowed.iter().filter_map(range).collect())
}

/// None where a bound is no port, which validation has refused already.
fn range(allowed: &PortSpecification) -> Option<RangeInclusive<u16>> {
    let (from, to) = match allowed {
        PortSpecification::Port(port) => (*port, *port),
        PortSpecification::Range(range) => (range.start_port, range.end_port),
        PortSpecification::AllPorts(_) => return Some(1..=u16::MAX),
    };
    Some(u16::try_from(from).ok()?..=u16::try_from(to).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_what_was_asked_for_and_no_more() {
        let some = ports(&[
            PortSpecification::Port(80),
            PortSpecification::Range(PortRange { start_port: 8000, end_port: 8080 }),
        ]);
        assert!(some.allows(80) && some.allows(8000) && some.allows(8080));
        assert!(!some.allows(81) && !some.allows(8081));
        let all = [PortSpecification::Port(80), PortSpecification::AllPorts(Empty {})];
        assert_eq!(ports(&all), Ports::All);
    }
}
