//! What the entries of the logs say: issuers with the logs that they name, and certificates of the one
//! ID that is watched. Called by `monitor`.
//! Never: passes over an entry that it cannot read but that has the ID in it, or keeps one that has not.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeSet, HashSet};
use std::net::IpAddr;

use myelin_identity::id::SpiffeId;
use myelin_identity::log::{Entry, LogKey, named_log};
use myelin_identity::svid::Svid;
use rustls::pki_types::CertificateDer;

/// Certificates of the watched ID that are kept of one log until its root is verified: a hundred pods
/// that renew every hour for a month. As many again may be kept of those with an objection, so that the
/// good ones cannot crowd them out. With two addresses each they take 16 MB.
pub(super) const MAX_FOUND: usize = 65_536;

/// Issuers of one root's log that are taken at a time: a thousand replicas with a new one each week for a
/// year.
const MAX_ISSUERS: usize = 65_536;
/// Entries of a root's log that are shown as odd; one is enough to look at the CA.
const MAX_ODDS: usize = 100;

/// A certificate of the watched ID.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) index: u64,
    pub(super) serial: String,
    pub(super) addresses: Vec<IpAddr>,
    pub(super) not_before: u64,
    pub(super) not_after: u64,
    /// The first eight digits of the issuer's hash.
    pub(super) issuer: String,
    /// Why its owner should look at it, if he should.
    pub(super) objection: Option<&'static str>,
}

/// The hashes of the issuing certificates that the roots' logs hold.
#[derive(Default)]
pub(super) struct Issuers(HashSet<[u8; 32]>);

/// Entries of a root's log that are not as they should be.
#[derive(Default)]
pub(super) struct Odds {
    pub(super) shown: Vec<(u64, &'static str)>,
    pub(super) left_out: usize,
}

/// What one log has of the watched ID; nobody sees it before the log's root is verified.
pub(super) struct Matches<'k> {
    known: Option<&'k BTreeSet<String>>,
    pub(super) found: Vec<Found>,
    /// How many of those have an objection.
    objections: usize,
    /// Those beyond the limit, and how many of those have an objection.
    pub(super) left_out: usize,
    left_out_objections: usize,
}

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
        if self.0.len() >= MAX_ISSUERS {
            return Read::Odd("there are more issuers than any CA of ours has had");
        }
        self.0.insert(sha256(certificate));
        match named_log(certificate) {
            Ok(Some(log)) => Read::Log(Box::new(log)),
            Ok(None) => Read::Odd("an issuer names no log, so what it issues cannot be watched"),
            Err(_) => Read::Odd("an issuer cannot be read, or names a log that cannot be used"),
        }
    }

    /// Takes what a log held, once its root is verified.
    pub(super) fn add(&mut self, read: Self) {
        self.0.extend(read.0);
    }

    /// An entry of an issuer's log, if it concerns `id`.
    pub(super) fn find(&self, id: &SpiffeId, index: u64, entry: &[u8]) -> Option<Found> {
        let Ok(Entry { issuer, certificate }) = Entry::parse(entry) else {
            return contains(entry, id).then(|| unreadable(index, String::new()));
        };
        let der = CertificateDer::from(certificate.to_vec());
        let Ok(svid) = Svid::from_chain(vec![der]) else {
            return contains(certificate, id).then(|| unreadable(index, short(&issuer)));
        };
        (svid.id() == id).then(|| Found {
            index,
            serial: svid.serial().to_string(),
            addresses: svid.ip_sans().to_vec(),
            not_before: svid.not_before(),
            not_after: svid.not_after(),
            issuer: short(&issuer),
            objection: (!self.0.contains(&issuer)).then_some(UNLOGGED_ISSUER),
        })
    }
}

impl<'k> Matches<'k> {
    /// With the serials that the owner knows, if he has named them.
    pub(super) fn new(known: Option<&'k BTreeSet<String>>) -> Self {
        let (found, objections, left_out, left_out_objections) = (Vec::new(), 0, 0, 0);
        Self { known, found, objections, left_out, left_out_objections }
    }

    /// How many certificates there are, and how many of them their owner should look at.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.found.len() + self.left_out, self.objections + self.left_out_objections)
    }

    pub(super) fn take(&mut self, mut found: Found) {
        let is_unknown = self.known.is_some_and(|known| !known.contains(&found.serial));
        if is_unknown && found.objection.is_none() {
            found.objection = Some(UNKNOWN_SERIAL);
        }
        let is_objection = found.objection.is_some();
        let fine = self.found.len() - self.objections;
        let kept = if is_objection { self.objections } else { fine };
        if kept < MAX_FOUND {
            self.objections += usize::from(is_objection);
            self.found.push(found);
        } else {
            self.left_out_objections += usize::from(is_objection);
            self.left_out += 1;
        }
    }
}

impl Odds {
    pub(super) fn take(&mut self, index: u64, why: &'static str) {
        if self.shown.len() < MAX_ODDS {
            self.shown.push((index, why));
        } else {
            self.left_out += 1;
        }
    }
}

/// Serials that the owner knows, one a line; `#` begins a comment.
pub(super) fn known_serials(text: &str) -> BTreeSet<String> {
    let serials = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    serials.filter(|serial| !serial.is_empty()).map(str::to_lowercase).collect()
}

fn unreadable(index: u64, issuer: String) -> Found {
    let (serial, addresses) = ("?".to_owned(), Vec::new());
    let (not_before, not_after, objection) = (0, 0, Some(UNREADABLE));
    Found { index, serial, addresses, not_before, not_after, issuer, objection }
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
