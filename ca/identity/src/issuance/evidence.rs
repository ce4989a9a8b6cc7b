//! Evidence that comes from outside the mesh: a Kubernetes service-account token, a machine's own
//! certificate. Bounded and moved here, judged by the CA. Called by `issue`.
//! Never: an opinion on what the evidence says; it is not even decoded.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;

use rustls_pki_types::CertificateDer;

use super::{IssuanceError, at_most, proto};
use crate::bundle::MAX_CERTIFICATE_BYTES;

/// Projected tokens are 1 to 2 KiB; the API server's own header limit is 8 KiB.
pub const MAX_SERVICE_TOKEN_BYTES: usize = 8 * 1024;
/// The machine's certificate, and as many intermediates as a corporate hierarchy has.
pub const MAX_MACHINE_CHAIN: usize = 4;
/// RSA with 4096 bits; larger keys are not taken.
pub const MAX_MACHINE_SIGNATURE_BYTES: usize = 512;

/// A service-account token as it was read from its file. Bears no `Debug` of its text.
#[derive(Clone, PartialEq, Eq)]
pub struct ServiceToken(String);

/// A machine's certificate, and its key's signature over this very request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineProof {
    /// The machine's own first.
    pub chain: Vec<CertificateDer<'static>>,
    /// TLS `SignatureScheme`.
    pub scheme: u16,
    /// Over [`super::HostProof::machine_bytes`].
    pub signature: Vec<u8>,
}

impl ServiceToken {
    /// White space around it (a file's last newline) does not count.
    pub fn new(text: &str) -> Result<Self, IssuanceError> {
        let text = text.trim();
        at_most("kubernetes.token", text.as_bytes(), MAX_SERVICE_TOKEN_BYTES)?;
        if text.is_empty() {
            return Err(IssuanceError::Missing("kubernetes.token"));
        }
        Ok(Self(text.to_owned()))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServiceToken(..)")
    }
}

impl MachineProof {
    pub(super) fn read(
        chain: Vec<Vec<u8>>,
        scheme: u32,
        signature: Vec<u8>,
    ) -> Result<Self, IssuanceError> {
        const CHAIN: &str = "machine.chain_der";
        if chain.is_empty() {
            return Err(IssuanceError::Missing(CHAIN));
        }
        let out_of_range = |field, seen: u64, limit: u64| {
            if seen > limit {
                Err(IssuanceError::OutOfRange { field, seen, limit })
            } else {
                Ok(())
            }
        };
        out_of_range(CHAIN, chain.len() as u64, MAX_MACHINE_CHAIN as u64)?;
        for der in &chain {
            at_most(CHAIN, der, MAX_CERTIFICATE_BYTES)?;
        }
        out_of_range("machine.scheme", scheme.into(), u16::MAX.into())?;
        at_most("machine.signature", &signature, MAX_MACHINE_SIGNATURE_BYTES)?;
        let scheme = u16::try_from(scheme).expect("compared with u16::MAX above");
        Ok(Self { chain: chain.into_iter().map(CertificateDer::from).collect(), scheme, signature })
    }
}

impl From<MachineProof> for proto::MachineCertificate {
    fn from(proof: MachineProof) -> Self {
        Self {
            chain_der: proof.chain.iter().map(|der| der.to_vec()).collect(),
            scheme: proof.scheme.into(),
            signature: proof.signature,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_bounded_trimmed_and_never_shown() {
        let token = ServiceToken::new(" a.b.c\n").unwrap();
        assert_eq!((token.reveal(), format!("{token:?}").as_str()), ("a.b.c", "ServiceToken(..)"));
        assert!(ServiceToken::new(&"x".repeat(MAX_SERVICE_TOKEN_BYTES)).is_ok());
        assert!(ServiceToken::new(&"x".repeat(MAX_SERVICE_TOKEN_BYTES + 1)).is_err());
        assert!(ServiceToken::new(" \n").is_err());
    }

    #[test]
    fn machine_proofs_are_bounded_before_anything_is_parsed() {
        let read = |certificates: usize, bytes, scheme, signature| {
            MachineProof::read(vec![vec![0; bytes]; certificates], scheme, vec![0; signature])
                .is_ok()
        };
        let (most, long) = (MAX_MACHINE_CHAIN, MAX_CERTIFICATE_BYTES);
        assert!(read(most, long, 0x0403, MAX_MACHINE_SIGNATURE_BYTES));
        assert!(!read(0, long, 0x0403, 64));
        assert!(!read(most + 1, 9, 0x0403, 64));
        assert!(!read(1, long + 1, 0x0403, 64));
        assert!(!read(1, 9, 0x1_0000, 64));
        assert!(!read(1, 9, 0x0403, MAX_MACHINE_SIGNATURE_BYTES + 1));
    }
}
