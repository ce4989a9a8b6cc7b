//! Wire messages into domain types and back, and what is refused. Tokens and proofs are in
//! `secrets`.
//! Never: the CA's decisions.

// SPDX-License-Identifier: Apache-2.0

mod secrets;

use std::sync::Arc;

use aws_lc_rs::signature::Ed25519KeyPair;
use proptest::prelude::*;
use prost::Message as _;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair, PKCS_ECDSA_P384_SHA384};
use rustls_pki_types::CertificateDer;

use super::*;
use crate::bundle::{
    DenyEntry, DenyList, DenySubject, ForeignBundle, ForeignBundles, SignedDenyList, TrustBundle,
};
use crate::id::SpiffeId;
use crate::log::LogKey;
use crate::svid::P256Spki;
use crate::testing::{NOW, WEB, bundle, root, uri};

fn csr(key: &KeyPair) -> Vec<u8> {
    CertificateParams::default().serialize_request(key).unwrap().der().to_vec()
}

fn spki(key: &KeyPair) -> P256Spki {
    use rcgen::PublicKeyData as _;
    P256Spki::try_from(key.subject_public_key_info().as_slice()).unwrap()
}

fn request() -> IssueRequest {
    let key = KeyPair::generate().unwrap();
    IssueRequest {
        csr: Csr::parse(csr(&key)).unwrap(),
        request_key: RequestKey::from_bytes([1; 16]),
        attestation: Attestation::Host {
            host_spki: HostSpki::of(&Ed25519KeyPair::generate().unwrap()),
            lineage: Some(Lineage { id: LineageId::from_bytes([2; 16]), generation: 9 }),
        },
        host_signature: vec![3; 64],
        lifetime_seconds: Some(600),
    }
}

#[test]
fn only_the_key_of_a_request_is_taken() {
    let key = KeyPair::generate().unwrap();
    let mut greedy = CertificateParams::default();
    greedy.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    greedy.subject_alt_names = vec![uri("spiffe://td/myelin/ca"), uri(WEB)];
    let der = greedy.serialize_request(&key).unwrap().der().to_vec();
    let read = Csr::parse(der.clone()).unwrap();
    assert_eq!((read.key(), read.der()), (&spki(&key), der.as_slice()));
}

#[test]
fn request_without_possession_or_shape_is_refused() {
    let good = csr(&KeyPair::generate().unwrap());
    let mut forged = good.clone();
    *forged.last_mut().unwrap() ^= 1;
    let mut trailing = good;
    trailing.push(0);
    let p384 = csr(&KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).unwrap());
    let not_p256 = IssuanceError::Key { field: "csr_der", why: KeyError::NotP256 };
    let long = IssuanceError::TooLong { field: "csr_der", bytes: 4097, limit: MAX_CSR_BYTES };
    for (der, expected) in [
        (forged, IssuanceError::CsrNotPossessed),
        (trailing, IssuanceError::CsrMalformed),
        (vec![], IssuanceError::CsrMalformed),
        (vec![0x30; 4096], IssuanceError::CsrMalformed),
        (vec![0x30; 4097], long),
        (p384, not_p256),
    ] {
        assert_eq!(Csr::parse(der), Err(expected));
    }
}

#[test]
fn issue_messages_round_trip() {
    let mut request = request();
    let (host_spki, lineage) = (*request.attestation.host_spki(), request.attestation.lineage());
    let proof =
        MachineProof { chain: vec![vec![7; 9].into()], scheme: 0x0403, signature: vec![8; 70] };
    for attestation in [
        request.attestation.clone(),
        Attestation::Host { host_spki, lineage: None },
        Attestation::Kubernetes { token: ServiceToken::new("a.b.c").unwrap(), host_spki, lineage },
        Attestation::Machine { proof, host_spki, lineage },
        Attestation::Join {
            secret: TokenSecret::random().unwrap(),
            host_spki: *request.attestation.host_spki(),
        },
        Attestation::Companion {
            host_spki: *request.attestation.host_spki(),
            vouched_by: Lineage { id: LineageId::random().unwrap(), generation: 3 },
        },
    ] {
        request.attestation = attestation;
        let bytes = proto::IssueRequest::from(request.clone()).encode_to_vec();
        let wire = proto::IssueRequest::decode(bytes.as_slice()).unwrap();
        assert_eq!(IssueRequest::try_from(wire), Ok(request.clone()));
    }
    let response = IssueResponse {
        chain: vec![CertificateDer::from(vec![1, 2]), CertificateDer::from(vec![3])],
        lineage: Lineage { id: LineageId::random().unwrap(), generation: 1 },
        bundle: bundle(&[&root("root")]),
        log_proof: vec![5; 10],
    };
    assert_eq!(IssueResponse::try_from(proto::IssueResponse::from(response.clone())), Ok(response));
}

#[test]
fn issue_request_outside_its_bounds_is_refused() {
    type Edit = fn(&mut proto::IssueRequest);
    fn host(wire: &mut proto::IssueRequest) -> &mut proto::Host {
        match wire.attestation.as_mut().unwrap() {
            proto::issue_request::Attestation::Host(host) => host,
            _ => unreachable!("made with a host"),
        }
    }
    let table: &[(&str, Edit)] = &[
        ("request_key", |w| w.request_key.push(0)),
        ("request_key", |w| w.request_key.clear()),
        ("csr_der", |w| w.csr_der.clear()),
        ("host_signature", |w| w.host_signature = vec![0; 65]),
        ("attestation", |w| w.attestation = None),
        ("host_spki", |w| host(w).host_spki.push(0)),
        // X25519, and what hosts had before.
        ("host_spki", |w| host(w).host_spki[8] = 0x6e),
        ("host_spki", |w| {
            host(w).host_spki = spki(&KeyPair::generate().unwrap()).as_bytes().to_vec();
        }),
        ("lineage.id", |w| host(w).lineage.as_mut().unwrap().id.truncate(15)),
        ("join_token.secret", |w| {
            let host_spki = host(w).host_spki.clone();
            let token = proto::JoinToken { secret: vec![0; 31], host_spki };
            w.attestation = Some(proto::issue_request::Attestation::JoinToken(token));
        }),
        ("companion.vouched_by", |w| {
            let host_spki = host(w).host_spki.clone();
            let companion = proto::Companion { host_spki, vouched_by: None };
            w.attestation = Some(proto::issue_request::Attestation::Companion(companion));
        }),
    ];
    for (field, edit) in table {
        let mut wire = proto::IssueRequest::from(request());
        edit(&mut wire);
        let error = IssueRequest::try_from(wire).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
    let mut wire = proto::IssueRequest::from(request());
    wire.lifetime_seconds = 0;
    assert_eq!(IssueRequest::try_from(wire).unwrap().lifetime_seconds, None);
}

#[test]
fn issue_response_outside_its_bounds_is_refused() {
    type Edit = fn(&mut proto::IssueResponse);
    let table: &[(&str, Edit)] = &[
        ("chain_der", |w| w.chain_der.clear()),
        ("chain_der", |w| w.chain_der = vec![vec![1]; 5]),
        ("chain_der", |w| w.chain_der[0] = vec![0; 8193]),
        ("log_proof", |w| w.log_proof = vec![0; 8193]),
        ("lineage", |w| w.lineage = None),
        ("bundle", |w| w.bundle = None),
        ("bundle", |w| w.bundle.as_mut().unwrap().roots_der.clear()),
        ("bundle.roots_der", |w| w.bundle.as_mut().unwrap().roots_der = vec![vec![]; 17]),
        ("bundle.trust_domain", |w| w.bundle.as_mut().unwrap().trust_domain = "TD".into()),
    ];
    let held = bundle(&[&root("root")]);
    for (field, edit) in table {
        let mut wire = proto::IssueResponse {
            chain_der: vec![vec![1]],
            lineage: Some(proto::Lineage { id: vec![0; 16], generation: 1 }),
            bundle: Some((&held).into()),
            log_proof: vec![],
        };
        assert!(IssueResponse::try_from(wire.clone()).is_ok());
        edit(&mut wire);
        let error = IssueResponse::try_from(wire).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
}

#[test]
fn bundle_updates_round_trip_and_are_bounded() {
    let id = DenySubject::Id(SpiffeId::parse(WEB).unwrap());
    let serial = DenySubject::Serial("0abc".parse().unwrap());
    let entries = [id, serial].map(|subject| DenyEntry { subject, until: NOW });
    let deny_list = SignedDenyList {
        list: DenyList::new(4, NOW, entries).unwrap(),
        signature: vec![1; 70],
        signer: CertificateDer::from(vec![2; 300]),
    };
    let log = LogKey::new("kept", [7; 32]).unwrap();
    let bundle = Some(bundle(&[&root("root")]).stating(&log));
    let full = BundleUpdate {
        bundle,
        deny_list: Some(deny_list),
        foreign: Some(ForeignBundles::default()),
        heartbeat_seconds: 30,
    };
    let beat = BundleUpdate { bundle: None, deny_list: None, foreign: None, heartbeat_seconds: 30 };
    for update in [full.clone(), beat] {
        assert_eq!(BundleUpdate::try_from(proto::BundleUpdate::from(&update)), Ok(update));
    }
    type Edit = fn(&mut proto::DenyList);
    let table: &[(&str, Edit)] = &[
        ("deny_list.signature", |w| w.signature = vec![0; 73]),
        ("deny_list.signer_der", |w| w.signer_der = vec![0; 8193]),
        ("deny_list.subject", |w| w.entries[0].subject = None),
        ("deny_list.spiffe_id", |w| {
            let subject = proto::deny_entry::Subject::SpiffeId("spiffe://td/ns/*".into());
            w.entries[0].subject = Some(subject);
        }),
        ("deny_list", |w| {
            w.entries[1].subject = Some(proto::deny_entry::Subject::Serial(vec![1; 21]));
        }),
        ("deny_list.entries", |w| w.entries = vec![w.entries[0].clone(); 16_385]),
    ];
    for (field, edit) in table {
        let mut wire = proto::BundleUpdate::from(&full);
        edit(wire.deny_list.as_mut().unwrap());
        let error = BundleUpdate::try_from(wire).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
    type LogEdit = fn(&mut proto::RootLog);
    let table: &[(&str, LogEdit)] = &[
        ("root_log.root", |w| w.root = vec![1; 31]),
        ("root_log.log", |w| w.log.push(0)),
        ("bundle", |w| w.root = vec![1; 32]),
    ];
    for (field, edit) in table {
        let mut wire = proto::BundleUpdate::from(&full);
        edit(&mut wire.bundle.as_mut().unwrap().root_logs[0]);
        let error = BundleUpdate::try_from(wire).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
    for heartbeat_seconds in [0, 86_401] {
        let wire = proto::BundleUpdate { heartbeat_seconds, ..Default::default() };
        assert!(BundleUpdate::try_from(wire).is_err());
    }
}

#[test]
fn foreign_bundles_round_trip_and_are_bounded() {
    let foreign = |name: &str| ForeignBundle {
        bundle: Arc::new(
            TrustBundle::new(TrustDomain::parse(name).unwrap(), 3, vec![root(name).der]).unwrap(),
        ),
        unlogged: name == "b.example",
    };
    let set = ForeignBundles::new(9, vec![foreign("c.example"), foreign("b.example")]).unwrap();
    let wire = proto::ForeignBundles::from(&set);
    assert_eq!(ForeignBundles::try_from(wire.clone()), Ok(set));
    type Edit = fn(&mut proto::ForeignBundles);
    let table: &[(&str, Edit)] = &[
        ("foreign.bundle", |w| w.bundles[0].bundle = None),
        ("foreign", |w| w.bundles[1] = w.bundles[0].clone()),
        ("foreign.bundles", |w| w.bundles = vec![w.bundles[0].clone(); 33]),
        ("bundle", |w| w.bundles[0].bundle.as_mut().unwrap().roots_der.clear()),
        ("bundle.trust_domain", |w| {
            w.bundles[0].bundle.as_mut().unwrap().trust_domain = "B".into();
        }),
    ];
    for (field, edit) in table {
        let mut wire = wire.clone();
        edit(&mut wire);
        let error = ForeignBundles::try_from(wire).unwrap_err().to_string();
        assert!(error.contains(&format!("`{field}`")), "{error}");
    }
}

#[test]
fn directory_messages_round_trip_and_are_bounded() {
    let id = SpiffeId::parse(WEB).unwrap();
    for (address, id, protocol) in [
        ("10.0.0.1", Some(id.clone()), MYELIN_PROTOCOL),
        ("fd00::1", Some(id), "http/1.1"),
        ("fd00::1", None, MYELIN_PROTOCOL),
    ] {
        let address = address.parse().unwrap();
        let answer = DirectoryAnswer { address, port: 80, id, protocol: protocol.to_owned() };
        assert_eq!(
            DirectoryAnswer::try_from(proto::DirectoryAnswer::from(answer.clone())),
            Ok(answer)
        );
        let question = DirectoryQuestion { address, port: 80, forget: true };
        assert_eq!(
            DirectoryQuestion::try_from(proto::DirectoryQuestion::from(question)),
            Ok(question)
        );
    }
    let good = proto::DirectoryAnswer { address: vec![10, 0, 0, 1], port: 1, ..Default::default() };
    assert!(DirectoryAnswer::try_from(good.clone()).is_ok());
    for wire in [
        proto::DirectoryAnswer { address: vec![10, 0, 0], ..good.clone() },
        proto::DirectoryAnswer { address: vec![], ..good.clone() },
        proto::DirectoryAnswer { port: 65_536, ..good.clone() },
        proto::DirectoryAnswer { spiffe_id: "web".to_owned(), ..good.clone() },
        proto::DirectoryAnswer { protocol: "H2".to_owned(), ..good.clone() },
        proto::DirectoryAnswer { protocol: "a".repeat(33), ..good },
    ] {
        assert!(DirectoryAnswer::try_from(wire.clone()).is_err(), "{wire:?}");
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes: Vec<u8>) {
        if let Ok(wire) = proto::IssueRequest::decode(bytes.as_slice()) {
            prop_assert!(IssueRequest::try_from(wire).is_err());
        }
        if let Ok(wire) = proto::BundleUpdate::decode(bytes.as_slice()) {
            let _ = BundleUpdate::try_from(wire);
        }
    }
}
