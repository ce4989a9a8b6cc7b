//! Makes CA certificates: a root, and an issuing intermediate below one. Each is checked before
//! anybody sees it.
//!
//! Never: writes to the journal, or makes a CA certificate that does not name its log.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::id::TrustDomain;
use myelin_identity::log::LOG_OID;

use super::RotationError;
use crate::check;
use crate::clock::UnixSeconds;
use crate::journal::{Blob, IssuerRecord, Journal};
use crate::log::{self, Which};
use crate::random;
use crate::signer::{SealedIssuer, Signer, Vault};
use crate::template::{
    Extension, ISSUING_LIFETIME, IssuerTemplate, ROOT_LIFETIME, Serial, issuer_validity,
};

pub(super) fn make_root(
    trust_domain: &TrustDomain,
    vault: &Vault,
    extensions: Vec<Extension>,
    now: UnixSeconds,
) -> Result<(Signer, SealedIssuer), RotationError> {
    let template = IssuerTemplate {
        common_name: format!("Myelin root of {trust_domain}"),
        trust_domain: trust_domain.to_string(),
        serial: fresh_serial()?,
        validity: issuer_validity(ROOT_LIFETIME, now, None),
        path_length: None,
        extensions,
    };
    let (root, sealed) = Signer::make_root(&template, vault)?;
    check::issuer(root.certificate(), &template, root.certificate())?;
    Ok((root, sealed))
}

pub(super) fn make_issuing(
    root: &Signer,
    trust_domain: &TrustDomain,
    vault: &Vault,
    extensions: Vec<Extension>,
    now: UnixSeconds,
) -> Result<(Signer, SealedIssuer), RotationError> {
    if root.validity().not_after <= now {
        return Err(RotationError::RootExpired);
    }
    let template = IssuerTemplate {
        common_name: format!("Myelin issuing CA of {trust_domain}"),
        trust_domain: trust_domain.to_string(),
        serial: fresh_serial()?,
        validity: issuer_validity(ISSUING_LIFETIME, now, Some(root.validity())),
        path_length: Some(0),
        extensions,
    };
    let (signer, sealed) = root.make_issuer(&template, vault)?;
    check::issuer(signer.certificate(), &template, root.certificate())?;
    Ok((signer, sealed))
}

/// The extension by which a CA certificate names the log of what it issues.
pub async fn names(journal: &Journal, which: Which<'_>) -> Result<Vec<Extension>, RotationError> {
    let named = log::extension(journal, which).await?;
    Ok(named.into_iter().map(|der| Extension { oid: LOG_OID.to_vec(), der }).collect())
}

fn fresh_serial() -> Result<Serial, RotationError> {
    random::bytes().map(Serial::from_random).map_err(|_| RotationError::NoRandomness)
}

pub(super) fn to_record(sealed: &SealedIssuer) -> IssuerRecord {
    IssuerRecord {
        certificate_der: Blob(sealed.certificate_der.clone()),
        sealed_key: Blob(sealed.sealed_key.clone()),
    }
}

pub(super) fn from_record(record: &IssuerRecord) -> SealedIssuer {
    SealedIssuer {
        certificate_der: record.certificate_der.0.clone(),
        sealed_key: record.sealed_key.0.clone(),
    }
}
