//! What makes the records of foreign domains this CA's own: a digest of what counts of each, and a
//! seal over all of them by the seal key, which is not in the store. Pure. Called by `roll`.
//!
//! Never: a digest over what changes without anybody's decision (when it was fetched, how often
//! that failed).

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256, digest};
use myelin_identity::id::TrustDomain;
use myelin_identity::seal::{self, SealError, SealKey};

use crate::journal::{Blob, FederationRecord, Hex, RollRecord};

/// Bound into every seal, so that no other sealed thing passes for one.
const PURPOSE: &[u8] = b"myelin-ca federation roll v1";
const RECORD: &[u8] = b"myelin-ca federation record v1";

/// The SHA-256 of what counts of a record: whom it is about, how its endpoint is recognised, and
/// whom it lets in.
pub(super) fn what_counts(name: &str, record: &FederationRecord) -> Hex {
    let mut text = Canonical(Context::new(&SHA256));
    text.put(RECORD);
    text.put(name.as_bytes());
    text.put(record.profile.word().as_bytes());
    text.put(record.url.as_bytes());
    text.maybe(record.endpoint_id.as_deref());
    text.maybe(record.address.map(|address| address.to_string()).as_deref());
    text.maybe(record.web_roots_pem.as_deref());
    text.put(&[u8::from(record.unlogged)]);
    if let Some(bundle) = &record.bundle {
        text.put(&bundle.sequence.to_be_bytes());
        // Sorted: an endpoint may say the same roots in another order.
        let roots = bundle.roots_der.iter().map(|root| digest(&SHA256, &root.0));
        let mut roots: Vec<Vec<u8>> = roots.map(|sha| sha.as_ref().to_vec()).collect();
        roots.sort();
        roots.iter().for_each(|root| text.put(root));
    }
    Hex(text.0.finish().as_ref().to_vec())
}

/// A roll that only a holder of the seal key can have made.
pub(super) fn sealed(
    key: &SealKey,
    own: &TrustDomain,
    epoch: u64,
    members: BTreeMap<String, Hex>,
) -> Result<RollRecord, SealError> {
    let mut roll = RollRecord { epoch, members, seal: None };
    // Nothing is hidden: the roll is what the box is bound to, and the box is empty.
    roll.seal = Some(Blob(seal::seal(key, &said(own, &roll), b"")?));
    Ok(roll)
}

/// Whether a holder of the seal key made this roll, for this trust domain.
pub(super) fn is_sealed(key: &SealKey, own: &TrustDomain, roll: &RollRecord) -> bool {
    let opened = roll.seal.as_ref().map(|sealed| seal::open(key, &said(own, roll), &sealed.0));
    matches!(opened, Some(Ok(inside)) if inside.is_empty())
}

fn said(own: &TrustDomain, roll: &RollRecord) -> Vec<u8> {
    let mut text = Canonical(Context::new(&SHA256));
    text.put(own.as_str().as_bytes());
    text.put(&roll.epoch.to_be_bytes());
    for (name, digest) in &roll.members {
        text.put(name.as_bytes());
        text.put(&digest.0);
    }
    [PURPOSE, text.0.finish().as_ref()].concat()
}

/// Fields that cannot run into each other: each goes in after its length.
struct Canonical(Context);

impl Canonical {
    fn put(&mut self, field: &[u8]) {
        self.0.update(&(field.len() as u64).to_be_bytes());
        self.0.update(field);
    }

    fn maybe(&mut self, field: Option<&str>) {
        self.put(&[u8::from(field.is_some())]);
        self.put(field.unwrap_or_default().as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::{EndpointProfile, FailureRecord, ForeignRecord};

    fn record() -> FederationRecord {
        let roots_der = vec![Blob(vec![1]), Blob(vec![2])];
        FederationRecord {
            profile: EndpointProfile::HttpsWeb,
            url: "https://b.example/".to_owned(),
            endpoint_id: None,
            address: None,
            web_roots_pem: None,
            unlogged: false,
            added: 1,
            bundle: Some(ForeignRecord {
                sequence: 4,
                roots_der,
                refresh_hint: None,
                fetched: 2,
                changed: 3,
            }),
            failure: None,
        }
    }

    #[test]
    fn whatever_decides_whom_to_believe_counts_and_nothing_else_does() {
        type Edit = fn(&mut FederationRecord);
        let counts: &[Edit] = &[
            |r| r.profile = EndpointProfile::HttpsSpiffe,
            |r| r.url = "https://c.example/".to_owned(),
            |r| r.endpoint_id = Some(String::new()),
            |r| r.endpoint_id = Some("spiffe://b.example/x".to_owned()),
            |r| r.address = Some("10.0.0.1:1".parse().unwrap()),
            |r| r.web_roots_pem = Some("roots".to_owned()),
            |r| r.unlogged = true,
            |r| r.bundle = None,
            |r| r.bundle.as_mut().unwrap().sequence = 5,
            |r| r.bundle.as_mut().unwrap().roots_der.push(Blob(vec![3])),
            |r| r.bundle.as_mut().unwrap().roots_der[0] = Blob(vec![9]),
        ];
        let failure = FailureRecord { at: 1, attempts: 2, word: String::new(), why: String::new() };
        let edited = |edit: Edit| {
            let mut record = record();
            edit(&mut record);
            what_counts("b.example", &record)
        };
        let genuine = what_counts("b.example", &record());
        for (index, edit) in counts.iter().enumerate() {
            assert_ne!(edited(*edit), genuine, "{index}");
        }
        assert_ne!(what_counts("c.example", &record()), genuine);
        let free: &[Edit] = &[
            |r| r.added = 9,
            |r| r.bundle.as_mut().unwrap().fetched = 9,
            |r| r.bundle.as_mut().unwrap().changed = 9,
            |r| r.bundle.as_mut().unwrap().refresh_hint = Some(9),
            |r| r.bundle.as_mut().unwrap().roots_der.reverse(),
        ];
        for (index, edit) in free.iter().enumerate() {
            assert_eq!(edited(*edit), genuine, "{index}");
        }
        let failing = FederationRecord { failure: Some(failure), ..record() };
        assert_eq!(what_counts("b.example", &failing), genuine);
    }

    #[test]
    fn a_roll_that_differs_in_one_thing_is_not_sealed() {
        let (own, key) = (TrustDomain::parse("a.example").unwrap(), SealKey::random().unwrap());
        let digest = what_counts("b.example", &record());
        let members = BTreeMap::from([("b.example".to_owned(), digest.clone())]);
        let roll = sealed(&key, &own, 3, members).unwrap();
        assert!(is_sealed(&key, &own, &roll));
        let more = |name: &str| {
            let mut members = roll.members.clone();
            members.insert(name.to_owned(), digest.clone());
            members
        };
        let box_for_nothing = seal::seal(&key, PURPOSE, b"").unwrap();
        let table = [
            ("a later epoch", RollRecord { epoch: 4, ..roll.clone() }),
            ("an earlier epoch", RollRecord { epoch: 2, ..roll.clone() }),
            ("one more", RollRecord { members: more("c.example"), ..roll.clone() }),
            ("one less", RollRecord { members: BTreeMap::new(), ..roll.clone() }),
            ("no seal", RollRecord { seal: None, ..roll.clone() }),
            ("no box", RollRecord { seal: Some(Blob(vec![1])), ..roll.clone() }),
            ("another box", RollRecord { seal: Some(Blob(box_for_nothing)), ..roll.clone() }),
        ];
        for (what, forged) in &table {
            assert!(!is_sealed(&key, &own, forged), "{what}");
        }
        let other = TrustDomain::parse("other.example").unwrap();
        assert!(!is_sealed(&key, &other, &roll), "another domain's");
        assert!(!is_sealed(&SealKey::random().unwrap(), &own, &roll), "another CA's");
    }
}
