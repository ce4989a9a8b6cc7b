//! The records of root rotation: the steps of the ladder, and who has acknowledged a bundle.
//! `rotation` signs and checks them.
//!
//! Never: belief; what is read here is only as good as its signature.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::bundle::{RootId, Rung, SignedStep, TrustBundle, TrustStep};
use myelin_identity::id::TrustDomain;
use myelin_identity::log::NoteKeyError as KeyError;
use rustls_pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use super::{Blob, Hex, Record};
use crate::clock::UnixSeconds;

/// One step of the ladder: the bundle from then on, and where the ladder stands. `name`:
/// [`super::CURRENT`], and the step's number ([`step_name`]) for the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BundleRecord {
    pub trust_domain: String,
    pub number: u64,
    pub generation: u64,
    pub rung: RungName,
    pub active: Hex,
    pub since: UnixSeconds,
    pub before: Hex,
    pub roots_der: Vec<Blob>,
    /// The logs of roots whose certificates name none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub root_logs: Vec<RootLog>,
    pub signer: Hex,
    pub signature: Blob,
}

/// Which log counts below a root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootLog {
    pub root: Hex,
    /// `name+id+key`, as signed notes write it.
    pub log: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RungName {
    Settled,
    Prepared,
    Activated,
}

/// That a holder trusts a bundle, said under its SVID. `name`: the host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AckRecord {
    pub generation: u64,
    /// The SVID under which it was said, and the root that this SVID chains to.
    pub serial: Hex,
    pub root: Hex,
}

impl Record for BundleRecord {
    const PREFIX: &'static str = "bundle/";
    /// 1 was unsigned.
    const VERSION: u32 = 2;
}
impl Record for AckRecord {
    const PREFIX: &'static str = "ack/";
}

/// Under which name the journal holds a step of the past; sorts as numbers do.
pub fn step_name(number: u64) -> String {
    format!("{number:020}")
}

/// Under which name the journal holds a root's key.
pub fn root_name(root: &RootId) -> String {
    format!("{}/{root}", super::ROOT)
}

impl From<&SignedStep> for BundleRecord {
    fn from(signed: &SignedStep) -> Self {
        let step = &signed.step;
        Self {
            trust_domain: step.bundle.trust_domain().to_string(),
            number: step.number,
            generation: step.bundle.generation(),
            rung: step.rung.into(),
            active: Hex(step.active.as_bytes().to_vec()),
            since: step.since,
            before: Hex(step.before.to_vec()),
            roots_der: step.bundle.roots().map(|root| Blob(root.to_vec())).collect(),
            root_logs: step
                .bundle
                .stated_logs()
                .map(|(root, log)| RootLog {
                    root: Hex(root.as_bytes().to_vec()),
                    log: log.to_string(),
                })
                .collect(),
            signer: Hex(signed.signer.as_bytes().to_vec()),
            signature: Blob(signed.signature.clone()),
        }
    }
}

impl TryFrom<&BundleRecord> for SignedStep {
    type Error = String;

    fn try_from(record: &BundleRecord) -> Result<Self, String> {
        let domain = TrustDomain::parse(&record.trust_domain).map_err(|why| why.to_string())?;
        let roots = record.roots_der.iter().map(|der| CertificateDer::from(der.0.clone()));
        let stated = record.root_logs.iter().map(|stated| {
            let log = stated.log.parse().map_err(|why: KeyError| why.to_string())?;
            Ok((RootId::from_bytes(digest(&stated.root)?), log))
        });
        let stated: Vec<_> = stated.collect::<Result<_, String>>()?;
        let bundle = TrustBundle::new(domain, record.generation, roots.collect())
            .and_then(|bundle| bundle.with_stated(stated))
            .map_err(|why| why.to_string())?;
        let step = TrustStep {
            number: record.number,
            bundle,
            rung: record.rung.into(),
            active: RootId::from_bytes(digest(&record.active)?),
            since: record.since,
            before: digest(&record.before)?,
        };
        let signer = RootId::from_bytes(digest(&record.signer)?);
        Ok(Self { step, signer, signature: record.signature.0.clone() })
    }
}

fn digest(hex: &Hex) -> Result<[u8; 32], String> {
    hex.0.as_slice().try_into().map_err(|_| format!("{} bytes are no SHA-256", hex.0.len()))
}

impl From<Rung> for RungName {
    fn from(rung: Rung) -> Self {
        match rung {
            Rung::Settled => Self::Settled,
            Rung::Prepared => Self::Prepared,
            Rung::Activated => Self::Activated,
        }
    }
}

impl From<RungName> for Rung {
    fn from(name: RungName) -> Self {
        match name {
            RungName::Settled => Self::Settled,
            RungName::Prepared => Self::Prepared,
            RungName::Activated => Self::Activated,
        }
    }
}

impl RungName {
    /// The word for people and metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Settled => "settled",
            Self::Prepared => "prepared",
            Self::Activated => "activated",
        }
    }
}
