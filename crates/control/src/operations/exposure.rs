//! Rekindle's own operations: ports of endpoints that need no token, and host names of the operator's own. AWS has neither.

use api::endpoints::*;
use api::identifiers::microvm_or_image;
use api::*;
use ids::{AccountId, MicrovmOrImage};
use lifecycle::image::ImageState;
use lifecycle::microvm::{Refused, State};
use node::now_ms;
use store::{DomainRecord, PublicPortsRecord, Tx};

use super::failure::Failure;
use super::images::known_image;
use super::microvms::refused;
use super::{Operations, render};

/// Most domains of an account.
const MAX_DOMAINS: usize = 100;
const DOMAINS_QUOTA: &str = "domains";

/// The names that accounts may have lead to their MicroVMs, as the operator says: each itself, or `*.NAME` for those with
/// one label before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DomainNames(Vec<String>);

impl DomainNames {
    /// Those of these patterns, in lower case.
    #[must_use]
    pub fn new(patterns: Vec<String>) -> Self {
        Self(patterns)
    }

    /// Whether a name, in lower case, is one of them.
    #[must_use]
    pub fn allow(&self, name: &str) -> bool {
        let parent = name.split_once('.').map(|(_, parent)| parent);
        self.0.iter().any(|pattern| match pattern.strip_prefix("*.") {
            Some(suffix) => parent == Some(suffix),
            None => name == pattern,
        })
    }
}

impl Operations {
    pub(super) async fn get_endpoint_access(
        &self,
        account: AccountId,
        request: GetEndpointAccessRequest,
    ) -> Result<EndpointAccess, Failure> {
        let subject = microvm_or_image(&request.resource)?;
        let found = self.store.read::<_, Failure>(|tx| {
            known(tx, &account, &subject)?;
            Ok(tx.public_ports(&subject)?)
        })?;
        Ok(access(&subject, &found.map(|record| record.ports).unwrap_or_default()))
    }

    pub(super) async fn put_endpoint_access(
        &self,
        account: AccountId,
        request: PutEndpointAccessRequest,
    ) -> Result<EndpointAccess, Failure> {
        let subject = microvm_or_image(&request.resource)?;
        // Validated to be ports.
        let mut ports: Vec<u16> =
            request.public_ports.iter().filter_map(|port| u16::try_from(*port).ok()).collect();
        ports.sort_unstable();
        ports.dedup();
        let record = PublicPortsRecord { subject, ports };
        let answer = access(&record.subject, &record.ports);
        let write = move |tx: &Tx<'_>| {
            lasting(tx, &account, &record.subject)?;
            // A MicroVM without any is kept: it is not public, though its image be.
            match &record.subject {
                MicrovmOrImage::Image(_) if record.ports.is_empty() => {
                    Ok(tx.delete_public_ports(&record.subject)?)
                }
                _ => Ok(tx.put_public_ports(&record)?),
            }
        };
        self.store.write::<_, Failure>(write).await?;
        Ok(answer)
    }

    /// Also where the name is the account's already: it then leads elsewhere.
    pub(super) async fn put_domain(
        &self,
        account: AccountId,
        request: PutDomainRequest,
    ) -> Result<Domain, Failure> {
        let (name, subject) = (request.domain_name, microvm_or_image(&request.resource)?);
        if self.settings.hosts.reserves(&name) || !self.settings.domains.allow(&name) {
            let message = format!(
                "{name} is not a name that this installation lets accounts use: its operator lists them as `domains` \
                 in the settings"
            );
            return Err(Error::validation(message).into());
        }
        let now = now_ms();
        let write = move |tx: &Tx<'_>| {
            lasting(tx, &account, &subject)?;
            let created_at = match tx.domain(&name)? {
                Some(found) if found.account != account => {
                    let message = format!("Another account uses the name {name}");
                    return Err(Error::conflict("Domain", name, message).into());
                }
                Some(found) => found.created_at,
                None if tx.count_domains(&account)? >= MAX_DOMAINS => {
                    let message =
                        format!("The account has {MAX_DOMAINS} domains, as many as allowed; remove one");
                    return Err(Error::quota(DOMAINS_QUOTA, message).into());
                }
                None => now,
            };
            let record = DomainRecord { name, account, subject, created_at };
            tx.put_domain(&record)?;
            Ok(record)
        };
        Ok(domain(&self.store.write::<_, Failure>(write).await?))
    }

    pub(super) async fn delete_domain(
        &self,
        account: AccountId,
        request: DeleteDomainRequest,
    ) -> Result<(), Failure> {
        let name = request.domain_name;
        let write = move |tx: &Tx<'_>| {
            let owned = tx.domain(&name)?.filter(|found| found.account == account);
            owned.ok_or_else(|| Error::unknown_domain(&name))?;
            Ok(tx.delete_domain(&name)?)
        };
        self.store.write::<_, Failure>(write).await
    }

    pub(super) async fn list_domains(
        &self,
        account: AccountId,
        request: ListDomainsRequest,
    ) -> Result<ListDomainsResponse, Failure> {
        let scope = [ListDomainsRequest::OPERATION.name(), &account.to_string()];
        let listing = self.listing(&scope, request.max_results, request.next_token.as_deref())?;
        let after = listing.after().unwrap_or_default();
        let found =
            self.store.read::<_, Failure>(|tx| Ok(tx.domains(&account, after, listing.wanted())?))?;
        let (page, next_token) = listing.page(found, |domain| domain.name.clone());
        Ok(ListDomainsResponse { items: page.iter().map(domain).collect(), next_token })
    }
}

/// The account's own; whose the image is has been checked.
fn known(tx: &Tx<'_>, account: &AccountId, subject: &MicrovmOrImage) -> Result<Option<State>, Failure> {
    match subject {
        MicrovmOrImage::Microvm(id) => {
            let owned = tx.microvm(*id)?.filter(|record| record.account == *account);
            Ok(Some(owned.ok_or_else(|| Error::unknown_microvm(&id.to_string()))?.life.state))
        }
        MicrovmOrImage::Image(arn) => known_image(tx, arn).map(|_| None),
    }
}

/// The same, unless it is over.
fn lasting(tx: &Tx<'_>, account: &AccountId, subject: &MicrovmOrImage) -> Result<(), Failure> {
    match (subject, known(tx, account, subject)?) {
        (MicrovmOrImage::Microvm(id), Some(state @ (State::Terminating | State::Terminated))) => {
            Err(refused(*id, &Refused { state }).into())
        }
        (MicrovmOrImage::Image(arn), _) if known_image(tx, arn)?.state == ImageState::Deleting => {
            let message = format!("{arn} is being deleted");
            Err(Error::conflict("MicrovmImage", arn.to_string(), message).into())
        }
        _ => Ok(()),
    }
}

fn access(subject: &MicrovmOrImage, ports: &[u16]) -> EndpointAccess {
    EndpointAccess {
        resource: subject.to_string(),
        public_ports: ports.iter().copied().map(i64::from).collect(),
    }
}

fn domain(record: &DomainRecord) -> Domain {
    Domain {
        domain_name: record.name.clone(),
        resource: record.subject.to_string(),
        created_at: render::iso_time(record.created_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_one_name_or_those_right_below_it() {
        let names = DomainNames::new(vec!["app.example.com".into(), "*.apps.example.com".into()]);
        assert!(names.allow("app.example.com") && names.allow("a.apps.example.com"));
        for other in [
            "example.com",
            "x.app.example.com",
            "apps.example.com",
            "a.b.apps.example.com",
            "aapps.example.com",
        ] {
            assert!(!names.allow(other), "{other}");
        }
        assert!(!DomainNames::default().allow("app.example.com"));
    }
}
