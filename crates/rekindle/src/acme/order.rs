//! One order: from a name to its certificate.

use std::time::Duration;

use instant_acme::{Account, AuthorizationStatus, Identifier, NewOrder, Order, OrderStatus, RetryPolicy};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use super::AcmeError;
use super::proof::{Proof, Published};

/// For the authority to look, and to issue.
const PATIENCE: RetryPolicy = RetryPolicy::new().timeout(Duration::from_secs(180));

/// Key and chain of a new certificate for `name`, in PEM.
pub(super) async fn issue(
    account: &Account,
    directory: &str,
    name: &str,
    proof: &Proof,
) -> Result<String, AcmeError> {
    let failed = |source| AcmeError::Authority { directory: directory.to_owned(), source };
    let identifiers = [Identifier::Dns(name.to_owned())];
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await.map_err(failed)?;
    let mut published = Vec::new();
    let proven = prove(&mut order, directory, name, proof, &mut published).await;
    for proof in published {
        proof.take_back().await;
    }
    proven?;
    let (key, request) = request(name).map_err(|error| AcmeError::Request(name.to_owned(), error))?;
    order.finalize_csr(&request).await.map_err(failed)?;
    let chain = order.poll_certificate(&PATIENCE).await.map_err(failed)?;
    Ok(format!("{key}{chain}"))
}

/// Shows the authority that the name is ours.
async fn prove(
    order: &mut Order,
    directory: &str,
    name: &str,
    proof: &Proof,
    published: &mut Vec<Published>,
) -> Result<(), AcmeError> {
    let failed = |source| AcmeError::Authority { directory: directory.to_owned(), source };
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization.map_err(failed)?;
        if authorization.status == AuthorizationStatus::Valid {
            continue;
        }
        let challenge = authorization.challenge(proof.kind());
        let mut challenge = challenge
            .ok_or_else(|| AcmeError::Challenge { name: name.to_owned(), kind: proof.kind_name() })?;
        published.push(proof.publish(name, &challenge.key_authorization()).await?);
        challenge.set_ready().await.map_err(failed)?;
    }
    match order.poll_ready(&PATIENCE).await.map_err(failed)? {
        OrderStatus::Ready | OrderStatus::Valid => Ok(()),
        _ => Err(AcmeError::Refused { name: name.to_owned(), reason: reason(order).await }),
    }
}

/// What the authority says it found.
async fn reason(order: &mut Order) -> String {
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        let Ok(state) = authorization.refresh().await else { continue };
        if let Some(problem) = state.challenges.iter().find_map(|challenge| challenge.error.as_ref()) {
            return problem.to_string();
        }
    }
    "it gives no reason".into()
}

fn request(name: &str) -> Result<(String, Vec<u8>), rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.distinguished_name = DistinguishedName::new();
    let key = KeyPair::generate()?;
    let request = params.serialize_request(&key)?;
    Ok((key.serialize_pem(), request.der().to_vec()))
}
