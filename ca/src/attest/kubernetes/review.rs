//! Asks the API server about a token whose signature and claims are good already: is it genuine at
//! this moment, and what does the pod that it is bound to look like? Its addresses are those that
//! the cluster gave it, not those that a request comes from.
//!
//! It is asked as well about a pod that stands in the way of another: is it still there?
//!
//! While the API server is away, pods that were seen before go on with what was seen; nobody new is
//! let in.
//!
//! Never: an answer that the API server gave about another pod, or memory where it can be asked.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeSet, HashMap};
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, UserInfo};
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use kube::api::{Api, PostParams};
use tokio::time::timeout;

use super::claims::{Bound, Claims, Named};
use crate::attest::{Evidence, Whereabouts};
use crate::journal::PodRecord;

/// One question to the API server; a caller of `Issue` waits for two of them, for one more for each of
/// its addresses that another pod holds, and no longer than ten seconds for all.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);
/// Pods that are remembered for an outage: as many as the largest clusters have on one CA, some ten
/// megabytes.
const MAX_REMEMBERED: usize = 65_536;
/// Longest part of what the API server said that is repeated.
const MAX_QUOTED_CHARACTERS: usize = 200;
/// Under which the API server says which pod a token is bound to.
const POD_NAME: &str = "authentication.kubernetes.io/pod-name";
const POD_UID: &str = "authentication.kubernetes.io/pod-uid";

/// The API server, and the pods that it told of.
pub(super) struct Review {
    client: kube::Client,
    audience: String,
    remembered: Mutex<HashMap<String, Vec<IpAddr>>>,
}

/// The addresses of a pod.
#[derive(Default)]
pub(super) struct Said {
    pub(super) addresses: Vec<IpAddr>,
    /// From before: the API server is away.
    pub(super) is_remembered: bool,
}

/// Why there is no answer.
enum Silence {
    /// Nobody is there, or has time for us.
    Away(String),
    Missing,
    /// It does not want to answer us.
    Unwilling(String),
}

impl Review {
    pub(super) fn new(client: kube::Client, audience: String) -> Self {
        Self { client, audience, remembered: Mutex::default() }
    }

    /// The addresses of the pod that this token is of.
    pub(super) async fn addresses(&self, token: &str, claims: &Claims) -> Result<Said, Evidence> {
        let (bound, pod) = bound(claims)?;
        match self.ask(token, claims, bound, pod).await {
            Ok(told) => {
                match &told {
                    Ok(addresses) => self.remember(&pod.uid, addresses),
                    // Refused once, refused in an outage too.
                    Err(_) => drop(self.remembered().remove(&pod.uid)),
                }
                told.map(|addresses| Said { addresses, is_remembered: false })
            }
            Err(Silence::Away(why)) => {
                let remembered = self.remembered().get(&pod.uid).cloned();
                let unknown = || Evidence::ReviewUnavailable(why.clone());
                let addresses = remembered.ok_or_else(unknown)?;
                tracing::warn!(why, pod = %pod.name, "the Kubernetes API is away: a pod that was seen before is attested by its token alone");
                Ok(Said { addresses, is_remembered: true })
            }
            Err(Silence::Missing) => Err(Evidence::ReviewUnavailable("no TokenReview".to_owned())),
            Err(Silence::Unwilling(why)) => Err(Evidence::ReviewUnavailable(why)),
        }
    }

    async fn ask(
        &self,
        token: &str,
        claims: &Claims,
        bound: &Bound,
        pod: &Named,
    ) -> Result<Result<Vec<IpAddr>, Evidence>, Silence> {
        if let Err(refused) = self.genuine(token, claims, pod).await? {
            return Ok(Err(refused));
        }
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &bound.namespace);
        match answered(pods.get(&pod.name)).await {
            Ok(found) => Ok(judge(&found, bound, pod)),
            Err(Silence::Missing) => Ok(Err(Evidence::PodGone("there is none of its name"))),
            Err(silence) => Err(silence),
        }
    }

    /// Where a pod is that attested before; with a 404, another pod of its name, or its end, it is gone
    /// for good.
    pub(super) async fn whereabouts(&self, pod: &PodRecord) -> Whereabouts {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), &pod.namespace);
        match answered(pods.get(&pod.name)).await {
            Err(Silence::Missing) => {}
            Err(Silence::Away(why) | Silence::Unwilling(why)) => {
                tracing::warn!(why, pod = %pod.name, "whether this pod is there cannot be asked: its address stays its own");
                return Whereabouts::Unknown;
            }
            Ok(found) if found.metadata.uid.as_deref() != Some(pod.uid.as_str()) => {}
            Ok(found) => {
                let status = found.status.unwrap_or_default();
                if !has_ended(&status) {
                    return Whereabouts::At(addresses(&status).into_iter().collect());
                }
            }
        }
        self.remembered().remove(&pod.uid);
        Whereabouts::Gone
    }

    /// A TokenReview: for this audience, and of the very pod that the token names.
    async fn genuine(
        &self,
        token: &str,
        claims: &Claims,
        pod: &Named,
    ) -> Result<Result<(), Evidence>, Silence> {
        let audiences = Some(vec![self.audience.clone()]);
        let spec = TokenReviewSpec { audiences, token: Some(token.to_owned()) };
        let review = TokenReview { spec, ..TokenReview::default() };
        let reviews: Api<TokenReview> = Api::all(self.client.clone());
        let status = answered(reviews.create(&PostParams::default(), &review)).await?.status;
        let status = status.unwrap_or_default();
        if status.authenticated != Some(true) {
            return Ok(Err(Evidence::TokenRefused(quoted(&status.error.unwrap_or_default()))));
        }
        if !status.audiences.unwrap_or_default().contains(&self.audience) {
            return Ok(Err(Evidence::TokenRefused("it names other audiences".to_owned())));
        }
        let user = status.user.unwrap_or_default();
        let same = user.username.as_deref() == Some(claims.sub.as_str())
            && only(&user, POD_NAME) == Some(pod.name.as_str())
            && only(&user, POD_UID) == Some(pod.uid.as_str());
        let other = "the API server says that it is of another pod or service account";
        Ok(if same { Ok(()) } else { Err(Evidence::TokenContradicts(other)) })
    }

    fn remember(&self, uid: &str, addresses: &[IpAddr]) {
        let mut remembered = self.remembered();
        if remembered.len() >= MAX_REMEMBERED
            && let Some(any) = remembered.keys().next().cloned()
        {
            remembered.remove(&any);
        }
        remembered.insert(uid.to_owned(), addresses.to_vec());
    }

    // Each change is one insert or remove: a panic leaves nothing half done.
    fn remembered(&self) -> std::sync::MutexGuard<'_, HashMap<String, Vec<IpAddr>>> {
        self.remembered.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bound(claims: &Claims) -> Result<(&Bound, &Named), Evidence> {
    let missing = || Evidence::TokenNotPodBound("it names no pod");
    let bound = claims.kubernetes.as_ref().ok_or_else(missing)?;
    Ok((bound, bound.pod.as_ref().ok_or_else(missing)?))
}

/// Whether this is the pod of the token, running with addresses of its own.
fn judge(found: &Pod, bound: &Bound, pod: &Named) -> Result<Vec<IpAddr>, Evidence> {
    if found.metadata.uid.as_deref() != Some(pod.uid.as_str()) {
        return Err(Evidence::PodGone("another pod has its name now"));
    }
    let (spec, status) =
        (found.spec.clone().unwrap_or_default(), found.status.clone().unwrap_or_default());
    if spec.service_account_name.as_deref() != Some(bound.serviceaccount.name.as_str()) {
        return Err(Evidence::TokenContradicts("its pod runs under another service account"));
    }
    if has_ended(&status) {
        return Err(Evidence::PodGone("it has ended"));
    }
    if spec.host_network == Some(true) {
        return Err(Evidence::PodHostNetwork);
    }
    let addresses = addresses(&status);
    let hosts = status.host_ips.iter().flatten().map(|it| &it.ip).chain(&status.host_ip);
    let hosts: BTreeSet<IpAddr> = hosts.filter_map(|it| parsed(it)).collect();
    if addresses.is_empty() {
        return Err(Evidence::PodWithoutAddress);
    }
    // A node's address is no pod's, whatever else is said.
    if addresses.intersection(&hosts).next().is_some() {
        return Err(Evidence::PodHostNetwork);
    }
    Ok(addresses.into_iter().collect())
}

/// For good: a pod that ended never runs again.
fn has_ended(status: &PodStatus) -> bool {
    matches!(status.phase.as_deref(), Some("Succeeded" | "Failed"))
}

fn addresses(status: &PodStatus) -> BTreeSet<IpAddr> {
    let ips = status.pod_ips.iter().flatten().map(|it| &it.ip).chain(&status.pod_ip);
    ips.filter_map(|it| parsed(it)).collect()
}

fn parsed(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|it| it.to_canonical())
}

/// The one value of that name, if there is exactly one.
fn only<'a>(user: &'a UserInfo, name: &str) -> Option<&'a str> {
    match user.extra.as_ref()?.get(name)?.as_slice() {
        [one] => Some(one),
        _ => None,
    }
}

async fn answered<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Silence> {
    match timeout(ANSWER_WITHIN, asked).await {
        Err(_) => Err(Silence::Away(format!("no answer within {ANSWER_WITHIN:?}"))),
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(kube::Error::Api(status))) => Err(match status.code {
            // In the API server's own words: a proxy on the way has a 404 for every pod.
            404 if status.reason == "NotFound" => Silence::Missing,
            429 | 500.. => Silence::Away(quoted(&status.message)),
            _ => Silence::Unwilling(quoted(&status.message)),
        }),
        Ok(Err(error)) => Err(Silence::Away(quoted(&error.to_string()))),
    }
}

/// One line, bounded.
fn quoted(said: &str) -> String {
    said.chars().filter(|c| !c.is_control()).take(MAX_QUOTED_CHARACTERS).collect()
}
