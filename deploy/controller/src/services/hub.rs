//! Between what the API server says and those who ask: for each address and port that anybody watches,
//! what is behind it, encoded once, and whom to wake when that changes. Called by `mod` with news and
//! by `serve` with questions.
//!
//! Never: computes what nobody asks for, wakes whom it does not concern, awaits.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use myelin_identity::id::TrustDomain;
use myelin_identity::services::EncodedService;
use tokio::sync::Notify;

use super::catalog::{Catalog, Touched};
use super::objects::{Node, Pod, Service, Slice};
use crate::cluster::News;

/// One stream's letterbox: which of its places may have changed.
#[derive(Default)]
pub(super) struct Mailbox {
    touched: Mutex<BTreeSet<SocketAddr>>,
    woken: Notify,
}

impl Mailbox {
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// What has come since; at most as much as the stream watches.
    pub(super) fn take(&self) -> BTreeSet<SocketAddr> {
        std::mem::take(&mut *self.touched.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn put(&self, place: SocketAddr) {
        self.touched.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
        self.woken.notify_one();
    }
}

pub(super) struct Hub {
    inner: Mutex<Inner>,
    complete: Complete,
}

/// What has been listed at least once.
#[derive(Debug, Default)]
struct Complete {
    services: AtomicBool,
    slices: AtomicBool,
    pods: AtomicBool,
}

struct Inner {
    catalog: Catalog,
    asked: HashMap<IpAddr, HashMap<u16, Asked>>,
    streams: u64,
}

#[derive(Default)]
struct Asked {
    /// `None`: it is no service.
    now: Option<EncodedService>,
    by: HashMap<u64, Arc<Mailbox>>,
}

/// One stream's place in the hub; what it asked is forgotten with it.
pub(super) struct Stream {
    hub: Arc<Hub>,
    number: u64,
    pub(super) mailbox: Arc<Mailbox>,
    places: BTreeSet<SocketAddr>,
}

impl Hub {
    pub(super) fn new(trust_domain: TrustDomain) -> Arc<Self> {
        let catalog = Catalog::new(trust_domain);
        let inner = Inner { catalog, asked: HashMap::new(), streams: 0 };
        Arc::new(Self { inner: Mutex::new(inner), complete: Complete::default() })
    }

    pub(super) fn services(&self, news: News<Service>) {
        let is_all = matches!(news, News::All(_));
        self.tell(|catalog| catalog.services(news));
        self.complete.services.fetch_or(is_all, Ordering::Relaxed);
    }

    pub(super) fn slices(&self, news: News<Slice>) {
        let is_all = matches!(news, News::All(_));
        self.tell(|catalog| catalog.slices(news));
        self.complete.slices.fetch_or(is_all, Ordering::Relaxed);
    }

    pub(super) fn pods(&self, news: News<Pod>) {
        let is_all = matches!(news, News::All(_));
        self.tell(|catalog| catalog.pods(news));
        self.complete.pods.fetch_or(is_all, Ordering::Relaxed);
    }

    /// A zone that changes reaches a sidecar with the next change of a service.
    pub(super) fn nodes(&self, news: News<Node>) {
        self.inner().catalog.nodes(news);
    }

    /// Whether everything was listed once: before, nobody is told that something is no service.
    pub(super) fn is_complete(&self) -> bool {
        let Complete { services, slices, pods } = &self.complete;
        [services, slices, pods].iter().all(|listed| listed.load(Ordering::Relaxed))
    }

    pub(super) fn join(self: &Arc<Self>) -> Stream {
        let mut inner = self.inner();
        inner.streams += 1;
        let (number, mailbox) = (inner.streams, Arc::default());
        Stream { hub: Arc::clone(self), number, mailbox, places: BTreeSet::new() }
    }

    fn tell(&self, change: impl FnOnce(&mut Catalog) -> Touched) {
        let mut inner = self.inner();
        let Inner { catalog, asked, .. } = &mut *inner;
        let touched = change(catalog);
        for address in touched {
            for (port, asked) in asked.get_mut(&address).into_iter().flatten() {
                let place = SocketAddr::new(address, *port);
                let now = catalog.view(place).map(|view| EncodedService::new(&view));
                if asked.now != now {
                    asked.now = now;
                    asked.by.values().for_each(|mailbox| mailbox.put(place));
                }
            }
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stream {
    /// How many places it watches.
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn watches(&self, place: SocketAddr) -> bool {
        self.places.contains(&place)
    }

    pub(super) fn watch(&mut self, place: SocketAddr) {
        let mut inner = self.hub.inner();
        let Inner { catalog, asked, .. } = &mut *inner;
        let asked = asked.entry(place.ip()).or_default().entry(place.port()).or_insert_with(|| {
            let now = catalog.view(place).map(|view| EncodedService::new(&view));
            Asked { now, by: HashMap::new() }
        });
        asked.by.insert(self.number, Arc::clone(&self.mailbox));
        self.places.insert(place);
    }

    pub(super) fn forget(&mut self, place: SocketAddr) {
        if self.places.remove(&place) {
            self.hub.inner().leave(place, self.number);
        }
    }

    /// What is behind a place that this stream watches.
    pub(super) fn now(&self, place: SocketAddr) -> Option<EncodedService> {
        self.hub.inner().asked.get(&place.ip())?.get(&place.port())?.now.clone()
    }

    #[cfg(test)]
    pub(super) fn view(&self, place: SocketAddr) -> Option<myelin_identity::services::ServiceView> {
        self.hub.inner().catalog.view(place)
    }

    /// Where whoever has these addresses is.
    pub(super) fn zone(&self, addresses: &[IpAddr]) -> Arc<str> {
        self.hub.inner().catalog.zone(addresses).cloned().unwrap_or_default()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.hub.inner();
        for place in std::mem::take(&mut self.places) {
            inner.leave(place, self.number);
        }
    }
}

impl Inner {
    fn leave(&mut self, place: SocketAddr, number: u64) {
        let Some(ports) = self.asked.get_mut(&place.ip()) else { return };
        if let Some(asked) = ports.get_mut(&place.port()) {
            asked.by.remove(&number);
            if asked.by.is_empty() {
                ports.remove(&place.port());
            }
        }
        if ports.is_empty() {
            self.asked.remove(&place.ip());
        }
    }
}
