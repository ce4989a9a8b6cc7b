//! What the monitor makes of entries: whose certificates they are, what is wrong with them, and how many it
//! keeps.
//! Never: a server.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use myelin_identity::id::SpiffeId;
use myelin_identity::log::{LogKey, entry_of};
use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, KeyPair, KeyUsagePurpose, SanType};

use super::ID;
use crate::log::fetch::Server;
use crate::log::find::{
    Found, Issuers, MAX_FOUND, Matches, UNKNOWN_SERIAL, UNLOGGED_ISSUER, UNREADABLE, known_serials,
};
use crate::log::monitor::{MAX_LOGS, Named};

fn svid(uris: &[&str]) -> Vec<u8> {
    let mut params = CertificateParams::default();
    params.subject_alt_names =
        uris.iter().map(|uri| SanType::URI((*uri).try_into().unwrap())).collect();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
}

#[test]
fn certificates_of_the_id_are_found_and_what_hides_it_as_well() {
    let (id, other) = (SpiffeId::parse(ID).unwrap(), "spiffe://example.org/ns/shop/sa/website");
    let issuer = b"an issuer".to_vec();
    let mut issuers = Issuers::default();
    let _ = issuers.read(&entry_of(&issuer, b"root"));
    for (certificate, issuer, expected) in [
        (svid(&[ID]), issuer.as_slice(), Some(None)),
        (svid(&[other]), &issuer, None),
        (svid(&[ID]), b"a secret issuer", Some(Some(UNLOGGED_ISSUER))),
        (svid(&[other, ID]), &issuer, Some(Some(UNREADABLE))),
        (ID.as_bytes().to_vec(), &issuer, Some(Some(UNREADABLE))),
    ] {
        let found = issuers.find(&id, 4, &entry_of(&certificate, issuer));
        assert_eq!(found.map(|found| found.objection), expected);
    }
    assert!(issuers.find(&id, 4, b"junk").is_none());
    assert!(issuers.find(&id, 4, format!("junk {ID}").as_bytes()).is_some());
}

#[test]
fn known_serials_are_read_one_a_line() {
    let known = known_serials("# mine\n0A0b\n\n ff # the second\n");
    assert_eq!(known.into_iter().collect::<Vec<_>>(), ["0a0b", "ff"]);
}

#[test]
fn a_server_is_named_by_an_http_url_above_its_logs() {
    for (url, good) in [
        ("http://ca:15011", true),
        ("http://10.0.0.2:15011/", true),
        ("http://[fd00::1]:15011", true),
        ("http://ca", true),
        ("https://ca:15011", false),
        ("ca:15011", false),
        ("http://mirror/copies/ca-2/", true),
        ("http://ca:15011/log", false),
        ("http://ca:15011/root-log/", false),
        ("http://ca:15011?log", false),
        ("", false),
    ] {
        assert_eq!(Server::new(url).is_ok(), good, "{url}");
    }
}

fn found(index: u64, objection: Option<&'static str>) -> Found {
    let (addresses, issuer, serial) = (Vec::new(), String::new(), format!("{index:x}"));
    Found { index, serial, addresses, not_before: 0, not_after: 1, issuer, objection }
}

#[test]
fn certificates_beyond_the_limit_are_counted_and_never_crowd_out_an_unexpected_one() {
    let mut matches = Matches::new(None);
    for index in 0..MAX_FOUND as u64 + 3 {
        matches.take(found(index, None));
    }
    assert_eq!((matches.found.len(), matches.left_out), (MAX_FOUND, 3));
    matches.take(found(7, Some(UNLOGGED_ISSUER)));
    assert_eq!((matches.found.len(), matches.left_out), (MAX_FOUND + 1, 3), "it is listed");
    assert_eq!(matches.counts(), (MAX_FOUND + 4, 1));
}

#[test]
fn a_serial_that_its_owner_does_not_name_is_unexpected() {
    let known = BTreeSet::from(["1".to_owned()]);
    let mut matches = Matches::new(Some(&known));
    matches.take(found(1, None));
    assert_eq!(matches.counts(), (1, 0), "the twin: one that he names");
    matches.take(found(2, None));
    matches.take(found(1, Some(UNLOGGED_ISSUER)));
    let objections: Vec<_> = matches.found.iter().map(|it| it.objection).collect();
    assert_eq!(objections, [None, Some(UNKNOWN_SERIAL), Some(UNLOGGED_ISSUER)]);
}

#[test]
fn a_log_that_many_issuers_name_does_not_hide_the_next_one_and_what_is_too_many_is_said() {
    let log = |number: usize| LogKey::new(&format!("log{number}"), [7; 32]).unwrap();
    let mut named = Named::default();
    for _ in 0..2 * MAX_LOGS {
        named.take(log(0));
    }
    named.take(log(1));
    assert_eq!((named.logs.len(), named.left_out), (2, false));
    (2..MAX_LOGS).for_each(|number| named.take(log(number)));
    assert!(!named.left_out, "the twin: as many as are watched");
    named.take(log(MAX_LOGS));
    named.take(log(0));
    assert_eq!((named.logs.len(), named.left_out), (MAX_LOGS, true));
}
