//! What the entries of the logs say: issuers with the logs that they name, and certificates of the one
//! ID that is watched. Called by `monitor`.
//! Never: passes over an entry that it cannot read but that has the ID in it.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, HashMap};

use myelin_identity::id::SpiffeId;
use myelin_identity::log::{Entry, LogKey, named_log};
use myelin_identity::svid::Svid;
use rustls::pki_types::CertificateDer;

/// An issuing certificate that a root's log holds.
pub(super) struct Issuer {
    /// As errors and lists name it: the first eight digits of its hash.
    pub(super) short: String,
}

/// A certificate of the watched ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) log: String,
    pub(super) index: u64,
    pub(super) serial: String,
    pub(super) addresses: Vec<String>,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    /// The first eight digits of the issuer's hash.
    pub(super) issuer: String,
    /// Why its owner should look at it, if he should.
    pub(super) objection: Option<&'static str>,
}

#[derive(Default)]
pub(super) struct Issuers(HashMap<[u8; 32], Issuer>);

pub(super) const UNREADABLE: &str = "it is no well-formed SVID, and the ID is in it";
pub(super) const UNLOGGED_ISSUER: &str = "its issuer is in no root's log";
pub(super) const UNKNOWN_SERIAL: &str = "its serial number is not in the list of known ones";

/// Oddities of a root's log.
pub(super) enum Read {
    /// It names this log, which is to be read as well.
    Log(Box<LogKey>),
    /// An entry that no CA of ours would have made.
    Odd(&'static str),
}

impl Issuers {
    /// An entry of a root's log.
    pub(super) fn read(&mut self, entry: &[u8]) -> Read {
        let Ok(Entry { certificate, .. }) = Entry::parse(entry) else {
            return Read::Odd("an entry cannot be read");
        };
        let hash = sha256(certificate);
        self.0.insert(hash, Issuer { short: short(&hash) });
        match named_log(certificate) {
            Ok(Some(log)) => Read::Log(Box::new(log)),
            Ok(None) => Read::Odd("an issuer names no log, so what it issues cannot be watched"),
            Err(_) => Read::Odd("an issuer cannot be read, or names a log that cannot be used"),
        }
    }

    /// An entry of an issuer's log, if it concerns `id`.
    pub(super) fn find(&self, id: &SpiffeId, log: &str, index: u64, entry: &[u8]) -> Option<Found> {
        let Ok(Entry { issuer, certificate }) = Entry::parse(entry) else {
            return contains(entry, id).then(|| unreadable(log, index, String::new()));
        };
        let known = self.0.get(&issuer);
        let short = known.map_or_else(|| short(&issuer), |issuer| issuer.short.clone());
        let der = CertificateDer::from(certificate.to_vec());
        let Ok(svid) = Svid::from_chain(vec![der]) else {
            return contains(certificate, id).then(|| unreadable(log, index, short));
        };
        (svid.id() == id).then(|| Found {
            log: log.to_owned(),
            index,
            serial: svid.serial().to_string(),
            addresses: svid.ip_sans().iter().map(ToString::to_string).collect(),
            not_before: svid.not_before(),
            not_after: svid.not_after(),
            issuer: short,
            objection: known.is_none().then_some(UNLOGGED_ISSUER),
        })
    }
}

/// Serials that the owner knows, one a line; `#` begins a comment.
pub(super) fn known_serials(text: &str) -> BTreeMap<String, ()> {
    let serials = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    serials.filter(|serial| !serial.is_empty()).map(|it| (it.to_lowercase(), ())).collect()
}

fn unreadable(log: &str, index: u64, issuer: String) -> Found {
    let (log, serial, addresses) = (log.to_owned(), "?".to_owned(), Vec::new());
    let (not_before, not_after, objection) = (0, 0, Some(UNREADABLE));
    Found { log, index, serial, addresses, not_before, not_after, issuer, objection }
}

fn contains(bytes: &[u8], id: &SpiffeId) -> bool {
    let id = id.as_str().as_bytes();
    bytes.windows(id.len()).any(|window| window == id)
}

fn sha256(bytes: &[u8]) -> [u8; 32] {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

fn short(hash: &[u8; 32]) -> String {
    hash[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
