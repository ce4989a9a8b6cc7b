//! The Services and Pods that say whom a policy selects, as the API server last told. Pure. Called by
//! `catalog`.
//!
//! Never: believes a caller about its labels; takes a pod that may be the caller for the caller.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

use super::objects::{Key, Pod, Service};
use crate::cluster::News;

/// Who asks, as the certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// Namespace and service account; absent: it is no pod's identity.
    pub(super) account: Option<(String, String)>,
    pub(super) addresses: Vec<IpAddr>,
}

/// Labels and their values, all of which a pod must have.
pub(super) type Selector = BTreeMap<String, String>;

#[derive(Default)]
pub(super) struct Workloads {
    services: HashMap<Key, Selector>,
    pods: HashMap<Key, Pod>,
    by_address: HashMap<IpAddr, BTreeSet<Key>>,
}

impl Workloads {
    /// Those that select others than before.
    pub(super) fn services(&mut self, news: News<Service>) -> BTreeSet<Key> {
        let keyed = |it: Service| (Key::new(&it.namespace, &it.name), it.selector);
        match news {
            News::All(services) => {
                let now = services.into_iter().map(keyed).collect();
                let before = std::mem::replace(&mut self.services, now);
                before.into_keys().chain(self.services.keys().cloned()).collect()
            }
            News::Now(service) => {
                let (key, selector) = keyed(service);
                let is_same = self.services.get(&key) == Some(&selector);
                self.services.insert(key.clone(), selector);
                if is_same { BTreeSet::new() } else { [key].into() }
            }
            News::Gone(meta) => {
                let key = Key::new(&meta.namespace, &meta.name);
                self.services.remove(&key);
                [key].into()
            }
        }
    }

    /// The addresses at which somebody else may be now, or the same one with other labels.
    pub(super) fn pods(&mut self, news: News<Pod>) -> HashSet<IpAddr> {
        let mut touched = HashSet::new();
        match news {
            News::All(pods) => {
                (self.pods, self.by_address) = (HashMap::new(), HashMap::new());
                pods.into_iter().for_each(|pod| self.put_pod(pod, &mut touched));
            }
            News::Now(pod) => self.put_pod(pod, &mut touched),
            News::Gone(meta) => {
                self.drop_pod(&Key::new(&meta.namespace, &meta.name), &mut touched);
            }
        }
        touched
    }

    fn put_pod(&mut self, pod: Pod, touched: &mut HashSet<IpAddr>) {
        let key = Key::new(&pod.namespace, &pod.name);
        if self.pods.get(&key) == Some(&pod) {
            return;
        }
        self.drop_pod(&key, touched);
        for address in &pod.addresses {
            self.by_address.entry(*address).or_default().insert(key.clone());
        }
        touched.extend(&pod.addresses);
        self.pods.insert(key, pod);
    }

    fn drop_pod(&mut self, key: &Key, touched: &mut HashSet<IpAddr>) {
        for address in self.pods.remove(key).into_iter().flat_map(|pod| pod.addresses) {
            if let Some(there) = self.by_address.get_mut(&address) {
                there.remove(key);
                if there.is_empty() {
                    self.by_address.remove(&address);
                }
            }
            touched.insert(address);
        }
    }

    /// The one pod that has the caller's account and all of its addresses.
    pub(super) fn pod_of(&self, caller: &Caller) -> Option<&Pod> {
        let (namespace, account) = caller.account.as_ref()?;
        let first = self.by_address.get(caller.addresses.first()?)?.iter();
        let mut fitting = first.filter_map(|key| self.pods.get(key)).filter(|pod| {
            pod.namespace == *namespace
                && pod.account == *account
                && caller.addresses.iter().all(|address| pod.addresses.contains(address))
        });
        // Of two that fit, nobody knows which one asks.
        fitting.next().filter(|_| fitting.next().is_none())
    }

    pub(super) fn selector(&self, service: &Key) -> Option<&Selector> {
        self.services.get(service)
    }

    pub(super) fn is_behind(&self, service: &Key, pod: &Pod) -> bool {
        let fits = |selector: &Selector| {
            let mut all = selector.iter();
            !selector.is_empty() && all.all(|(label, value)| pod.labels.get(label) == Some(value))
        };
        self.services.get(service).is_some_and(fits)
    }
}
