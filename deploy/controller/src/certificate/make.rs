//! A certificate that signs itself, for the names by which the API server dials us. Called by the
//! room's door.
//!
//! Never: a certificate that could sign another.

// SPDX-License-Identifier: Apache-2.0

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::kept::Pair;
use super::plan::{LIFE_SECONDS, SKEW_SECONDS};

pub(super) fn pair(names: &[String], now: u64) -> Result<Pair, rcgen::Error> {
    let mut params = CertificateParams::new(names.to_vec())?;
    let mut subject = DistinguishedName::new();
    // The same for each, so that a reader of the registration knows what it looks at.
    subject.push(DnType::CommonName, "myelin webhook");
    params.distinguished_name = subject;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let at = |seconds: u64| -> SystemTime { UNIX_EPOCH + Duration::from_secs(seconds) };
    params.not_before = at(now.saturating_sub(SKEW_SECONDS)).into();
    params.not_after = at(now + LIFE_SECONDS).into();
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?;
    let pair = Pair::read(&certificate.pem(), &key.serialize_pem());
    Ok(pair.expect("what was just made can be read"))
}
