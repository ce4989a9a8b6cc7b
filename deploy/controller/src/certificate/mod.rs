//! The webhook's own certificate: made, kept in a Secret that all replicas share, renewed before it
//! ends, and told to the API server as `caBundle`. Or read from files that somebody else keeps
//! right. Called by `app`; `webhook` serves with what is held.
//!
//! The certificate signs itself: it stands in no circle with the mesh's CA. A new one is published
//! before it is used, so that a replica that serves it already and one that does not yet are both
//! believed; the decision is `plan`, a function of what is kept, what is published, and the time.
//!
//! Never: a key outside the Secret and this process; an identity of the mesh's; a write by which
//! another replica's is lost; a certificate in use taken out of use because the API is away.

// SPDX-License-Identifier: Apache-2.0

mod files;
mod kept;
mod make;
mod plan;
mod registration;
mod secret;
#[cfg(test)]
mod tests;
mod tls;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::ServerConfig;

use crate::cluster::{Cluster, ClusterError};
use crate::metrics::Metrics;

use self::kept::{Kept, Pair};
use self::plan::{BEFORE_SECONDS, PUBLISHED_SECONDS, Step, View};
use self::registration::{Published, Registration};
use self::secret::Found;

pub use self::files::{Files, FilesError};
pub use self::tls::server_config;

/// The configuration that is served with; replaced at a renewal, for new connections.
pub type Identity = Arc<ArcSwapOption<ServerConfig>>;

/// Whether the registration holds what is served, as far as we know. Without it we are not ready.
pub type Believed = Arc<AtomicBool>;

/// Seconds since the Unix epoch.
pub type WallClock = fn() -> u64;

/// How often Secret and registration are looked at where no watch says that they have changed: so
/// late may a renewal's next step be.
const LOOK_EVERY: Duration = Duration::from_secs(30);

/// Between two looks while something is wrong, and after we wrote: if somebody else writes the same
/// field again and again, both have their say in turn, and the API server is not flooded.
const AGAIN: Duration = Duration::from_secs(1);

/// Steps and lost races of one look; each race is lost only to one that wins.
const MAX_ATTEMPTS: usize = 8;

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the webhook's certificate cannot be made: {0}")]
    Make(#[from] rcgen::Error),
    #[error(
        "{attempts} writes of the Secret {secret} came too late: is something else writing it?"
    )]
    Contended { secret: String, attempts: usize },
    #[error(
        "there is no Secret {secret} in {namespace}, and to make one is not among our rights: make an empty one (kubectl -n {namespace} create secret generic {secret})"
    )]
    NoSecret { secret: String, namespace: String },
    #[error(
        "there is no MutatingWebhookConfiguration {name}: pods are not injected: install the chart, or correct webhook.configuration"
    )]
    NoRegistration { name: String },
    #[error(
        "the MutatingWebhookConfiguration {name} names no webhook of Service {service}: pods are not injected: correct webhook.service"
    )]
    NotOurs { name: String, service: String },
}

/// Where it is kept, and by which names it is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub namespace: String,
    pub secret: String,
    pub service: String,
    pub configuration: String,
}

impl Place {
    /// By which the API server dials us.
    fn names(&self) -> Vec<String> {
        let short = format!("{}.{}.svc", self.service, self.namespace);
        vec![short.clone(), format!("{short}.cluster.local")]
    }
}

/// Keeps everything right.
pub struct Keeper {
    cluster: Cluster,
    place: Place,
    identity: Identity,
    believed: Believed,
    metrics: Arc<Metrics>,
    /// What the Secret held when it was last read or written.
    kept: Option<Kept>,
    /// What new connections are served with.
    served: Option<Pair>,
    published: Published,
}

/// What a look has seen, for the watches that follow it.
#[derive(Default)]
struct Seen {
    secret: Option<String>,
    registration: Option<String>,
    wrote: bool,
}

impl Keeper {
    pub fn new(
        cluster: Cluster,
        place: Place,
        identity: Identity,
        believed: Believed,
        metrics: Arc<Metrics>,
    ) -> Self {
        let published = Published::default();
        Self { cluster, place, identity, believed, metrics, kept: None, served: None, published }
    }

    /// Looks at once, when something has changed, and every so often. Until dropped.
    pub async fn follow(mut self, clock: WallClock) -> Infallible {
        let mut said = None;
        loop {
            let mut seen = Seen::default();
            let looked = self.look(clock(), &mut seen).await;
            self.metrics.certificate_look(if looked.is_ok() { "right" } else { "failed" });
            let wrong = looked.as_ref().err().map(ToString::to_string);
            // Said once, not every few seconds.
            if wrong != said {
                match &wrong {
                    Some(why) => tracing::error!("{why}"),
                    None => tracing::info!("the webhook's certificate and registration are right"),
                }
                said = wrong;
            }
            if looked.is_err() || seen.wrote {
                tokio::time::sleep(AGAIN).await;
            } else {
                self.wait(&seen).await;
            }
        }
    }

    async fn wait(&self, seen: &Seen) {
        let Place { namespace, secret, .. } = &self.place;
        let secret = format!(
            "/api/v1/namespaces/{namespace}/secrets?fieldSelector=metadata.name%3D{secret}"
        );
        let registration = registration::watched(&self.place);
        tokio::select! {
            () = self.cluster.changed(&secret, seen.secret.as_deref()) => {}
            () = self.cluster.changed(&registration, seen.registration.as_deref()) => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }

    /// One round: the Secret is right, the API server is told, and what it was told of is served.
    async fn look(&mut self, now: u64, seen: &mut Seen) -> Result<(), CertificateError> {
        let registration = registration::read(&self.cluster, &self.place).await;
        match &registration {
            Ok(registration) => self.published.note(registration, now),
            Err(CertificateError::Cluster(_)) => {}
            Err(_) => self.published.forget(),
        }
        let settled = self.settle(now, seen).await;
        if let Ok(kept) = &settled {
            self.kept = Some(kept.clone());
        }
        // A Secret that cannot be read does not keep us from telling what we know.
        let Some(kept) = self.kept.clone() else { return settled.map(drop) };
        let told = match registration {
            Ok(registration) => self.tell(&registration, &kept, now, seen).await,
            Err(why) => Err(why),
        };
        self.serve(&kept, now);
        let believed =
            self.served.as_ref().and_then(|served| self.published.since(&served.certificate));
        self.believed.store(believed.is_some(), Ordering::Relaxed);
        settled.and(told)
    }

    /// What the Secret holds once there is nothing more to do about it at this moment.
    async fn settle(&self, now: u64, seen: &mut Seen) -> Result<Kept, CertificateError> {
        let names = self.place.names();
        // Clocks of replicas differ.
        let latest = now + 2 * BEFORE_SECONDS;
        let mut found = secret::read(&self.cluster, &self.place, latest).await?;
        for _ in 0..MAX_ATTEMPTS {
            seen.secret = found.version();
            let next = found.kept.as_ref().and_then(|kept| kept.next.as_ref());
            let view = View {
                kept: found.kept.as_ref(),
                served: self.served.as_ref(),
                names: &names,
                next_published: next.and_then(|next| self.published.since(&next.certificate)),
                now,
            };
            let Some(wanted) = self.wanted(view.step(), &found, &names, now)? else {
                return Ok(found.kept.expect("only what is there is kept"));
            };
            match secret::write(&self.cluster, &self.place, &found, &wanted).await {
                Ok(version) => {
                    (seen.secret, seen.wrote) = (version, true);
                    return Ok(wanted);
                }
                // Another replica has done it, or something else; look again.
                Err(ClusterError::Conflict { .. }) => {}
                Err(ClusterError::Refused { code: 403, .. }) if seen.secret.is_none() => {
                    let (secret, namespace) =
                        (self.place.secret.clone(), self.place.namespace.clone());
                    return Err(CertificateError::NoSecret { secret, namespace });
                }
                Err(why) => return Err(why.into()),
            }
            found = secret::read(&self.cluster, &self.place, latest).await?;
        }
        let secret = self.place.secret.clone();
        Err(CertificateError::Contended { secret, attempts: MAX_ATTEMPTS })
    }

    /// What the Secret shall hold after this step. `None`: what it holds.
    fn wanted(
        &self,
        step: Step,
        found: &Found,
        names: &[String],
        now: u64,
    ) -> Result<Option<Kept>, CertificateError> {
        let until = now + BEFORE_SECONDS;
        let kept = || found.kept.clone().expect("what is not there has no such step");
        let served = || self.served.clone().expect("who serves nothing has no such step");
        let secret = &self.place.secret;
        Ok(Some(match step {
            Step::Keep => return Ok(None),
            Step::First => {
                if found.is_filled() {
                    tracing::warn!(%secret, "it holds no certificate for us: a new one is made");
                }
                Kept::only(make::pair(names, now)?)
            }
            Step::Restore => {
                tracing::warn!(%secret, "it lost what we serve: put back, and renewed");
                Kept { next: Some(make::pair(names, now)?), ..Kept::only(served()) }
            }
            Step::Remember => kept().remembering(served().certificate, until),
            Step::Prepare => {
                tracing::info!(%secret, "the webhook's next certificate is made");
                Kept { next: Some(make::pair(names, now)?), ..kept() }
            }
            Step::Promote => {
                tracing::info!(%secret, "the webhook's next certificate is to be served");
                kept().promoted(until)
            }
            Step::Forget => Kept { before: Vec::new(), before_until: 0, ..kept() },
        }))
    }

    async fn tell(
        &mut self,
        registration: &Registration,
        kept: &Kept,
        now: u64,
        seen: &mut Seen,
    ) -> Result<(), CertificateError> {
        seen.registration = registration.version();
        let ca_bundle = kept.ca_bundle();
        if registration.says(&ca_bundle) {
            return Ok(());
        }
        seen.wrote = true;
        let told = registration::tell(&self.cluster, &self.place, registration, &ca_bundle).await?;
        if let Some(registration) = told {
            let configuration = &self.place.configuration;
            tracing::info!(%configuration, "the API server is told by what to believe us");
            self.published.note(&registration, now);
        }
        Ok(())
    }

    /// Serves what is kept, if every API server has heard of it, or if there is nothing else.
    fn serve(&mut self, kept: &Kept, now: u64) {
        let heard = || {
            let since = self.published.since(&kept.serving.certificate);
            since.is_some_and(|since| now >= since + PUBLISHED_SECONDS)
        };
        let changes = match &self.served {
            Some(served) if *served == kept.serving => false,
            Some(served) => now >= served.not_after || heard(),
            None => true,
        };
        let config = changes.then(|| kept.serving.server_config()).flatten();
        if let Some(config) = config {
            self.identity.store(Some(Arc::new(config)));
            self.metrics.certificate_not_after(kept.serving.not_after);
            let not_after = kept.serving.not_after;
            tracing::info!(not_after, "new connections are served with this certificate");
            self.served = Some(kept.serving.clone());
        }
    }
}
