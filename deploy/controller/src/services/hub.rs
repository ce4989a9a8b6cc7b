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
use super::moved::Moved;
use super::objects::{Node, Pod, Service, Slice};
use crate::cluster::News;

/// One stream's letterbox.
#[derive(Default)]
pub(super) struct Mailbox {
    mail: Mutex<Mail>,
    woken: Notify,
}

/// What may have changed for a stream.
#[derive(Default)]
pub(super) struct Mail {
    /// At most as many places as it watches.
    pub(super) touched: BTreeSet<SocketAddr>,
    /// Whoever asks is in another zone than before.
    pub(super) moved: bool,
}

impl Mailbox {
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// What has come since.
    pub(super) fn take(&self) -> Mail {
        std::mem::take(&mut *self.mail())
    }

    fn put(&self, place: SocketAddr) {
        self.mail().touched.insert(place);
        self.woken.notify_one();
    }

    fn moved(&self) {
        self.mail().moved = true;
        self.woken.notify_one();
    }

    fn mail(&self) -> MutexGuard<'_, Mail> {
        self.mail.lock().unwrap_or_else(PoisonError::into_inner)
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
    callers: HashMap<u64, Caller>,
    by_caller: HashMap<IpAddr, BTreeSet<u64>>,
    streams: u64,
}

/// Who is at the other end of a stream.
struct Caller {
    addresses: Vec<IpAddr>,
    zone: Arc<str>,
    mailbox: Arc<Mailbox>,
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
        let (asked, callers, by_caller) = Default::default();
        let inner = Inner { catalog, asked, callers, by_caller, streams: 0 };
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
        self.inner().look_for_callers();
        self.complete.pods.fetch_or(is_all, Ordering::Relaxed);
    }

    pub(super) fn nodes(&self, news: News<Node>) {
        let mut inner = self.inner();
        inner.catalog.nodes(news);
        inner.look_for_callers();
    }

    /// Whether everything was listed once: before, nobody is told that something is no service.
    pub(super) fn is_complete(&self) -> bool {
        let Complete { services, slices, pods } = &self.complete;
        [services, slices, pods].iter().all(|listed| listed.load(Ordering::Relaxed))
    }

    /// A stream of whoever has these addresses.
    pub(super) fn join(self: &Arc<Self>, addresses: &[IpAddr]) -> Stream {
        let mut inner = self.inner();
        inner.streams += 1;
        let (number, mailbox) = (inner.streams, Arc::<Mailbox>::default());
        let zone = inner.catalog.zone(addresses).cloned().unwrap_or_default();
        for address in addresses {
            inner.by_caller.entry(*address).or_default().insert(number);
        }
        let caller = Caller { addresses: addresses.to_vec(), zone, mailbox: Arc::clone(&mailbox) };
        inner.callers.insert(number, caller);
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

    /// Where whoever asks is; empty: not known.
    pub(super) fn zone(&self) -> Arc<str> {
        let inner = self.hub.inner();
        inner.callers.get(&self.number).map(|caller| Arc::clone(&caller.zone)).unwrap_or_default()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let mut inner = self.hub.inner();
        for place in std::mem::take(&mut self.places) {
            inner.leave(place, self.number);
        }
        inner.forget_caller(self.number);
    }
}

impl Inner {
    /// Tells those callers whose zone is another one by the last news.
    fn look_for_callers(&mut self) {
        let numbers: Vec<u64> = match self.catalog.take_moved() {
            Moved::Anybody => self.callers.keys().copied().collect(),
            Moved::Those(addresses) => {
                let there = addresses.iter().filter_map(|address| self.by_caller.get(address));
                there.flatten().copied().collect()
            }
        };
        for number in numbers {
            let Some(caller) = self.callers.get_mut(&number) else { continue };
            let zone = self.catalog.zone(&caller.addresses).cloned().unwrap_or_default();
            if caller.zone != zone {
                caller.zone = zone;
                caller.mailbox.moved();
            }
        }
    }

    fn forget_caller(&mut self, number: u64) {
        let Some(caller) = self.callers.remove(&number) else { return };
        for address in caller.addresses {
            if let Some(numbers) = self.by_caller.get_mut(&address) {
                numbers.remove(&number);
                if numbers.is_empty() {
                    self.by_caller.remove(&address);
                }
            }
        }
    }

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
