//! `WatchBundle`: bundles, deny lists and acknowledgements on the wire.
//! Called by the CA's API and the sidecar's CA client.
//! Never: belief; a deny list comes out of here still signed, to be verified against the held
//! bundle.

// SPDX-License-Identifier: Apache-2.0

use std::sync::Arc;

use rustls_pki_types::CertificateDer;

use super::{IssuanceError, at_most, exactly, proto};
use crate::bundle::{
    DenyEntry, DenyList, DenySubject, ForeignBundle, ForeignBundles, MAX_CERTIFICATE_BYTES,
    MAX_DENY_ENTRIES, MAX_FOREIGN, MAX_ROOTS, RootId, Serial, SignedDenyList, TrustBundle,
};
use crate::id::{SpiffeId, TrustDomain};
use crate::log::{named_log_extension, named_log_of_value};
use crate::svid::P256_SIGNATURE_MAX_BYTES;

/// A heartbeat slower than a day would tell nobody anything; faster than a second is not the use of
/// it.
const MAX_HEARTBEAT_SECONDS: u64 = 24 * 60 * 60;

/// What a sidecar holds and trusts, said under its SVID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BundleAck {
    pub generation: u64,
    pub deny_epoch: u64,
}

/// News, or a heartbeat: what has not changed may be absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleUpdate {
    pub bundle: Option<TrustBundle>,
    pub deny_list: Option<SignedDenyList>,
    pub foreign: Option<ForeignBundles>,
    /// The next update comes within this time, or something is wrong.
    pub heartbeat_seconds: u64,
}

impl TryFrom<proto::BundleUpdate> for BundleUpdate {
    type Error = IssuanceError;

    fn try_from(wire: proto::BundleUpdate) -> Result<Self, IssuanceError> {
        if !(1..=MAX_HEARTBEAT_SECONDS).contains(&wire.heartbeat_seconds) {
            return Err(IssuanceError::OutOfRange {
                field: "heartbeat_seconds",
                seen: wire.heartbeat_seconds,
                limit: MAX_HEARTBEAT_SECONDS,
            });
        }
        Ok(Self {
            bundle: wire.bundle.map(TrustBundle::try_from).transpose()?,
            deny_list: wire.deny_list.map(SignedDenyList::try_from).transpose()?,
            foreign: wire.foreign.map(ForeignBundles::try_from).transpose()?,
            heartbeat_seconds: wire.heartbeat_seconds,
        })
    }
}

impl From<&BundleUpdate> for proto::BundleUpdate {
    fn from(update: &BundleUpdate) -> Self {
        Self {
            bundle: update.bundle.as_ref().map(Into::into),
            deny_list: update.deny_list.as_ref().map(Into::into),
            foreign: update.foreign.as_ref().map(Into::into),
            heartbeat_seconds: update.heartbeat_seconds,
        }
    }
}

impl From<proto::BundleAck> for BundleAck {
    fn from(wire: proto::BundleAck) -> Self {
        Self { generation: wire.generation, deny_epoch: wire.deny_epoch }
    }
}

impl From<BundleAck> for proto::BundleAck {
    fn from(ack: BundleAck) -> Self {
        Self { generation: ack.generation, deny_epoch: ack.deny_epoch }
    }
}

impl TryFrom<proto::Bundle> for TrustBundle {
    type Error = IssuanceError;

    fn try_from(wire: proto::Bundle) -> Result<Self, IssuanceError> {
        let trust_domain = TrustDomain::parse(&wire.trust_domain)
            .map_err(|why| IssuanceError::Id { field: "bundle.trust_domain", why })?;
        count("bundle.roots_der", wire.roots_der.len(), MAX_ROOTS)?;
        let roots = wire.roots_der.into_iter().map(CertificateDer::from).collect();
        count("bundle.root_logs", wire.root_logs.len(), MAX_ROOTS)?;
        let stated = wire.root_logs.into_iter().map(|stated| {
            let root = RootId::from_bytes(exactly("root_log.root", &stated.root)?);
            Ok((root, named_log_of_value(&stated.log)?))
        });
        let stated = stated.collect::<Result<Vec<_>, IssuanceError>>()?;
        Ok(Self::new(trust_domain, wire.generation, roots)?.with_stated(stated)?)
    }
}

impl From<&TrustBundle> for proto::Bundle {
    fn from(bundle: &TrustBundle) -> Self {
        Self {
            trust_domain: bundle.trust_domain().to_string(),
            generation: bundle.generation(),
            roots_der: bundle.roots().map(|root| root.to_vec()).collect(),
            root_logs: bundle
                .stated_logs()
                .map(|(root, log)| proto::RootLog {
                    root: root.as_bytes().to_vec(),
                    log: named_log_extension(log),
                })
                .collect(),
        }
    }
}

impl TryFrom<proto::ForeignBundles> for ForeignBundles {
    type Error = IssuanceError;

    fn try_from(wire: proto::ForeignBundles) -> Result<Self, IssuanceError> {
        count("foreign.bundles", wire.bundles.len(), MAX_FOREIGN)?;
        let bundles = wire.bundles.into_iter().map(|foreign| {
            let bundle = foreign.bundle.ok_or(IssuanceError::Missing("foreign.bundle"))?;
            let bundle = Arc::new(TrustBundle::try_from(bundle)?);
            Ok(ForeignBundle { bundle, unlogged: foreign.unlogged })
        });
        Ok(Self::new(wire.epoch, bundles.collect::<Result<_, IssuanceError>>()?)?)
    }
}

impl From<&ForeignBundles> for proto::ForeignBundles {
    fn from(foreign: &ForeignBundles) -> Self {
        let bundles = foreign.bundles().iter().map(|foreign| proto::ForeignBundle {
            bundle: Some((&*foreign.bundle).into()),
            unlogged: foreign.unlogged,
        });
        Self { epoch: foreign.epoch(), bundles: bundles.collect() }
    }
}

impl TryFrom<proto::DenyList> for SignedDenyList {
    type Error = IssuanceError;

    fn try_from(wire: proto::DenyList) -> Result<Self, IssuanceError> {
        at_most("deny_list.signature", &wire.signature, P256_SIGNATURE_MAX_BYTES)?;
        at_most("deny_list.signer_der", &wire.signer_der, MAX_CERTIFICATE_BYTES)?;
        count("deny_list.entries", wire.entries.len(), MAX_DENY_ENTRIES)?;
        let entries =
            wire.entries.into_iter().map(DenyEntry::try_from).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            list: DenyList::new(wire.epoch, wire.said_at, entries)?,
            signature: wire.signature,
            signer: CertificateDer::from(wire.signer_der),
        })
    }
}

impl From<&SignedDenyList> for proto::DenyList {
    fn from(signed: &SignedDenyList) -> Self {
        Self {
            epoch: signed.list.epoch(),
            entries: signed.list.entries().map(Into::into).collect(),
            said_at: signed.list.said_at(),
            signature: signed.signature.clone(),
            signer_der: signed.signer.to_vec(),
        }
    }
}

impl TryFrom<proto::DenyEntry> for DenyEntry {
    type Error = IssuanceError;

    fn try_from(wire: proto::DenyEntry) -> Result<Self, IssuanceError> {
        use proto::deny_entry::Subject as Wire;
        let subject = match wire.subject.ok_or(IssuanceError::Missing("deny_list.subject"))? {
            Wire::SpiffeId(text) => DenySubject::Id(
                SpiffeId::parse(&text)
                    .map_err(|why| IssuanceError::Id { field: "deny_list.spiffe_id", why })?,
            ),
            Wire::Serial(bytes) => {
                DenySubject::Serial(Serial::from_bytes(&bytes).map_err(|_| IssuanceError::Serial)?)
            }
        };
        Ok(Self { subject, until: wire.until })
    }
}

impl From<DenyEntry> for proto::DenyEntry {
    fn from(entry: DenyEntry) -> Self {
        use proto::deny_entry::Subject as Wire;
        let subject = match entry.subject {
            DenySubject::Id(id) => Wire::SpiffeId(id.to_string()),
            DenySubject::Serial(serial) => Wire::Serial(serial.as_bytes().to_vec()),
        };
        Self { subject: Some(subject), until: entry.until }
    }
}

fn count(field: &'static str, seen: usize, limit: usize) -> Result<(), IssuanceError> {
    if seen > limit {
        return Err(IssuanceError::OutOfRange { field, seen: seen as u64, limit: limit as u64 });
    }
    Ok(())
}
