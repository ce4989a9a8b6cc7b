//! The trust bundle as a ConfigMap in each meshed namespace, for whoever there wants to verify the
//! mesh's certificates without a sidecar. Called by `app`. What is done is `plan`'s to say.
//!
//! Injected sidecars do not read it: they have theirs by annotation, and what follows from the CA.
//!
//! Never: a bundle from elsewhere than our own file; a ConfigMap of somebody else's changed or taken
//! away; one in `kube-system` or in the mesh's own namespace.

// SPDX-License-Identifier: Apache-2.0

mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::{BundleError, TrustBundle};
use myelin_identity::id::TrustDomain;
use tokio::time::Instant;

use crate::bundle::Held;
use crate::cluster::{Cluster, ClusterError};
use crate::metrics::Metrics;

use self::plan::{Found, Plan, Wanted};

/// Between two looks where no watch says that something has changed.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// Between two looks after we wrote, so that whoever else writes the same has a say in turn; and while
/// something is wrong, then doubled up to the time between any two looks.
const AGAIN: Duration = Duration::from_secs(1);

/// How often the held bundle is looked at.
const BUNDLE_EVERY: Duration = Duration::from_secs(1);

/// How long another replica's bundle is left as it is: longer than the kubelet takes to bring a file
/// up to date.
const PATIENCE: Duration = Duration::from_secs(180);

/// Namespaces of one page of a list.
const NAMESPACES: usize = 250;

/// ConfigMaps of one page: whoever may label one in a namespace may make it a megabyte.
const MAPS: usize = 10;

/// Namespaces that are named in one line of the log.
const MAX_NAMED: usize = 5;

/// Where nothing is injected, so nothing is published.
const SPARED: &str = "kube-system";

#[derive(Debug, thiserror::Error)]
pub enum MapError {
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the trust bundle that is held cannot be read again: {0}")]
    Bundle(#[from] BundleError),
    #[error("{count} ConfigMaps of the trust bundle cannot be kept right, the first: {first}")]
    Some { count: usize, first: ClusterError },
}

pub struct Keeper {
    pub cluster: Cluster,
    /// Of each ConfigMap.
    pub name: String,
    /// The mesh's own.
    pub namespace: String,
    pub trust_domain: TrustDomain,
    pub bundle: Held,
    pub metrics: Arc<Metrics>,
}

/// What one replica remembers from look to look.
#[derive(Default)]
struct Memory {
    /// The bundle of the last look.
    last: Option<Arc<String>>,
    /// Our file has changed since we wrote everywhere.
    news: bool,
    /// Since when we leave other replicas' bundles as they are.
    others_since: Option<Instant>,
    /// Namespaces where the last look could make none because one was there.
    taken: BTreeSet<String>,
    /// It was logged.
    said: bool,
}

/// For the watches that follow a look.
#[derive(Default)]
struct Seen {
    namespaces: String,
    maps: String,
    wrote: bool,
}

impl Keeper {
    /// Looks at once, when something has changed, and every so often. Until dropped.
    pub async fn follow(&self) -> Infallible {
        let (mut memory, mut said, mut pause) = (Memory::default(), None, AGAIN);
        loop {
            let mut seen = Seen::default();
            let looked = match self.bundle.load_full() {
                Some(bundle) => self.look(bundle, &mut memory, &mut seen, Instant::now()).await,
                None => Ok(()),
            };
            self.metrics.config_map_look(if looked.is_ok() { "right" } else { "failed" });
            let wrong = looked.as_ref().err().map(ToString::to_string);
            // Said once, not every second.
            if wrong != said {
                match &wrong {
                    Some(why) => tracing::error!("{why}"),
                    None => tracing::info!("the ConfigMaps of the trust bundle are right"),
                }
                said = wrong;
            }
            if looked.is_err() {
                // One namespace that refuses for ever is no reason to read all of them each second.
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LOOK_EVERY);
                continue;
            }
            pause = AGAIN;
            if seen.wrote {
                tokio::time::sleep(AGAIN).await;
            } else {
                self.wait(&seen, memory.last.as_ref()).await;
            }
        }
    }

    async fn wait(&self, seen: &Seen, last: Option<&Arc<String>>) {
        let changes = async {
            if last.is_none() {
                return std::future::pending().await;
            }
            let (namespaces, maps) = (self.namespaces_path(), self.maps_path());
            tokio::select! {
                () = self.cluster.changed(&namespaces, Some(&seen.namespaces)) => {}
                () = self.cluster.changed(&maps, Some(&seen.maps)) => {}
            }
        };
        let another_bundle = async {
            while self.bundle.load_full().as_ref() == last {
                tokio::time::sleep(BUNDLE_EVERY).await;
            }
        };
        tokio::select! {
            () = changes => {}
            () = another_bundle => {}
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
    }

    fn namespaces_path(&self) -> String {
        "/api/v1/namespaces?labelSelector=myelin.dev%2Finject%3Denabled".to_owned()
    }

    fn maps_path(&self) -> String {
        let (label, value) = (plan::OURS.0.replace('/', "%2F"), plan::OURS.1);
        let ours = format!("labelSelector={label}%3D{value}");
        format!("/api/v1/configmaps?fieldSelector=metadata.name%3D{}&{ours}", self.name)
    }

    async fn look(
        &self,
        bundle: Arc<String>,
        memory: &mut Memory,
        seen: &mut Seen,
        now: Instant,
    ) -> Result<(), MapError> {
        if memory.last.as_ref() != Some(&bundle) {
            memory.news = memory.last.replace(Arc::clone(&bundle)).is_some();
        }
        let hash = TrustBundle::from_pem(self.trust_domain.clone(), 0, &bundle)?.hash();
        let wanted = Wanted { pem: bundle.as_str().to_owned(), hash: hash.to_string() };
        let found = self.found(seen).await?;
        let over = |since| now.duration_since(since) >= PATIENCE;
        let overrule = memory.news || memory.others_since.is_some_and(over);
        let plan = plan::plan(&found, &wanted, &self.trust_domain, &self.namespace, overrule);
        self.metrics.config_maps(plan.right);
        memory.others_since = (!plan.others.is_empty()).then(|| memory.others_since.unwrap_or(now));
        let taken = self.carry_out(&plan, &found, &wanted, seen).await?;
        self.complain(taken, memory);
        memory.news = false;
        Ok(())
    }

    async fn found(&self, seen: &mut Seen) -> Result<Found, ClusterError> {
        let text = |object: &serde_json::Value, pointer: &str| {
            object.pointer(pointer).and_then(|text| text.as_str()).unwrap_or_default().to_owned()
        };
        let namespaces = self.cluster.list(&self.namespaces_path(), NAMESPACES).await?;
        let maps = self.cluster.list(&self.maps_path(), MAPS).await?;
        (seen.namespaces, seen.maps) = (namespaces.version, maps.version);
        let meshed = namespaces.items.iter().map(|namespace| {
            let leaving = !namespace["metadata"]["deletionTimestamp"].is_null();
            (text(namespace, "/metadata/name"), !leaving)
        });
        let meshed = meshed.filter(|(name, _)| name != SPARED).collect();
        let maps = maps.items.into_iter().map(|map| (text(&map, "/metadata/namespace"), map));
        Ok(Found { meshed, maps: maps.collect() })
    }

    /// The namespaces where the name is taken.
    async fn carry_out(
        &self,
        plan: &Plan,
        found: &Found,
        wanted: &Wanted,
        seen: &mut Seen,
    ) -> Result<BTreeSet<String>, MapError> {
        let (mut failed, mut taken) = (Vec::new(), BTreeSet::new());
        let writes = plan.create.iter().chain(&plan.replace).chain(&plan.remove);
        for namespace in writes {
            let there = found.maps.get(namespace);
            let object = plan::object(&self.name, namespace, there, wanted);
            let all = format!("/api/v1/namespaces/{namespace}/configmaps");
            let one = format!("{all}/{}", self.name);
            let written = match there {
                None => self.cluster.create(&all, &object).await.map(drop),
                Some(map) if plan.remove.contains(namespace) => {
                    self.cluster.remove(&one, map).await.map(drop)
                }
                Some(_) => self.cluster.replace(&one, &object).await.map(drop),
            };
            match written {
                Ok(()) => seen.wrote = true,
                // Another replica's, most likely, and seen by the next look; or somebody else's.
                Err(ClusterError::Conflict { .. }) if there.is_none() => {
                    taken.insert(namespace.clone());
                }
                // Another replica was faster, or namespace or ConfigMap are gone; the next look sees.
                Err(ClusterError::Conflict { .. } | ClusterError::Refused { code: 404, .. }) => {
                    seen.wrote = true;
                }
                // Nobody can be asked: neither about the others.
                Err(why @ ClusterError::Unreachable { .. }) => return Err(why.into()),
                Err(why) => failed.push(why),
            }
        }
        let count = failed.len();
        failed.into_iter().next().map_or(Ok(taken), |first| Err(MapError::Some { count, first }))
    }

    /// A name that was taken at two looks is not another replica's.
    fn complain(&self, taken: BTreeSet<String>, memory: &mut Memory) {
        let still: Vec<&String> = taken.intersection(&memory.taken).collect();
        if !still.is_empty() && !memory.said {
            let (count, name) = (still.len(), &self.name);
            let namespaces = still.iter().take(MAX_NAMED).collect::<Vec<_>>();
            tracing::warn!(%name, count, ?namespaces, "there is a ConfigMap of this name that is not ours: it stays as it is");
        }
        memory.said = !still.is_empty();
        memory.taken = taken;
    }
}
