//! Certificates for the peers that have no CA: root, intermediate and leaf, all P-256, a SPIFFE ID,
//! a DNS name and an address in the leaf. Called by `envoy`, `haproxy` and `nginx`.
//!
//! Never: used for Myelin, whose own CA issues what its sidecars have.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};

use super::super::machine;
use super::super::stage::{Side, Stage, address};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// The files of one pair: `<side>.pem` (leaf and intermediate), `<side>.key`, `<side>.all.pem`
/// (both) and `root.pem`, readable for the proxies' user: they are good for one visit.
pub(super) struct Files {
    pub(super) root: PathBuf,
    dir: PathBuf,
}

/// Who a side is.
pub(super) fn id(side: Side) -> String {
    format!("spiffe://compare.example/ns/default/sa/{}", side.name())
}

/// The name that proxies which check names look for.
pub(super) fn dns(side: Side) -> String {
    format!("{}.compare.example", side.name())
}

impl Files {
    pub(super) fn write(stage: &Stage) -> Result<Self> {
        let root_key = key()?;
        let root = authority("root", IsCa::Ca(BasicConstraints::Unconstrained))?;
        let root_pem = root.self_signed(&root_key).context("cannot sign a root")?.pem();
        let root = Issuer::new(root, root_key);

        let issuing_key = key()?;
        let params = authority("issuing", IsCa::Ca(BasicConstraints::Constrained(0)))?;
        let issuing = params.signed_by(&issuing_key, &root).context("cannot sign")?;
        let issuer = Issuer::new(params, issuing_key);

        let dir = stage.make_dir("certificates", false)?;
        let root = stage.write("certificates/root.pem", &root_pem, false)?;
        for side in Side::BOTH {
            let key = key()?;
            let leaf = leaf(side)?.signed_by(&key, &issuer).context("cannot sign a leaf")?;
            let (chain, key) = (leaf.pem() + &issuing.pem(), key.serialize_pem());
            let name = format!("certificates/{}", side.name());
            stage.write(&format!("{name}.pem"), &chain, false)?;
            stage.write(&format!("{name}.key"), &key, false)?;
            stage.write(&format!("{name}.all.pem"), &(chain + &key), false)?;
        }
        Ok(Self { root, dir })
    }

    pub(super) fn chain(&self, side: Side) -> PathBuf {
        self.dir.join(format!("{}.pem", side.name()))
    }

    pub(super) fn key(&self, side: Side) -> PathBuf {
        self.dir.join(format!("{}.key", side.name()))
    }

    pub(super) fn all(&self, side: Side) -> PathBuf {
        self.dir.join(format!("{}.all.pem", side.name()))
    }
}

fn key() -> Result<KeyPair> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).context("cannot make a key")
}

fn authority(name: &str, is_ca: IsCa) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = is_ca;
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params);
    Ok(params)
}

fn leaf(side: Side) -> Result<CertificateParams> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, side.name());
    let host = match side {
        Side::Client => address(1),
        Side::Server => address(2),
    };
    params.subject_alt_names = vec![
        SanType::URI(id(side).try_into().context("an ID is ASCII")?),
        SanType::DnsName(dns(side).try_into().context("a name is ASCII")?),
        SanType::IpAddress(host),
    ];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params);
    Ok(params)
}

/// From yesterday until tomorrow.
fn valid(params: &mut CertificateParams) {
    let now = rcgen::date_time_ymd(1970, 1, 1) + machine::now();
    params.not_before = now - DAY;
    params.not_after = now + DAY;
}
