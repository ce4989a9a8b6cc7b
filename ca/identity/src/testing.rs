//! Certificates for the suites of this crate: authorities and leaves, each with one thing wrong
//! where a test wants it. Called by tests only.
//! Never: in a build that ships.

// SPDX-License-Identifier: Apache-2.0

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, UnixTime};

use crate::bundle::TrustBundle;
use crate::id::TrustDomain;

/// 2027-01-15T08:00:00Z; everything is valid an hour around it unless a test says otherwise.
pub(crate) const NOW: u64 = 1_800_000_000;
pub(crate) const HOUR: u64 = 3600;
pub(crate) const WEB: &str = "spiffe://td/ns/shop/sa/web";

/// The subjectAltName extension's object identifier.
const SAN_OID: [u64; 4] = [2, 5, 29, 17];

pub(crate) struct Authority {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) issuer: Issuer<'static, KeyPair>,
}

pub(crate) struct Minted {
    pub(crate) der: CertificateDer<'static>,
    pub(crate) key: KeyPair,
}

pub(crate) fn now() -> UnixTime {
    at(NOW)
}

pub(crate) fn at(seconds: u64) -> UnixTime {
    UnixTime::since_unix_epoch(Duration::from_secs(seconds))
}

pub(crate) fn domain() -> TrustDomain {
    TrustDomain::parse("td").unwrap()
}

pub(crate) fn bundle(roots: &[&Authority]) -> TrustBundle {
    let roots = roots.iter().map(|root| root.der.clone()).collect();
    TrustBundle::new(domain(), 7, roots).unwrap()
}

pub(crate) fn root(name: &str) -> Authority {
    root_with(name, |_| {})
}

pub(crate) fn root_with(name: &str, edit: impl FnOnce(&mut CertificateParams)) -> Authority {
    root_from(name, KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), edit)
}

pub(crate) fn root_from(
    name: &str,
    key: KeyPair,
    edit: impl FnOnce(&mut CertificateParams),
) -> Authority {
    let mut params = ca_params(name);
    edit(&mut params);
    let der = params.self_signed(&key).unwrap().into();
    Authority { der, issuer: Issuer::new(params, key) }
}

impl Authority {
    pub(crate) fn intermediate(&self, name: &str) -> Self {
        self.intermediate_with(name, |params| {
            params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        })
    }

    pub(crate) fn intermediate_with(
        &self,
        name: &str,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Self {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let mut params = ca_params(name);
        edit(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().into();
        Self { der, issuer: Issuer::new(params, key) }
    }

    pub(crate) fn leaf(&self, id: &str) -> Minted {
        self.leaf_with(|params| params.subject_alt_names[0] = uri(id))
    }

    pub(crate) fn leaf_with(&self, edit: impl FnOnce(&mut CertificateParams)) -> Minted {
        self.leaf_from(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap(), edit)
    }

    pub(crate) fn leaf_from(
        &self,
        key: KeyPair,
        edit: impl FnOnce(&mut CertificateParams),
    ) -> Minted {
        let mut params = leaf_params();
        edit(&mut params);
        let der = params.signed_by(&key, &self.issuer).unwrap().into();
        Minted { der, key }
    }
}

impl Minted {
    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(self.key.serialize_der()).unwrap()
    }
}

/// A leaf that nothing is wrong with: web's ID, two addresses, both usages.
pub(crate) fn leaf_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(&[0x11, 0x22]));
    params.subject_alt_names = vec![
        uri(WEB),
        SanType::IpAddress("10.0.0.1".parse().unwrap()),
        SanType::IpAddress("fd00::1".parse().unwrap()),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    valid(&mut params, NOW - HOUR, NOW + HOUR);
    params
}

pub(crate) fn valid(params: &mut CertificateParams, not_before: u64, not_after: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(not_before);
    params.not_after = epoch + Duration::from_secs(not_after);
}

pub(crate) fn uri(text: &str) -> SanType {
    SanType::URI(text.try_into().unwrap())
}

/// A subjectAltName of raw names (context tag, bytes): for what no decent library writes.
pub(crate) fn raw_sans(params: &mut CertificateParams, names: &[(u8, &[u8])]) {
    let mut inner = Vec::new();
    for (tag, bytes) in names {
        inner.push(0x80 | tag);
        put_length(&mut inner, bytes.len());
        inner.extend(*bytes);
    }
    let mut content = vec![0x30];
    put_length(&mut content, inner.len());
    content.extend(inner);
    params.subject_alt_names.clear();
    params.custom_extensions.push(CustomExtension::from_oid_content(&SAN_OID, content));
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    let [high, low] = u16::try_from(length).unwrap().to_be_bytes();
    out.extend([0x82, high, low]);
    match length {
        0..=0x7f => {
            out.truncate(out.len() - 3);
            out.push(low);
        }
        0x80..=0xff => {
            out.truncate(out.len() - 3);
            out.extend([0x81, low]);
        }
        _ => {}
    }
}

fn ca_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
    valid(&mut params, NOW - 2 * HOUR, NOW + 2 * HOUR);
    params
}
