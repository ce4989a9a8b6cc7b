//! Certificates of any shape under the real CA's own keys: what a CA that was robbed could sign.
//! The store is copied and opened with its own seal key. Called by the identity and wire suites.
//!
//! Never: a key that the CA under test does not use; anything written back to the CA.

// SPDX-License-Identifier: Apache-2.0

use std::fs;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use myelin_ca::datadir::{DataDir, read_secret};
use myelin_ca::journal::{BundleRecord, CURRENT, IssuerRecord, Journal, root_name};
use myelin_ca::replica::ReplicaId;
use myelin_ca::rotation::issuing_name;
use myelin_ca::store::embedded::Embedded;
use myelin_identity::bundle::{SignedStep, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::seal::{self, SealKey};
use myelin_sidecar::addr::Clock;
use myelin_sidecar::tls::Configs;
use rcgen::{
    CertificateParams, DistinguishedName, ExtendedKeyUsagePurpose, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::ca::Ca;
use crate::mesh::TRUST_DOMAIN;

/// What the CA binds its sealed keys to.
const KEY_PURPOSE: &[u8] = b"myelin-ca issuer key v1";

/// The CA's root and intermediate with their keys.
pub struct Forge {
    pub root: CertificateDer<'static>,
    pub intermediate: CertificateDer<'static>,
    /// PKCS#8, for whoever shall be handed every long-term key.
    pub keys: Vec<Vec<u8>>,
    root_issuer: Issuer<'static, KeyPair>,
    issuer: Issuer<'static, KeyPair>,
}

/// A chain with the key of its leaf.
pub struct Credential {
    pub chain: Vec<CertificateDer<'static>>,
    pub key: PrivateKeyDer<'static>,
}

impl Forge {
    /// Robs a running CA.
    pub async fn of(ca: &Ca) -> Result<Self> {
        let (journal, seal_key, replica) = robbed(ca)?;
        let current = journal.read::<BundleRecord>(CURRENT).await?.context("no trust record")?;
        let current = SignedStep::try_from(&current.record).map_err(anyhow::Error::msg)?;
        let (root, root_key) = open(&journal, &root_name(&current.step.active), &seal_key).await?;
        let (intermediate, key) = open(&journal, &issuing_name(&replica), &seal_key).await?;
        Ok(Self {
            keys: vec![root_key.serialize_der(), key.serialize_der()],
            root_issuer: Issuer::from_ca_cert_der(&root, root_key)?,
            issuer: Issuer::from_ca_cert_der(&intermediate, key)?,
            root,
            intermediate,
        })
    }

    pub fn bundle(&self) -> Result<Arc<TrustBundle>> {
        let domain = TrustDomain::parse(TRUST_DOMAIN)?;
        Ok(Arc::new(TrustBundle::new(domain, 1, vec![self.root.clone()])?))
    }

    /// A leaf below the intermediate.
    pub fn leaf(&self, params: CertificateParams) -> Result<Credential> {
        let key = KeyPair::generate()?;
        let leaf = self.sign(params, &key)?;
        Ok(Credential { chain: vec![leaf, self.intermediate.clone()], key: pkcs8(&key) })
    }

    /// A certificate of any shape below the intermediate, for a key of the caller's.
    pub fn sign(
        &self,
        params: CertificateParams,
        key: &KeyPair,
    ) -> Result<CertificateDer<'static>> {
        Ok(params.signed_by(key, &self.issuer)?.der().clone())
    }

    /// A certificate directly below the root.
    pub fn below_root(
        &self,
        params: CertificateParams,
    ) -> Result<(CertificateDer<'static>, KeyPair)> {
        let key = KeyPair::generate()?;
        Ok((params.signed_by(&key, &self.root_issuer)?.der().clone(), key))
    }

    /// A leaf exactly as the CA would issue it.
    pub fn svid(&self, id: &str, addresses: &[IpAddr]) -> Result<Credential> {
        self.leaf(svid(id, addresses)?)
    }

    /// What the sidecar's own TLS room makes of a credential.
    pub fn configs(&self, credential: &Credential) -> Result<Configs> {
        let alpns = [b"h2".to_vec()];
        let clock = Clock::new(now);
        Ok(Configs::build(&credential.chain, &credential.key, &self.bundle()?, &alpns, &clock)?)
    }
}

/// Robs a running CA whose root is elsewhere: its intermediate, with the key.
pub async fn stolen_intermediate(ca: &Ca) -> Result<(CertificateDer<'static>, KeyPair)> {
    let (journal, seal_key, replica) = robbed(ca)?;
    open(&journal, &issuing_name(&replica), &seal_key).await
}

/// A copy of a CA's store, and what opens it.
fn robbed(ca: &Ca) -> Result<(Journal, SealKey, ReplicaId)> {
    let data = DataDir::open(ca.data())?;
    let copy = tempfile::tempdir()?;
    let path = copy.path().join("store.redb");
    fs::copy(data.store(), &path).context("cannot copy the CA's store")?;
    let seal_key = SealKey::from_bytes(*read_secret(&data.default_seal_key())?);
    let journal = Journal::new(Arc::new(Embedded::open(&path)?));
    Ok((journal, seal_key, ReplicaId::open_or_make(ca.data(), ReplicaId::from_bytes([0; 8]))?))
}

/// The template of an ordinary SVID, to be bent.
pub fn svid(id: &str, addresses: &[IpAddr]) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.subject_alt_names = vec![SanType::URI(id.try_into()?)];
    params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
    valid(&mut params, now() - 60, now() + 3_600);
    Ok(params)
}

/// Sets both dates, in Unix seconds.
pub fn valid(params: &mut CertificateParams, from: u64, until: u64) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(from);
    params.not_after = epoch + Duration::from_secs(until);
}

/// Unix seconds.
#[expect(clippy::disallowed_methods, reason = "a test is its own app: certificates need a date")]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

pub fn pkcs8(key: &KeyPair) -> PrivateKeyDer<'static> {
    PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()))
}

async fn open(
    journal: &Journal,
    name: &str,
    seal_key: &SealKey,
) -> Result<(CertificateDer<'static>, KeyPair)> {
    // The root's name is whole; that of an intermediate goes on with its replica's.
    let entry = journal.page::<IssuerRecord>(name, None).await?.into_iter().next();
    let record = entry.with_context(|| format!("the CA's store holds no {name}"))?.record;
    let key = seal::open(seal_key, KEY_PURPOSE, &record.sealed_key.0)?;
    let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(&key[..]))?;
    Ok((CertificateDer::from(record.certificate_der.0), key))
}
