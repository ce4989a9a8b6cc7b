//! Services, their endpoints and the pods behind them, as the API server last said, and what follows
//! from it for one address and port. Pure: news in, touched addresses out. Called by `hub`.
//!
//! Never: an endpoint whose pod is unknown or has no identity of its own; reads a clock, asks.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use myelin_identity::id::{SpiffeId, TrustDomain};
use myelin_identity::services::{EndpointView, MAX_ENDPOINTS_TOLD, MAX_ZONE_BYTES, ServiceView};

use super::DEFAULT_ACCOUNT;
use super::moved::Moved;
use super::objects::{Node, Pod, Service, Slice, address, is_tcp};
use crate::cluster::News;

/// By which label an EndpointSlice says whose it is.
const SERVICE_NAME: &str = "kubernetes.io/service-name";
/// By which label a node says where it is.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Namespace and name, with a slash between.
type Key = Arc<str>;
/// Addresses of which something else may be true now.
pub(super) type Touched = HashSet<IpAddr>;

pub(super) struct Catalog {
    trust_domain: TrustDomain,
    services: HashMap<Key, Known>,
    by_address: HashMap<IpAddr, Key>,
    /// In the order of their keys, so that those of one namespace lie together.
    slices: BTreeMap<Key, Kept>,
    of_service: HashMap<Key, BTreeSet<Key>>,
    pods: HashMap<Key, Lodger>,
    by_pod_address: HashMap<IpAddr, Key>,
    zones: HashMap<String, Arc<str>>,
    moved: Moved,
    /// Accounts and nodes have the same few names again and again.
    names: HashSet<Arc<str>>,
}

struct Known {
    addresses: Vec<IpAddr>,
    /// Port and its name.
    ports: Vec<(u16, Arc<str>)>,
}

struct Kept {
    service: Key,
    is_v6: bool,
    /// Port and its name.
    ports: Vec<(u16, Arc<str>)>,
    endpoints: Vec<Behind>,
}

struct Behind {
    addresses: Vec<IpAddr>,
    pod: Option<Key>,
    zone: Option<Arc<str>>,
    is_ready: bool,
    goes: bool,
}

#[derive(Clone, PartialEq, Eq)]
struct Lodger {
    account: Arc<str>,
    node: Arc<str>,
    host_network: bool,
    addresses: Vec<IpAddr>,
}

impl Catalog {
    pub(super) fn new(trust_domain: TrustDomain) -> Self {
        Self {
            trust_domain,
            services: HashMap::new(),
            by_address: HashMap::new(),
            slices: BTreeMap::new(),
            of_service: HashMap::new(),
            pods: HashMap::new(),
            by_pod_address: HashMap::new(),
            zones: HashMap::new(),
            moved: Moved::default(),
            names: HashSet::new(),
        }
    }

    /// What is behind this address and port; `None`: they are no service's.
    pub(super) fn view(&self, place: SocketAddr) -> Option<ServiceView> {
        let key = self.by_address.get(&place.ip())?;
        let service = self.services.get(key)?;
        let (_, port) = service.ports.iter().find(|(port, _)| *port == place.port())?;
        let (mut endpoints, mut unmeshed) = (Vec::new(), 0);
        let slices = self.of_service.get(key).into_iter().flatten();
        for slice in slices.filter_map(|slice| self.slices.get(slice)) {
            if slice.is_v6 != place.is_ipv6() {
                continue;
            }
            let Some((target, _)) = slice.ports.iter().find(|(_, name)| name == port) else {
                continue;
            };
            for behind in &slice.endpoints {
                self.behind(key, behind, *target, &mut endpoints, &mut unmeshed);
            }
        }
        // While an endpoint moves from slice to slice it is in both, and one of them may know less.
        endpoints.sort_unstable_by(|a, b| {
            (a.address, a.terminating, &a.id).cmp(&(b.address, b.terminating, &b.id))
        });
        endpoints.dedup_by_key(|endpoint| endpoint.address);
        endpoints.sort_by_key(|endpoint| endpoint.terminating);
        endpoints.truncate(MAX_ENDPOINTS_TOLD);
        Some(ServiceView { name: key.to_string(), endpoints, unmeshed })
    }

    fn behind(
        &self,
        service: &Key,
        behind: &Behind,
        port: u16,
        endpoints: &mut Vec<EndpointView>,
        unmeshed: &mut u32,
    ) {
        if !behind.is_ready && !behind.goes {
            return;
        }
        let namespace = service.split('/').next().unwrap_or_default();
        let pod = behind.pod.as_ref().and_then(|pod| self.pods.get(pod));
        // A pod in its node's network has that node's address, at which others live as well.
        let meshed = pod.filter(|pod| !pod.host_network).and_then(|pod| {
            Some((pod, SpiffeId::workload(&self.trust_domain, namespace, &pod.account).ok()?))
        });
        let Some((pod, id)) = meshed else {
            *unmeshed += 1;
            return;
        };
        for address in &behind.addresses {
            // Whoever may write slices can name any address for a pod; the pod's own status cannot.
            if !pod.addresses.contains(address) {
                *unmeshed += 1;
                continue;
            }
            endpoints.push(EndpointView {
                address: SocketAddr::new(*address, port),
                id: id.clone(),
                zone: behind.zone.clone(),
                terminating: !behind.is_ready,
            });
        }
    }

    /// Where the node of whoever has one of these addresses is.
    pub(super) fn zone(&self, addresses: &[IpAddr]) -> Option<&Arc<str>> {
        let pod = addresses.iter().find_map(|address| self.by_pod_address.get(address))?;
        self.zones.get(&*self.pods.get(pod)?.node)
    }

    pub(super) fn services(&mut self, news: News<Service>) -> Touched {
        let mut touched = Touched::new();
        match news {
            News::All(services) => {
                touched.extend(self.by_address.keys());
                (self.services, self.by_address) = (HashMap::new(), HashMap::new());
                for service in services {
                    self.put_service(&service, &mut touched);
                }
            }
            News::Now(service) => {
                self.drop_service(&key_of(&service.metadata), &mut touched);
                self.put_service(&service, &mut touched);
            }
            News::Gone(meta) => self.drop_service(&key_of(&meta), &mut touched),
        }
        touched
    }

    fn put_service(&mut self, service: &Service, touched: &mut Touched) {
        let key = key_of(&service.metadata);
        let addresses: Vec<IpAddr> =
            service.spec.cluster_ips.iter().filter_map(|text| address(text)).collect();
        // Headless ones and names for elsewhere have no address that anybody could dial.
        if addresses.is_empty() {
            return;
        }
        let tcp = service.spec.ports.iter().filter(|port| is_tcp(port.protocol.as_deref()));
        let ports = tcp.map(|port| (port.port, self.name(port.name.as_deref()))).collect();
        for address in &addresses {
            self.by_address.insert(*address, Arc::clone(&key));
            touched.insert(*address);
        }
        self.services.insert(key, Known { addresses, ports });
    }

    fn drop_service(&mut self, key: &Key, touched: &mut Touched) {
        for address in self.services.remove(key).into_iter().flat_map(|known| known.addresses) {
            // Another may have it by now.
            if self.by_address.get(&address) == Some(key) {
                self.by_address.remove(&address);
            }
            touched.insert(address);
        }
    }

    pub(super) fn slices(&mut self, news: News<Slice>) -> Touched {
        let mut of = BTreeSet::new();
        match news {
            News::All(slices) => {
                of.extend(self.of_service.keys().cloned());
                (self.slices, self.of_service) = (BTreeMap::new(), HashMap::new());
                for slice in slices {
                    of.extend(self.put_slice(slice));
                }
            }
            News::Now(slice) => {
                of.extend(self.drop_slice(&key_of(&slice.metadata)));
                of.extend(self.put_slice(slice));
            }
            News::Gone(meta) => of.extend(self.drop_slice(&key_of(&meta))),
        }
        self.addresses_of(&of)
    }

    fn put_slice(&mut self, slice: Slice) -> Option<Key> {
        let (key, meta) = (key_of(&slice.metadata), slice.metadata);
        let service: Key = format!("{}/{}", meta.namespace, meta.labels.get(SERVICE_NAME)?).into();
        let is_v6 = match slice.address_type.as_str() {
            "IPv4" => false,
            "IPv6" => true,
            // Names, which are deprecated.
            _ => return None,
        };
        let tcp = slice.ports.into_iter().filter(|port| is_tcp(port.protocol.as_deref()));
        let number = |port: Option<i64>| u16::try_from(port?).ok().filter(|port| *port != 0);
        let ports = tcp
            .filter_map(|port| Some((number(port.port)?, self.name(port.name.as_deref()))))
            .collect();
        let mut endpoints = Vec::with_capacity(slice.endpoints.len());
        for endpoint in slice.endpoints {
            let pod = endpoint.target_ref.filter(|target| target.kind == "Pod");
            endpoints.push(Behind {
                addresses: endpoint.addresses.iter().filter_map(|text| address(text)).collect(),
                pod: pod.map(|pod| format!("{}/{}", meta.namespace, pod.name).into()),
                zone: endpoint
                    .zone
                    .filter(|zone| zone.len() <= MAX_ZONE_BYTES)
                    .map(|zone| self.name(Some(&zone))),
                is_ready: endpoint.conditions.is_ready(),
                goes: endpoint.conditions.goes(),
            });
        }
        self.of_service.entry(Arc::clone(&service)).or_default().insert(Arc::clone(&key));
        self.slices.insert(key, Kept { service: Arc::clone(&service), is_v6, ports, endpoints });
        Some(service)
    }

    fn drop_slice(&mut self, key: &Key) -> Option<Key> {
        let service = self.slices.remove(key)?.service;
        if let Some(slices) = self.of_service.get_mut(&service) {
            slices.remove(key);
            if slices.is_empty() {
                self.of_service.remove(&service);
            }
        }
        Some(service)
    }

    pub(super) fn pods(&mut self, news: News<Pod>) -> Touched {
        match news {
            News::All(pods) => {
                (self.pods, self.by_pod_address) = (HashMap::new(), HashMap::new());
                for pod in &pods {
                    self.put_pod(pod);
                }
                self.moved = Moved::Anybody;
                self.by_address.keys().copied().collect()
            }
            News::Now(pod) => {
                let key = self.put_pod(&pod);
                key.map(|key| self.in_front_of(&key)).unwrap_or_default()
            }
            News::Gone(meta) => {
                let key = key_of(&meta);
                self.forget_pod(&key);
                self.in_front_of(&key)
            }
        }
    }

    /// Its key, if something of it is news.
    fn put_pod(&mut self, pod: &Pod) -> Option<Key> {
        let key = key_of(&pod.metadata);
        let account = match pod.spec.service_account_name.as_str() {
            "" => DEFAULT_ACCOUNT,
            named => named,
        };
        let lodger = Lodger {
            account: self.name(Some(account)),
            node: self.name(Some(&pod.spec.node_name)),
            host_network: pod.spec.host_network,
            addresses: pod.status.pod_ips.iter().filter_map(|it| address(&it.ip)).collect(),
        };
        if self.pods.get(&key) == Some(&lodger) {
            return None;
        }
        self.forget_pod(&key);
        self.moved.extend(&lodger.addresses);
        if !lodger.host_network {
            let addresses = lodger.addresses.iter();
            self.by_pod_address.extend(addresses.map(|address| (*address, Arc::clone(&key))));
        }
        self.pods.insert(Arc::clone(&key), lodger);
        Some(key)
    }

    fn forget_pod(&mut self, key: &Key) {
        let Some(lodger) = self.pods.remove(key) else { return };
        self.moved.extend(&lodger.addresses);
        for address in lodger.addresses {
            // Another may have it by now.
            if self.by_pod_address.get(&address) == Some(key) {
                self.by_pod_address.remove(&address);
            }
        }
    }

    /// The addresses of the services behind which this pod is: they are of its namespace.
    fn in_front_of(&self, pod: &Key) -> Touched {
        let namespace = pod.split('/').next().unwrap_or_default();
        let from: Key = format!("{namespace}/").into();
        let is_named = |slice: &Kept| slice.endpoints.iter().any(|it| it.pod.as_ref() == Some(pod));
        let there = self.slices.range(Arc::clone(&from)..);
        let there = there.take_while(|(key, _)| key.starts_with(&*from));
        let named = there.filter(|(_, slice)| is_named(slice));
        self.addresses_of(&named.map(|(_, slice)| Arc::clone(&slice.service)).collect())
    }

    pub(super) fn nodes(&mut self, news: News<Node>) {
        let nodes = match news {
            News::All(nodes) => {
                (self.zones, self.moved) = (HashMap::new(), Moved::Anybody);
                nodes
            }
            News::Now(node) => vec![node],
            News::Gone(meta) => {
                if self.zones.remove(&meta.name).is_some() {
                    self.moved = Moved::Anybody;
                }
                return;
            }
        };
        for node in nodes {
            let zone = node.metadata.labels.get(ZONE).map(|zone| self.name(Some(zone)));
            let before = match zone.clone() {
                Some(zone) => self.zones.insert(node.metadata.name, zone),
                None => self.zones.remove(&node.metadata.name),
            };
            if before != zone {
                self.moved = Moved::Anybody;
            }
        }
    }

    /// Whose zone the news since the last time may have changed.
    pub(super) fn take_moved(&mut self) -> Moved {
        std::mem::take(&mut self.moved)
    }

    fn addresses_of(&self, services: &BTreeSet<Key>) -> Touched {
        let known = services.iter().filter_map(|key| self.services.get(key));
        known.flat_map(|known| &known.addresses).copied().collect()
    }

    /// One copy of each name; absent is empty.
    fn name(&mut self, name: Option<&str>) -> Arc<str> {
        let name = name.unwrap_or_default();
        if let Some(known) = self.names.get(name) {
            return Arc::clone(known);
        }
        let known: Arc<str> = name.into();
        // Names of things that are long gone: whoever still holds one keeps its copy.
        if self.names.len() >= super::MAX_NAMES {
            self.names.clear();
        }
        self.names.insert(Arc::clone(&known));
        known
    }
}

fn key_of(meta: &crate::cluster::Meta) -> Key {
    format!("{}/{}", meta.namespace, meta.name).into()
}
