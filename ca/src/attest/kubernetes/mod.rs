//! Attestor: a Kubernetes projected service-account token, pod-bound, for this CA's audience. It
//! says which pod asks: namespace, service account, pod name and uid. Verified offline with the
//! issuer's keys.
//!
//! A TokenReview (which also knows that a pod was deleted a moment ago) is another [`Verifier`]
//! beside `Jwks`: it takes the same token and yields the same claims.
//!
//! Never: believes the token about its own algorithm, or takes one that names no pod.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::digest::{SHA256, digest};
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::{ServiceToken, token_audience};

use super::{Attested, BoundTo, Evidence, Lasts, Selector};
use crate::clock::UnixSeconds;
use crate::journal::Hex;

mod claims;
mod fetch;
mod keys;
mod signature;

pub use claims::{Claims, Expected};
pub use fetch::{FetchError, HttpsSource};
pub use keys::{Jwks, KeysError, Source};

/// The word in logs and metrics.
pub const ATTESTOR: &str = "kubernetes";

/// Who says whether a token is genuine.
enum Verifier {
    Jwks(Jwks),
}

/// One cluster whose pods may attest.
pub struct Kubernetes {
    verifier: Verifier,
    expected: Expected,
}

impl Kubernetes {
    /// `issuer` is compared whole with the token's `iss`.
    pub fn new(issuer: String, trust_domain: &TrustDomain, keys: Jwks) -> Self {
        let expected = Expected { issuer, audience: token_audience(trust_domain) };
        Self { verifier: Verifier::Jwks(keys), expected }
    }

    pub(super) async fn attest(
        &self,
        token: &ServiceToken,
        now: UnixSeconds,
    ) -> Result<Attested, Evidence> {
        let claims = match &self.verifier {
            Verifier::Jwks(keys) => signature::verify(token.reveal(), keys).await?,
        };
        claims::judge(&claims, &self.expected, now)?;
        attested(claims)
    }
}

/// The facts of a token that was judged good.
fn attested(claims: Claims) -> Result<Attested, Evidence> {
    let missing = Evidence::TokenNotPodBound("it has no claims of kubernetes.io");
    let bound = claims.kubernetes.ok_or_else(|| missing.clone())?;
    let pod = bound.pod.ok_or(missing)?;
    let account = bound.serviceaccount;
    let mut selectors = vec![
        Selector::found("k8s:issuer:", &claims.iss),
        Selector::found("k8s:ns:", &bound.namespace),
        Selector::found("k8s:sa:", &account.name),
        Selector::found("k8s:pod-name:", &pod.name),
        Selector::found("k8s:pod-uid:", &pod.uid),
    ];
    if let Some(node) = &bound.node {
        selectors.push(Selector::found("k8s:node-name:", &node.name));
    }
    let whom = format!("{}\n{}", claims.iss, pod.uid);
    let name = Hex(digest(&SHA256, whom.as_bytes()).as_ref().to_vec());
    Ok(Attested {
        attestor: ATTESTOR,
        selectors,
        bound_to: Some(BoundTo { name, lasts: Lasts::ForGood }),
        service_account: Some((bound.namespace, account.name)),
        addresses: Vec::new(),
    })
}

#[cfg(test)]
mod tests;
