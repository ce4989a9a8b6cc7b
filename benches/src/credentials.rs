//! A trust domain for benches: root, intermediate, and SVIDs as the CA issues them, all P-256.
//! Called by every bench.
//!
//! Never: a real clock; the time is always `NOW`, and everything is valid around it.

// SPDX-License-Identifier: Apache-2.0

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use myelin_identity::bundle::TrustBundle;
use myelin_identity::id::TrustDomain;
use myelin_identity::log::{LOG_OID, LogKey, named_log_extension};
use myelin_sidecar::addr::Clock;
use myelin_sidecar::tls::Configs;
use rcgen::{
    BasicConstraints, CertificateParams, CustomExtension, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
    SanType,
};
use rustls::NamedGroup;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// 2027-01-15T08:00:00Z.
pub const NOW: u64 = 1_800_000_000;

const DAY: u64 = 24 * 3600;

/// Where both sides live: the relays run over loopback.
pub const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

const RCGEN: &str = "rcgen makes what it is asked for";

/// The authorities of one trust domain.
pub struct Domain {
    pub bundle: Arc<TrustBundle>,
    intermediate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

/// A chain, leaf first, and its key.
pub struct Credential {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

/// Both ends of a mesh connection, each with the configurations of one credential generation.
pub struct Sides {
    pub dialer: Configs,
    pub acceptor: Configs,
}

impl Domain {
    /// Without logs: what a peer shows of them is not asked for.
    pub fn new() -> Self {
        Self::naming(None)
    }

    /// Its intermediate names the first log, its root the second.
    pub fn logged(issuing: &LogKey, root: &LogKey) -> Self {
        Self::naming(Some((issuing, root)))
    }

    fn naming(logs: Option<(&LogKey, &LogKey)>) -> Self {
        let names =
            |log: &LogKey| CustomExtension::from_oid_content(&LOG_OID, named_log_extension(log));
        let root_key = key();
        let mut root_params = authority("root", IsCa::Ca(BasicConstraints::Unconstrained));
        root_params.custom_extensions.extend(logs.map(|(_, root)| names(root)));
        let root = root_params.self_signed(&root_key).expect(RCGEN).into();
        let root_issuer = Issuer::new(root_params, root_key);

        let issuing_key = key();
        let mut params = authority("issuing", IsCa::Ca(BasicConstraints::Constrained(0)));
        params.custom_extensions.extend(logs.map(|(issuing, _)| names(issuing)));
        let intermediate = params.signed_by(&issuing_key, &root_issuer).expect(RCGEN).into();
        let issuer = Issuer::new(params, issuing_key);

        let name = TrustDomain::parse("bench.example").expect("it is a trust domain");
        let bundle = TrustBundle::new(name, 1, vec![root]).expect("it is a root");
        Self { bundle: Arc::new(bundle), intermediate, issuer }
    }

    /// An SVID for one service account, as the CA's template has it.
    pub fn issue(&self, account: &str) -> Credential {
        let key = key();
        let id = format!("spiffe://bench.example/ns/shop/sa/{account}");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names =
            vec![SanType::URI(id.try_into().expect("an ID is ASCII")), SanType::IpAddress(ADDRESS)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        valid(&mut params, DAY);
        let leaf = params.signed_by(&key, &self.issuer).expect(RCGEN).into();
        Credential {
            chain: vec![leaf, self.intermediate.clone()],
            key: PrivateKeyDer::try_from(key.serialize_der()).expect("rcgen writes PKCS #8"),
        }
    }
}

impl Default for Domain {
    fn default() -> Self {
        Self::new()
    }
}

impl Credential {
    /// As the product builds them, or with one group only.
    pub fn configs(&self, bundle: &Arc<TrustBundle>, only: Option<NamedGroup>) -> Configs {
        let clock = Clock::new(|| NOW);
        let keep = |group| only.is_none_or(|only| only == group);
        Configs::build_narrowed(&self.chain, &self.key, bundle, &[], &clock, keep)
            .expect("the credential is a good one")
    }
}

impl Sides {
    /// `only` leaves both sides one group; `None` is the product's own list.
    pub fn new(only: Option<NamedGroup>) -> Self {
        let domain = Domain::new();
        let configs = |account| domain.issue(account).configs(&domain.bundle, only);
        Self { dialer: configs("web"), acceptor: configs("orders") }
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect(RCGEN)
}

fn authority(name: &str, is_ca: IsCa) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, 30 * DAY);
    params
}

fn valid(params: &mut CertificateParams, around: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(NOW - around);
    params.not_after = epoch + Duration::from_secs(NOW + around);
}
