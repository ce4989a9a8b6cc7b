//! Between signing and handing out: every certificate goes into the log. Called by `issue` and `own`.
//!
//! Never: hands out a certificate whose append failed.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::log::Inclusion;
use rustls_pki_types::CertificateDer;

use super::issued::{Issued, Kept};
use super::{Authority, IssueError};
use crate::check;
use crate::journal::LogPlace;

/// A certificate's place in the issuing log, and the proof that travels with it.
pub(super) struct Logged {
    pub(super) place: LogPlace,
    pub(super) proof: Vec<u8>,
}

impl Authority {
    /// Logs a certificate that was signed and checked. Its issuer is in the root's log before.
    pub(super) async fn log(
        &self,
        certificate_der: &[u8],
        issuer_der: &[u8],
    ) -> Result<Logged, IssueError> {
        let issuer = self.place_of(issuer_der).await?;
        let (place, proof) = self.logs.log(certificate_der, issuer_der, issuer).await?;
        Ok(Logged { place, proof })
    }

    /// The whole of a certificate that this very request was given before: its issuer, and the
    /// proof. Another replica's log is not here: its certificate comes without a proof, and the
    /// caller begins anew.
    pub(super) async fn whole_again(&self, kept: Kept) -> Result<Issued, IssueError> {
        let Kept { mut issued, issuer } = kept;
        issued.chain.push(CertificateDer::from(self.logs.issuer(&issuer).await?));
        let (leaf, issuer) = (&issued.chain[0], &issued.chain[1]);
        let log_proof = match &issued.logged {
            Some(place) if self.logs.is_ours(place) => {
                let issuer_place = self.place_of(issuer).await?;
                self.logs.proof_again(place.index, leaf, issuer, issuer_place).await?
            }
            _ => Vec::new(),
        };
        Ok(Issued { log_proof, ..issued })
    }

    /// Logs a certificate of the CA itself, which proves nothing to peers.
    pub(super) async fn log_own(
        &self,
        certificate_der: &[u8],
        issuer_der: &[u8],
    ) -> Result<LogPlace, IssueError> {
        let bundle = self.bundle();
        let root = check::root_of(issuer_der, bundle.roots())?;
        Ok(self.logs.log_unproven(certificate_der, issuer_der, root).await?)
    }

    /// An intermediate's place in the root's log. Which root it is of costs a verification, and one
    /// intermediate signs for weeks: that is asked of a new one only.
    async fn place_of(&self, issuer_der: &[u8]) -> Result<Inclusion, IssueError> {
        if let Some(place) = self.logs.known_issuer(issuer_der) {
            return Ok(place);
        }
        let bundle = self.bundle();
        let root = check::root_of(issuer_der, bundle.roots())?;
        Ok(self.logs.enter_issuer(issuer_der, root).await?)
    }
}
