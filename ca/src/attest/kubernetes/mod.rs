//! Attestor: a Kubernetes projected service-account token, pod-bound, for this CA's audience. It
//! says which pod asks: namespace, service account, pod name and uid. Verified offline with the
//! issuer's keys; where this CA may ask the API server, it is asked as well (`review`), which knows
//! that a pod was deleted a moment ago, and which addresses it has.
//!
//! Never: believes the token about its own algorithm, or takes one that names no pod.

// SPDX-License-Identifier: Apache-2.0

use aws_lc_rs::digest::{SHA256, digest};
use myelin_identity::id::TrustDomain;
use myelin_identity::issuance::{ServiceToken, token_audience};

use super::{Attested, BoundTo, Evidence, Lasts, Selector, Whereabouts};
use crate::clock::UnixSeconds;
use crate::journal::{Hex, PodRecord};

mod claims;
mod fetch;
mod keys;
mod review;
mod signature;

pub use claims::{Claims, Expected};
pub use fetch::{FetchError, HttpsSource};
pub use keys::{Jwks, KeysError, Source};

use review::{Review, Said};

/// The word in logs and metrics.
pub const ATTESTOR: &str = "kubernetes";

/// One cluster whose pods may attest.
pub struct Kubernetes {
    keys: Jwks,
    review: Option<Review>,
    expected: Expected,
}

impl Kubernetes {
    /// `issuer` is compared whole with the token's `iss`.
    pub fn new(issuer: String, trust_domain: &TrustDomain, keys: Jwks) -> Self {
        let expected = Expected { issuer, audience: token_audience(trust_domain) };
        Self { keys, review: None, expected }
    }

    /// With the API server, which is asked about every token and its pod.
    pub fn reviewed(self, client: kube::Client) -> Self {
        let review = Some(Review::new(client, self.expected.audience.clone()));
        Self { review, ..self }
    }

    pub(super) async fn attest(
        &self,
        token: &ServiceToken,
        now: UnixSeconds,
    ) -> Result<Attested, Evidence> {
        let claims = signature::verify(token.reveal(), &self.keys).await?;
        claims::judge(&claims, &self.expected, now)?;
        let said = match &self.review {
            None => Said::default(),
            Some(review) => review.addresses(token.reveal(), &claims).await?,
        };
        attested(claims, said)
    }

    /// Where a pod of this cluster is; only the API server knows.
    pub(super) async fn whereabouts(&self, pod: &PodRecord) -> Whereabouts {
        match &self.review {
            Some(review) if pod.issuer == self.expected.issuer => review.whereabouts(pod).await,
            _ => Whereabouts::Unknown,
        }
    }
}

/// The facts of a token that was judged good.
fn attested(claims: Claims, said: Said) -> Result<Attested, Evidence> {
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
    let (issuer, namespace) = (claims.iss, bound.namespace.clone());
    let pod = PodRecord { issuer, namespace, name: pod.name, uid: pod.uid, gone: false };
    Ok(Attested {
        attestor: ATTESTOR,
        selectors,
        bound_to: Some(BoundTo { name, lasts: Lasts::ForGood }),
        service_account: Some((bound.namespace, account.name)),
        addresses: said.addresses,
        is_remembered: said.is_remembered,
        pod: Some(pod),
    })
}

#[cfg(test)]
mod tests;
