//! What a service-account token says, and whether it says enough: a table of values, judged against
//! what this CA expects at one moment.
//!
//! Never: a signature; it was verified before.

// SPDX-License-Identifier: Apache-2.0

use serde::Deserialize;

use super::super::Evidence;
use super::super::attested::is_kubernetes_name;
use crate::clock::UnixSeconds;

/// How far the issuer's clock may be ahead of ours, and a token be used after its end: what
/// certificates are backdated for.
const SKEW_SECONDS: u64 = 60;
/// Longest that a token may live. Projected ones live an hour by default and a day where they are
/// renewed by the kubelet at 80 %; those of a year (legacy mounts, extended for old clients) are
/// no proof of a running pod.
const MAX_TOKEN_LIFE_SECONDS: u64 = 25 * 60 * 60;

/// What tokens for this CA must say.
#[derive(Clone, Debug)]
pub struct Expected {
    pub issuer: String,
    pub audience: String,
}

/// What one says. Absent claims are told from empty ones.
#[derive(Clone, Debug, Deserialize)]
pub struct Claims {
    #[serde(default)]
    pub iss: String,
    #[serde(default)]
    pub sub: String,
    #[serde(default)]
    pub aud: Audience,
    pub exp: Option<u64>,
    pub nbf: Option<u64>,
    pub iat: Option<u64>,
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Option<Bound>,
}

/// RFC 7519 section 4.1.3: one text or a list.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Many(Vec<String>),
}

/// The private claims of a bound token.
#[derive(Clone, Debug, Deserialize)]
pub struct Bound {
    pub namespace: String,
    pub serviceaccount: Named,
    pub pod: Option<Named>,
    pub node: Option<Named>,
}

#[derive(Clone, Debug, Deserialize)]
pub struct Named {
    pub name: String,
    #[serde(default)]
    pub uid: String,
}

impl Default for Audience {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl Audience {
    fn all(&self) -> &[String] {
        match self {
            Self::One(one) => std::slice::from_ref(one),
            Self::Many(many) => many,
        }
    }
}

pub(super) fn judge(
    claims: &Claims,
    expected: &Expected,
    now: UnixSeconds,
) -> Result<(), Evidence> {
    if claims.iss != expected.issuer {
        let (seen, expected) = (claims.iss.clone(), expected.issuer.clone());
        return Err(Evidence::TokenIssuer { seen, expected });
    }
    // Exactly ours: a token that other services get to see as well is anybody's among them.
    if claims.aud.all() != [expected.audience.clone()] {
        let (seen, expected) = (claims.aud.all().to_vec(), expected.audience.clone());
        return Err(Evidence::TokenAudience { seen, expected });
    }
    let exp = claims.exp.ok_or(Evidence::TokenNotPodBound("it has no exp"))?;
    if now > exp.saturating_add(SKEW_SECONDS) {
        return Err(Evidence::TokenExpired { now, exp });
    }
    let iat = claims.iat.ok_or(Evidence::TokenNotPodBound("it has no iat"))?;
    let from = iat.max(claims.nbf.unwrap_or(iat));
    if from > now.saturating_add(SKEW_SECONDS) {
        return Err(Evidence::TokenNotYetValid { now, from });
    }
    if exp.saturating_sub(iat) > MAX_TOKEN_LIFE_SECONDS {
        return Err(Evidence::TokenNotPodBound("it lives for more than a day"));
    }
    is_of_one_pod(claims)
}

/// The private claims are there, and the subject says the same.
fn is_of_one_pod(claims: &Claims) -> Result<(), Evidence> {
    let bound = claims.kubernetes.as_ref();
    let bound = bound.ok_or(Evidence::TokenNotPodBound("it has no claims of kubernetes.io"))?;
    let pod = bound.pod.as_ref().ok_or(Evidence::TokenNotPodBound("it names no pod"))?;
    let account = &bound.serviceaccount;
    for name in [&bound.namespace, &account.name, &pod.name, &pod.uid] {
        if !is_kubernetes_name(name) {
            return Err(Evidence::TokenContradicts("a name in it is none that Kubernetes gives"));
        }
    }
    if bound.node.as_ref().is_some_and(|node| !is_kubernetes_name(&node.name)) {
        return Err(Evidence::TokenContradicts("a name in it is none that Kubernetes gives"));
    }
    let expected = format!("system:serviceaccount:{}:{}", bound.namespace, account.name);
    if claims.sub != expected {
        return Err(Evidence::TokenContradicts("its subject is of another service account"));
    }
    Ok(())
}
