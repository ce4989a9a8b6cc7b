//! Who lives where, now: the directory's view of the live claims, kept in memory and announced at
//! each change. `authority` fills it from the journal at start and after every commit; `api`
//! answers `WatchDirectory` from it.
//!
//! Never: answers with an expired claim, or outlives the journal as a source of truth.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use tokio::sync::broadcast;

use crate::clock::UnixSeconds;
use crate::journal::{AddressRecord, Claim, Hex};

/// Changes that a slow watcher may fall behind before it has to ask all its questions again.
const CHANGES_KEPT: usize = 1024;

/// The live claims of all addresses.
#[derive(Debug)]
pub struct Live {
    claims: RwLock<HashMap<IpAddr, Vec<Claim>>>,
    /// By which commit each address is known: news of one commit come twice (from whoever made it,
    /// and from the store's watch), and not always in the order in which commits happened.
    as_of: Mutex<HashMap<IpAddr, u64>>,
    changes: broadcast::Sender<IpAddr>,
}

impl Default for Live {
    fn default() -> Self {
        let changes = broadcast::Sender::new(CHANGES_KEPT);
        Self { claims: RwLock::default(), as_of: Mutex::default(), changes }
    }
}

impl Live {
    /// Who is at this address and port: the claim of that port, else the one of all ports. Port 0
    /// asks for anybody at this address.
    pub fn at(&self, address: IpAddr, port: u16, now: UnixSeconds) -> Option<Claim> {
        let claims = self.read();
        let here = claims.get(&address)?;
        let live = |wanted: Option<u16>| {
            here.iter().find(|claim| claim.port == wanted && claim.not_after > now).cloned()
        };
        let anybody = || here.iter().find(|claim| claim.not_after > now).cloned();
        let found = live(Some(port)).or_else(|| live(None));
        // Port 0 is nobody's: it asks whether anybody at all lives at the address.
        if port == 0 { found.or_else(anybody) } else { found }
    }

    /// Whether anybody lives at this address.
    pub fn is_inhabited(&self, address: IpAddr, now: UnixSeconds) -> bool {
        let claims = self.read();
        claims.get(&address).is_some_and(|here| here.iter().any(|claim| claim.not_after > now))
    }

    /// Addresses whose claims change from now on.
    pub fn changes(&self) -> broadcast::Receiver<IpAddr> {
        self.changes.subscribe()
    }

    /// How many different SVIDs are live.
    pub fn count(&self, now: UnixSeconds) -> usize {
        self.unexpired(now)
            .into_iter()
            .map(|(_, claim)| claim.serial)
            .collect::<HashSet<Hex>>()
            .len()
    }

    /// The host whose current SVID has this serial, looked for at the SVID's own addresses.
    pub(super) fn host_of(&self, addresses: &[IpAddr], serial: &Hex) -> Option<Hex> {
        let claims = self.read();
        let here = addresses.iter().filter_map(|address| claims.get(address)).flatten();
        here.into_iter().find(|claim| claim.serial == *serial).map(|claim| claim.host.clone())
    }

    /// All live claims, in no order.
    pub fn unexpired(&self, now: UnixSeconds) -> Vec<(IpAddr, Claim)> {
        let claims = self.read();
        let all = claims
            .iter()
            .flat_map(|(address, here)| here.iter().map(|claim| (*address, claim.clone())));
        all.filter(|(_, claim)| claim.not_after > now).collect()
    }

    /// Takes over what the commit with this revision wrote for one address, unless a later one is
    /// known.
    pub(super) fn publish(&self, address: IpAddr, record: &AddressRecord, revision: u64) {
        let mut as_of = self.as_of.lock().unwrap_or_else(PoisonError::into_inner);
        let known = as_of.entry(address).or_default();
        if revision < *known {
            return;
        }
        let again = revision == *known;
        *known = revision;
        self.put(address, record.claims.clone());
        drop(as_of);
        if !again {
            // Nobody watching is fine.
            let _ = self.changes.send(address);
        }
    }

    /// The record of this address was removed by the commit with this revision.
    pub(super) fn forget(&self, address: IpAddr, revision: u64) {
        let mut as_of = self.as_of.lock().unwrap_or_else(PoisonError::into_inner);
        if as_of.get(&address).is_some_and(|known| *known > revision) {
            return;
        }
        as_of.remove(&address);
        self.put(address, Vec::new());
        drop(as_of);
        let _ = self.changes.send(address);
    }

    /// Forgets every address that is not among `there` and was not written after `revision`.
    pub(super) fn retain(&self, there: &HashSet<IpAddr>, revision: u64) {
        let known: Vec<IpAddr> = {
            let as_of = self.as_of.lock().unwrap_or_else(PoisonError::into_inner);
            as_of.keys().filter(|address| !there.contains(address)).copied().collect()
        };
        for address in known {
            self.forget(address, revision);
        }
    }

    fn put(&self, address: IpAddr, claims: Vec<Claim>) {
        let mut all = self.write();
        if claims.is_empty() {
            all.remove(&address);
        } else {
            all.insert(address, claims);
        }
    }

    /// Drops what has expired and announces it; yields how many addresses changed.
    pub(super) fn expire(&self, now: UnixSeconds) -> usize {
        self.withdraw(|claim| claim.not_after <= now)
    }

    /// Drops the claims of which this holds and announces it; yields how many addresses changed.
    pub(super) fn withdraw(&self, gone: impl Fn(&Claim) -> bool) -> usize {
        let mut changed = Vec::new();
        self.write().retain(|address, here| {
            let before = here.len();
            here.retain(|claim| !gone(claim));
            if here.len() != before {
                changed.push(*address);
            }
            !here.is_empty()
        });
        for address in &changed {
            let _ = self.changes.send(*address);
        }
        changed.len()
    }

    // A panic while the lock was held cannot leave a map half written: each write is one insert or
    // retain.
    fn read(&self) -> RwLockReadGuard<'_, HashMap<IpAddr, Vec<Claim>>> {
        self.claims.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<IpAddr, Vec<Claim>>> {
        self.claims.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_000;

    fn claim(port: Option<u16>, id: &str, not_after: u64) -> Claim {
        let (host, serial) = (Hex(vec![1]), Hex(id.as_bytes().to_vec()));
        let (protocol, root) = (String::new(), Hex::empty());
        Claim { port, spiffe_id: id.to_owned(), protocol, host, serial, not_after, root }
    }

    #[test]
    fn single_port_goes_before_all_ports_and_the_expired_is_nobody() {
        let live = Live::default();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let claims = vec![claim(None, "all", NOW + 5), claim(Some(80), "web", NOW + 1)];
        live.publish(address, &AddressRecord { claims }, 1);
        let who = |port, now| live.at(address, port, now).map(|claim| claim.spiffe_id);
        assert_eq!(who(80, NOW).as_deref(), Some("web"));
        assert_eq!(who(81, NOW).as_deref(), Some("all"));
        assert_eq!(who(80, NOW + 1).as_deref(), Some("all"));
        assert_eq!(who(80, NOW + 5), None);
        assert!(live.is_inhabited(address, NOW) && !live.is_inhabited(address, NOW + 5));
        let single = vec![claim(Some(80), "web", NOW + 1)];
        live.publish(address, &AddressRecord { claims: single }, 2);
        assert_eq!(who(81, NOW), None);
        assert_eq!(who(0, NOW).as_deref(), Some("web"), "anybody at all");
        assert_eq!(who(0, NOW + 1), None);
        let claims = vec![claim(None, "all", NOW + 5), claim(Some(80), "web", NOW + 1)];
        live.publish(address, &AddressRecord { claims }, 3);
        assert_eq!(live.at("10.0.0.2".parse().unwrap(), 80, NOW), None);
        assert_eq!((live.count(NOW), live.count(NOW + 1), live.count(NOW + 5)), (2, 1, 0));
    }

    #[test]
    fn expiry_is_announced_once() {
        let live = Live::default();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        live.publish(address, &AddressRecord { claims: vec![claim(None, "all", NOW)] }, 1);
        let mut changes = live.changes();
        assert_eq!(live.expire(NOW - 1), 0);
        assert_eq!(live.expire(NOW), 1);
        assert_eq!(changes.try_recv().unwrap(), address);
        assert_eq!(live.expire(NOW), 0);
        assert!(changes.try_recv().is_err());
    }

    #[test]
    fn late_news_of_an_early_commit_change_nothing() {
        let live = Live::default();
        let address: IpAddr = "10.0.0.1".parse().unwrap();
        let record = |id| AddressRecord { claims: vec![claim(None, id, NOW)] };
        let who = || live.at(address, 80, 0).map(|claim| claim.spiffe_id);
        live.publish(address, &record("second"), 2);
        let mut changes = live.changes();
        live.publish(address, &record("first"), 1);
        live.publish(address, &record("second"), 2);
        live.forget(address, 1);
        live.retain(&HashSet::new(), 1);
        assert_eq!(who().as_deref(), Some("second"));
        assert!(changes.try_recv().is_err(), "nothing has changed");
        live.publish(address, &AddressRecord::default(), 3);
        live.publish(address, &record("second"), 2);
        assert_eq!(who(), None, "what was withdrawn stays so");
        live.publish(address, &record("fourth"), 4);
        live.retain(&HashSet::new(), 4);
        assert_eq!(who(), None);
    }
}
