//! A small authority of its own for the tests of this crate: roots, intermediates and leaves as the
//! CA would issue them, and as it never would. Called by tests only.
//!
//! Never: compiled into the product.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use tokio::net::{TcpListener, TcpStream};

use crate::addr::Clock;
use crate::tls::Configs;

/// The moment at which these tests live.
pub(crate) const NOW: u64 = 1_800_000_000;

pub(crate) const DOMAIN: &str = "test.example";

/// A root and the intermediate that issues.
pub(crate) struct Authority {
    root: CertifiedIssuer<'static, KeyPair>,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A leaf with its key.
pub(crate) struct Credential {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let root = CertifiedIssuer::self_signed(authority(name), key()).unwrap();
        let issuer = authority(&format!("{name} issuer"));
        let issuer = CertifiedIssuer::signed_by(issuer, key(), &root).unwrap();
        Self { root, issuer }
    }

    pub(crate) fn bundle(&self) -> Arc<TrustBundle> {
        Self::bundle_of(&[self])
    }

    pub(crate) fn bundle_of(authorities: &[&Self]) -> Arc<TrustBundle> {
        let domain = TrustDomain::parse(DOMAIN).unwrap();
        let roots = authorities.iter().map(|authority| authority.root.der().clone()).collect();
        Arc::new(TrustBundle::new(domain, 1, roots).unwrap())
    }

    /// Valid for an hour around `NOW`.
    pub(crate) fn issue(&self, id: &str, addresses: &[IpAddr]) -> Credential {
        self.issue_until(id, addresses, NOW + 3_600)
    }

    pub(crate) fn issue_until(&self, id: &str, addresses: &[IpAddr], until: u64) -> Credential {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::URI(id.try_into().unwrap())];
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        set_dates(&mut params, NOW - 60, until);
        let key = key();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        Credential {
            chain: vec![leaf.der().clone(), self.issuer.der().clone()],
            key: PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
        }
    }

    /// What a sidecar with this credential shakes hands with.
    pub(crate) fn configs(&self, credential: &Credential, clock: &Clock) -> Configs {
        let alpns = [b"h2".to_vec()];
        Configs::build(&credential.chain, &credential.key, &self.bundle(), &alpns, clock).unwrap()
    }
}

pub(crate) fn still_clock() -> Clock {
    Clock::new(|| NOW)
}

/// Two ends of one TCP connection.
pub(crate) async fn connection() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().0);
    dialled.set_nodelay(true).unwrap();
    accepted.set_nodelay(true).unwrap();
    (dialled, accepted)
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_dates(&mut params, NOW - 86_400, NOW + 86_400);
    params
}

fn key() -> KeyPair {
    KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap()
}

fn set_dates(params: &mut CertificateParams, from: u64, until: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
}
