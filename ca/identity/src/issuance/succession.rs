//! `Succession`: the steps of the root ladder on the wire. Called by the CA's API and by the
//! sidecar's CA client.
//! Never: belief; whoever reads the steps follows them from what it knows (`bundle::follow`).

// SPDX-License-Identifier: Apache-2.0

use super::{IssuanceError, at_most, exactly, proto};
use crate::bundle::{MAX_STEPS, RootId, Rung, SignedStep, TrustStep};

/// An ASN.1 ECDSA signature by a P-384 key: two INTEGERs of 49 bytes with 2 bytes of header each,
/// and 3 for the SEQUENCE, rounded up.
const MAX_STEP_SIGNATURE_BYTES: usize = 112;

/// The steps of an answer, oldest first.
pub fn read_succession(wire: proto::SuccessionResponse) -> Result<Vec<SignedStep>, IssuanceError> {
    let (seen, limit) = (wire.steps.len() as u64, MAX_STEPS as u64);
    if seen > limit {
        return Err(IssuanceError::OutOfRange { field: "steps", seen, limit });
    }
    wire.steps.into_iter().map(SignedStep::try_from).collect()
}

impl TryFrom<proto::TrustStep> for SignedStep {
    type Error = IssuanceError;

    fn try_from(wire: proto::TrustStep) -> Result<Self, IssuanceError> {
        at_most("step.signature", &wire.signature, MAX_STEP_SIGNATURE_BYTES)?;
        let rung = match wire.rung {
            0 => Rung::Settled,
            1 => Rung::Prepared,
            2 => Rung::Activated,
            other => {
                let (field, seen) = ("step.rung", other.into());
                return Err(IssuanceError::OutOfRange { field, seen, limit: 2 });
            }
        };
        let step = TrustStep {
            number: wire.number,
            bundle: wire.bundle.ok_or(IssuanceError::Missing("step.bundle"))?.try_into()?,
            rung,
            active: RootId::from_bytes(exactly("step.active", &wire.active)?),
            since: wire.since,
            before: exactly("step.before", &wire.before)?,
        };
        let signer = RootId::from_bytes(exactly("step.signer", &wire.signer)?);
        Ok(Self { step, signer, signature: wire.signature })
    }
}

impl From<&SignedStep> for proto::TrustStep {
    fn from(signed: &SignedStep) -> Self {
        let step = &signed.step;
        Self {
            number: step.number,
            bundle: Some((&step.bundle).into()),
            rung: match step.rung {
                Rung::Settled => 0,
                Rung::Prepared => 1,
                Rung::Activated => 2,
            },
            active: step.active.as_bytes().to_vec(),
            since: step.since,
            before: step.before.to_vec(),
            signer: signed.signer.as_bytes().to_vec(),
            signature: signed.signature.clone(),
        }
    }
}
