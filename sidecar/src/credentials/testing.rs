//! A root, an intermediate and SVIDs for this room's tests, made on the spot.
//!
//! Never: part of a build that is not a test.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair};
use myelin_identity::bundle::{DenyList, SignedDenyList, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::log::{LOG_OID, LogKey, named_log_extension};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, CustomExtension, DistinguishedName,
    DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use super::store::Issued;

/// The instant at which tests take place.
pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn trust_domain() -> TrustDomain {
    TrustDomain::parse("example.org").unwrap()
}

/// A root with one issuing intermediate.
pub(super) struct Root {
    root: CertificateDer<'static>,
    intermediate: CertifiedIssuer<'static, KeyPair>,
}

impl Root {
    pub(super) fn new() -> Self {
        Self::of(ca_params("root"))
    }

    /// A root that names a log.
    pub(super) fn logged() -> Self {
        let log = LogKey::new("example.org/root-log/1", [7; 32]).unwrap();
        let mut params = ca_params("root");
        let names = CustomExtension::from_oid_content(&LOG_OID, named_log_extension(&log));
        params.custom_extensions.push(names);
        Self::of(params)
    }

    fn of(params: CertificateParams) -> Self {
        let root = CertifiedIssuer::self_signed(params, key()).unwrap();
        let intermediate =
            CertifiedIssuer::signed_by(ca_params("intermediate"), key(), &root).unwrap();
        Self { root: root.der().clone(), intermediate }
    }

    pub(super) fn bundle(&self, generation: u64) -> TrustBundle {
        TrustBundle::new(trust_domain(), generation, vec![self.root.clone()]).unwrap()
    }

    pub(super) fn bundle_with(&self, other: &Self, generation: u64) -> TrustBundle {
        let roots = vec![self.root.clone(), other.root.clone()];
        TrustBundle::new(trust_domain(), generation, roots).unwrap()
    }

    /// A deny list as the CA's intermediate signs it.
    pub(super) fn sign(&self, list: DenyList) -> SignedDenyList {
        let key = self.intermediate.key().serialize_der();
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &key).unwrap();
        let signature =
            pair.sign(&SystemRandom::new(), &list.signed_bytes(&trust_domain())).unwrap();
        let signature = signature.as_ref().to_vec();
        SignedDenyList { list, signature, signer: self.intermediate.der().clone() }
    }

    /// An SVID valid from `NOW - 60` to `NOW + life`, under this root's bundle of generation 1.
    pub(super) fn issue(&self, id: &str, life: i64) -> Issued {
        self.issue_between(id, -60, life)
    }

    pub(super) fn issue_between(&self, id: &str, from: i64, to: i64) -> Issued {
        let pair = key();
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![
            SanType::URI(id.try_into().unwrap()),
            SanType::IpAddress("10.0.0.7".parse().unwrap()),
        ];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        set_validity(&mut params, from, to);
        let leaf = params.signed_by(&pair, &self.intermediate).unwrap();
        let spki = rcgen::PublicKeyData::subject_public_key_info(&pair);
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(pair.serialize_der()));
        Issued {
            chain: vec![leaf.der().clone(), self.intermediate.der().clone()],
            key: Arc::new(key),
            spki: spki.as_slice().try_into().unwrap(),
            bundle: Arc::new(self.bundle(1)),
            known: Arc::new(self.bundle(0)),
            log_proof: Arc::default(),
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    // Two roots of one name would be one root to webpki's path building.
    let serial: [u8; 4] = std::array::from_fn(|_| (super::keeper::uniform() * 255.0) as u8);
    params.distinguished_name.push(DnType::CommonName, format!("{name} {serial:?}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params, -86_400, 86_400 * 365);
    params
}

fn set_validity(params: &mut CertificateParams, from: i64, to: i64) {
    let base = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(NOW);
    let at = |offset: i64| {
        let by = Duration::from_secs(offset.unsigned_abs());
        if offset < 0 { base - by } else { base + by }
    };
    params.not_before = at(from);
    params.not_after = at(to);
}
