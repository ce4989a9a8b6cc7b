//! Between what the API server says and the sidecars that ask: for each stream what is said of its
//! workload, and whom to wake when that changes. Called by the room's door with news, by the port with
//! streams, by `write` for what has to be said of the policies themselves.
//!
//! Never: wakes whom it does not concern, awaits under its lock, answers before everything was listed.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::policy::EncodedPolicy;
use tokio::sync::Notify;

use super::catalog::{Catalog, Subject, Touched};
use super::compile::Compiled;
use super::objects::{Key, Kind, Pod, Policy, Service};
use super::status::{Condition, Verdict};
use super::workloads::Caller;
use crate::cluster::News;
use crate::metrics::Metrics;

/// What has been listed at least once, as bits.
const AUTHENTICATIONS: u8 = 1;
const AUTHORIZATIONS: u8 = 2;
const SERVICES: u8 = 4;
const PODS: u8 = 8;

/// Everything that holds in the mesh, and who follows it.
pub struct Policies {
    inner: Mutex<Inner>,
    listed: AtomicU8,
    /// Somebody's status may have to be written.
    to_judge: Notify,
    metrics: Arc<Metrics>,
}

struct Inner {
    catalog: Catalog,
    streams: HashMap<u64, Asking>,
    /// Which streams come from an address, and which from a namespace.
    by_address: HashMap<IpAddr, BTreeSet<u64>>,
    by_namespace: HashMap<String, BTreeSet<u64>>,
    /// Many sidecars are of the same account and behind the same Services.
    compiled: HashMap<Subject, Arc<Compiled>>,
    last: u64,
    /// Streams whose policies are more than a sidecar takes.
    over_bound: usize,
    judged: BTreeSet<(Kind, Key)>,
}

/// One stream.
struct Asking {
    caller: Caller,
    now: Arc<Compiled>,
    woken: Arc<Notify>,
}

/// One stream's place in the hub; it is forgotten with it.
pub struct Following {
    policies: Arc<Policies>,
    number: u64,
    woken: Arc<Notify>,
}

impl Policies {
    /// `root`: the mesh's own namespace.
    pub fn new(trust_domain: TrustDomain, root: &str, metrics: Arc<Metrics>) -> Arc<Self> {
        let inner = Inner {
            catalog: Catalog::new(trust_domain, root.to_owned()),
            streams: HashMap::new(),
            by_address: HashMap::new(),
            by_namespace: HashMap::new(),
            compiled: HashMap::new(),
            last: 0,
            over_bound: 0,
            judged: BTreeSet::new(),
        };
        let (inner, listed) = (Mutex::new(inner), AtomicU8::new(0));
        Arc::new(Self { inner, listed, to_judge: Notify::new(), metrics })
    }

    pub(super) fn policies(&self, kind: Kind, news: News<Policy>) {
        let listed = match kind {
            Kind::Authentication => AUTHENTICATIONS,
            Kind::Authorization => AUTHORIZATIONS,
        };
        self.tell(listed, matches!(news, News::All(_)), |it| it.policies(kind, news));
    }

    pub fn services(&self, news: News<Service>) {
        self.tell(SERVICES, matches!(news, News::All(_)), |it| it.services(news));
    }

    pub fn pods(&self, news: News<Pod>) {
        self.tell(PODS, matches!(news, News::All(_)), |it| it.pods(news));
    }

    /// Whether everything was listed once: before, nobody is told anything.
    pub fn is_complete(&self) -> bool {
        let all = AUTHENTICATIONS | AUTHORIZATIONS | SERVICES | PODS;
        self.listed.load(Ordering::Relaxed) == all
    }

    fn tell(&self, listed: u8, is_all: bool, change: impl FnOnce(&mut Catalog) -> Touched) {
        let mut inner = self.inner();
        let touched = change(&mut inner.catalog);
        inner.tell(&touched);
        if is_all {
            self.listed.fetch_or(listed, Ordering::Relaxed);
        }
        self.metrics.policies_over_bound(inner.over_bound);
        if !touched.policies.is_empty() || !touched.namespaces.is_empty() {
            for kind in Kind::ALL {
                self.metrics.policies(kind.word(), inner.catalog.count(kind));
            }
        }
        inner.judged.extend(touched.policies);
        if !inner.judged.is_empty() {
            self.to_judge.notify_one();
        }
    }

    /// Follows what is said of whoever has this identity at these addresses.
    pub fn follow(self: &Arc<Self>, id: &SpiffeId, addresses: &[IpAddr]) -> Following {
        let mut inner = self.inner();
        inner.last += 1;
        let (number, woken) = (inner.last, Arc::new(Notify::new()));
        let account = id.namespace().zip(id.service_account());
        let caller = Caller {
            account: account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned())),
            addresses: addresses.iter().map(IpAddr::to_canonical).collect(),
        };
        for address in &caller.addresses {
            inner.by_address.entry(*address).or_default().insert(number);
        }
        if let Some((namespace, _)) = &caller.account {
            inner.by_namespace.entry(namespace.clone()).or_default().insert(number);
        }
        let now = inner.compiled(&caller);
        inner.over_bound += usize::from(now.is_over);
        let asking = Asking { caller, now, woken: Arc::clone(&woken) };
        inner.streams.insert(number, asking);
        self.metrics.policies_over_bound(inner.over_bound);
        Following { policies: Arc::clone(self), number, woken }
    }

    /// Waits for policies of which something may have to be said.
    pub(super) async fn to_judge(&self) -> BTreeSet<(Kind, Key)> {
        loop {
            // Before that a Service that is merely not listed yet would be one that is not there.
            if self.is_complete() {
                let judged = std::mem::take(&mut self.inner().judged);
                if !judged.is_empty() {
                    return judged;
                }
            }
            self.to_judge.notified().await;
        }
    }

    pub(super) fn judge_again(&self, kind: Kind, key: Key) {
        self.inner().judged.insert((kind, key));
        self.to_judge.notify_one();
    }

    /// What should be said of a policy, and what is said.
    pub(super) fn verdict(&self, kind: Kind, key: &Key) -> Option<(Verdict, Option<Condition>)> {
        self.inner().catalog.verdict(kind, key)
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn tell(&mut self, touched: &Touched) {
        if touched.everybody || !touched.namespaces.is_empty() {
            self.compiled.clear();
        }
        let concerned: Vec<u64> = match touched.everybody {
            true => self.streams.keys().copied().collect(),
            false => {
                let at = touched.addresses.iter().filter_map(|it| self.by_address.get(it));
                let of = touched.namespaces.iter().filter_map(|it| self.by_namespace.get(it));
                let both: HashSet<u64> = at.chain(of).flatten().copied().collect();
                both.into_iter().collect()
            }
        };
        for number in concerned {
            let Some(caller) = self.streams.get(&number).map(|it| it.caller.clone()) else {
                continue;
            };
            let now = self.compiled(&caller);
            let Some(asking) = self.streams.get_mut(&number) else { continue };
            if asking.now.encoded != now.encoded {
                asking.woken.notify_one();
            }
            self.over_bound += usize::from(now.is_over);
            self.over_bound -= usize::from(asking.now.is_over);
            asking.now = now;
        }
    }

    fn compiled(&mut self, caller: &Caller) -> Arc<Compiled> {
        let subject = self.catalog.subject(caller);
        if let Some(now) = self.compiled.get(&subject) {
            return Arc::clone(now);
        }
        // Of those who are gone.
        if self.compiled.len() > self.streams.len() {
            self.compiled.retain(|_, it| Arc::strong_count(it) > 1);
        }
        let now = Arc::new(self.catalog.compile(&subject));
        self.compiled.insert(subject, Arc::clone(&now));
        now
    }

    fn leave(&mut self, number: u64) {
        let Some(Asking { caller, now, .. }) = self.streams.remove(&number) else { return };
        self.over_bound -= usize::from(now.is_over);
        for address in caller.addresses {
            forget(&mut self.by_address, &address, number);
        }
        if let Some((namespace, _)) = caller.account {
            forget(&mut self.by_namespace, &namespace, number);
        }
    }
}

fn forget<K: Eq + Hash>(index: &mut HashMap<K, BTreeSet<u64>>, key: &K, number: u64) {
    if let Some(there) = index.get_mut(key) {
        there.remove(&number);
        if there.is_empty() {
            index.remove(key);
        }
    }
}

impl Following {
    /// Until something else may be said.
    pub async fn woken(&self) {
        self.woken.notified().await;
    }

    pub fn now(&self) -> EncodedPolicy {
        let inner = self.policies.inner();
        let asking = inner.streams.get(&self.number);
        asking.expect("it is there as long as we are").now.encoded.clone()
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut inner = self.policies.inner();
        inner.leave(self.number);
        self.policies.metrics.policies_over_bound(inner.over_bound);
    }
}
