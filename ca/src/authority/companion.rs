//! A companion: a second certificate for the ID and the addresses of a host, whose key the sidecar
//! hands to its workload. The SVID on the connection vouches for it, once in each generation of its
//! lineage, and it never outlives that SVID. So a copied SVID brings a thief nothing that lasts
//! longer than the copy, and the second of two who ask is the same alarm as a second renewal.
//! Called by `authority::issue`.
//!
//! Never: claims an address, advances or supersedes a lineage, or can itself be renewed.

// SPDX-License-Identifier: Apache-2.0

use rustls_pki_types::CertificateDer;

use super::decide::within_rate;
use super::entries::{held_with, write_certificate};
use super::issue::MAX_ATTEMPTS;
use super::issued::{Issued, Kept};
use super::{Authority, IssueError, Reason, chain};
use crate::attest::{AttestError, Caller, Claimed, Proven};
use crate::check;
use crate::clock::UnixSeconds;
use crate::journal::{
    Batch, Blob, CompanionRecord, Entry, Grant, Held, Hex, HostRecord, LineageRecord, LineageState,
};
use crate::random;
use crate::signer::Signer;
use crate::store::Commit;
use crate::template::LifetimeRefusal;

use super::seen::Seen;

/// What is to be done about a request for a companion.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Decision {
    Issue,
    /// The reply was lost: the certificate of this very request again.
    Again,
    /// This generation has vouched for another request already: somebody holds a copy of it.
    Alarm,
    Refuse(Reason),
}

/// What the journal says about those whom the request names.
#[derive(Clone, Copy, Debug, Default)]
struct Known<'a> {
    host: Option<&'a HostRecord>,
    /// The vouching SVID's lineage.
    lineage: Option<&'a LineageRecord>,
    /// The record of the SVID that the connection proved.
    held: Option<&'a Held>,
    former: Option<&'a CompanionRecord>,
    /// The ID that would be issued is on the deny list.
    id_denied: bool,
}

impl Authority {
    /// Issues the workload's own certificate to a sidecar that proves its SVID and its host key.
    pub(super) async fn issue_companion(
        &self,
        caller: &Caller,
        proven: &Proven,
    ) -> Result<Issued, IssueError> {
        let vouching = caller.peer.as_ref().ok_or(AttestError::SvidNotPresented)?;
        // The handshake is over for a while: the SVID may have expired or been denied since.
        self.judge(vouching)?;
        for _ in 0..MAX_ATTEMPTS {
            let now = self.clock.seconds();
            let former = self.journal.read::<CompanionRecord>(&proven.host().to_string()).await?;
            let seen = self.look_up(caller, proven).await?;
            let known = Known {
                host: seen.host.as_ref().map(|entry| &entry.record),
                lineage: seen.lineage.as_ref().map(|entry| &entry.record),
                held: seen.held(proven),
                former: former.as_ref().map(|entry| &entry.record),
                id_denied: seen.known(proven, now).id_denied,
            };
            let done = match decide(proven, known) {
                Decision::Refuse(reason) => return Err(IssueError::Refused(reason)),
                Decision::Again => match again(&former, &seen) {
                    Some(kept) => Some(self.whole_again(kept).await?),
                    None => None,
                },
                Decision::Alarm => match self.alarm(proven, &seen, now).await? {
                    Commit::Committed { .. } => return Err(IssueError::Refused(Reason::Alarm)),
                    Commit::Conflict => None,
                },
                Decision::Issue => self.attempt_companion(proven, &seen, &former, now).await?,
            };
            if let Some(issued) = done {
                return Ok(issued);
            }
            // Whatever else has changed is read anew; what is denied is held in memory.
            self.hear_denials().await.map_err(IssueError::unheard)?;
        }
        Err(IssueError::Refused(Reason::Contended))
    }

    /// Signs and commits one companion. `None`: the journal changed meanwhile, nothing was written.
    async fn attempt_companion(
        &self,
        proven: &Proven,
        seen: &Seen,
        former: &Option<Entry<CompanionRecord>>,
        now: UnixSeconds,
    ) -> Result<Option<Issued>, IssueError> {
        let (Some(host), Some(vouching)) = (&seen.host, &seen.lineage) else {
            return Err(IssueError::Refused(Reason::LineageUnknown));
        };
        let next_due = within_rate(Some(&host.record), self.default_life(), now)
            .map_err(IssueError::Refused)?;
        let Some(signing) = self.signing(now).await? else { return Ok(None) };
        let signer = signing.signer();
        let leaf =
            self.companion_leaf(proven, (&host.record.grant, &vouching.record), signer, now)?;
        let certificate = signer.sign_leaf(&leaf)?;
        check::leaf(&certificate, &leaf, signer.subject())?;
        let logged = self.log(&certificate, signer.certificate()).await?;
        let (lineage, generation) = line(proven, former)?;
        let issued = Issued {
            chain: chain(&certificate, signer.certificate()),
            lineage,
            generation,
            spiffe_id: leaf.spiffe_id.clone(),
            addresses: leaf.addresses.clone(),
            serial: Hex(leaf.serial.as_bytes().to_vec()),
            not_after: leaf.validity.not_after,
            again: false,
            logged: Some(logged.place),
            log_proof: logged.proof,
        };
        let mut batch = Batch::default();
        seen.denied.expect(&mut batch);
        write_certificate(&mut batch, proven, &issued, &leaf, now);
        let record = record(proven, &issued);
        batch.put(&proven.host().to_string(), former.as_ref(), &record);
        // Every issue writes the host's record, so that an alarm sees them all; and what vouches
        // must still be what it was.
        let held = held_with(Some(host), &issued, now);
        batch.replace(host, &HostRecord { next_due, held, ..host.record.clone() });
        batch.unchanged(vouching);
        signing.bind(&mut batch);
        Ok(self.commit_bound(batch).await?.map(|_| issued))
    }

    /// The same ID and addresses as the sidecar's own; its end is that of the SVID that vouches, or
    /// earlier.
    fn companion_leaf(
        &self,
        proven: &Proven,
        (grant, vouching): (&Grant, &LineageRecord),
        signer: &Signer,
        now: UnixSeconds,
    ) -> Result<crate::template::Leaf, IssueError> {
        let mut leaf = self.leaf(proven, grant, signer, now)?;
        leaf.validity.not_after = leaf.validity.not_after.min(vouching.not_after);
        if leaf.validity.not_after <= now {
            let shortest = self.settings.lifetimes.shortest.as_secs();
            return Err(LifetimeRefusal::IssuerExpiring { left: 0, shortest }.into());
        }
        Ok(leaf)
    }
}

/// Decides one request.
fn decide(proven: &Proven, known: Known<'_>) -> Decision {
    let Claimed::Companion { lineage: named, generation: claimed, .. } = proven.claimed() else {
        return Decision::Refuse(Reason::SvidOfAnotherLineage);
    };
    if known.id_denied {
        return Decision::Refuse(Reason::IdDenied);
    }
    let Some(host) = known.host else { return Decision::Refuse(Reason::HostUnknown) };
    if host.is_gone() {
        return Decision::Refuse(Reason::PodGone);
    }
    if host.denied {
        return Decision::Refuse(Reason::HostDenied);
    }
    let Some(lineage) = known.lineage.filter(|lineage| lineage.host == *proven.host()) else {
        return Decision::Refuse(Reason::LineageUnknown);
    };
    // Only who holds that very SVID may have it vouch, and only who holds it may raise an alarm
    // about it.
    let proves = |held: &Held| held.generation == *claimed && held.lineage == *named;
    if !known.held.is_some_and(proves) {
        return Decision::Refuse(Reason::SvidOfAnotherLineage);
    }
    if lineage.state == LineageState::Denied {
        return Decision::Refuse(Reason::LineageDenied);
    }
    let vouched = known
        .former
        .filter(|former| former.vouched_lineage == *named && former.vouched_generation == *claimed);
    match vouched {
        Some(former) if former.request_key != *proven.request_key() => Decision::Alarm,
        Some(former) if former.csr_key == proven.csr_fingerprint() => Decision::Again,
        Some(_) => Decision::Refuse(Reason::RequestKeyReused),
        // A renewal overtook the question. The new SVID asks again; nobody was copied.
        None if lineage.state == LineageState::Superseded || lineage.generation != *claimed => {
            Decision::Refuse(Reason::SvidOfAnotherLineage)
        }
        None => Decision::Issue,
    }
}

/// The companion's own line goes on while one lineage vouches for it; another begins another.
fn line(
    proven: &Proven,
    former: &Option<Entry<CompanionRecord>>,
) -> Result<(Hex, u64), IssueError> {
    let vouching = proven.claimed().lineage();
    let same = former.as_ref().map(|entry| &entry.record);
    match same.filter(|former| Some(&former.vouched_lineage) == vouching) {
        Some(former) => Ok((former.lineage.clone(), former.generation + 1)),
        None => {
            let id = random::bytes::<16>().map_err(|_| IssueError::NoRandomness)?;
            Ok((Hex(id.to_vec()), 1))
        }
    }
}

fn record(proven: &Proven, issued: &Issued) -> CompanionRecord {
    let (lineage, generation) = match proven.claimed() {
        Claimed::Companion { lineage, generation, .. } => (lineage.clone(), *generation),
        // `decide` has refused every other claim.
        _ => (Hex(Vec::new()), 0),
    };
    CompanionRecord {
        lineage: issued.lineage.clone(),
        generation: issued.generation,
        vouched_lineage: lineage,
        vouched_generation: generation,
        serial: issued.serial.clone(),
        not_after: issued.not_after,
        request_key: proven.request_key().clone(),
        csr_key: proven.csr_fingerprint(),
        leaf_der: Blob(issued.chain[0].to_vec()),
        issuer: issued.issuer(),
        logged: issued.logged.clone(),
    }
}

fn again(former: &Option<Entry<CompanionRecord>>, seen: &Seen) -> Option<Kept> {
    let (former, host) = (&former.as_ref()?.record, &seen.host.as_ref()?.record);
    let issued = Issued {
        chain: vec![CertificateDer::from(former.leaf_der.0.clone())],
        lineage: former.lineage.clone(),
        generation: former.generation,
        spiffe_id: host.grant.spiffe_id.clone(),
        addresses: host.grant.addresses.clone(),
        serial: former.serial.clone(),
        not_after: former.not_after,
        again: true,
        logged: former.logged.clone(),
        log_proof: Vec::new(),
    };
    Some(Kept { issued, issuer: former.issuer.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use myelin_identity::svid::P256Spki;
    use rcgen::{KeyPair, PublicKeyData as _};

    const END: u64 = 1_800_000_000;

    fn hex(byte: u8) -> Hex {
        Hex(vec![byte; 4])
    }

    fn key() -> P256Spki {
        P256Spki::try_from(&KeyPair::generate().unwrap().subject_public_key_info()[..]).unwrap()
    }

    fn host(denied: bool) -> HostRecord {
        let grant = Grant {
            spiffe_id: "spiffe://prod.example/ns/shop/sa/web".to_owned(),
            addresses: vec![],
            ports: vec![],
            protocol: String::new(),
        };
        HostRecord {
            grant,
            lineage: hex(3),
            denied,
            barred_by: std::collections::BTreeSet::new(),
            attested_by: None,
            pod: None,
            next_due: 0,
            held: vec![],
        }
    }

    fn lineage(generation: u64, state: LineageState) -> LineageRecord {
        LineageRecord {
            host: hex(1),
            generation,
            serial: hex(9),
            not_after: END,
            request_key: hex(7),
            csr_key: hex(7),
            leaf_der: Blob(vec![]),
            issuer: hex(2),
            state,
            logged: None,
        }
    }

    fn former(vouched_lineage: u8, vouched_generation: u64, csr: &P256Spki) -> CompanionRecord {
        CompanionRecord {
            lineage: hex(4),
            generation: 2,
            vouched_lineage: hex(vouched_lineage),
            vouched_generation,
            serial: hex(8),
            not_after: END,
            request_key: hex(5),
            csr_key: Hex(csr.fingerprint().to_vec()),
            leaf_der: Blob(vec![]),
            issuer: hex(2),
            logged: None,
        }
    }

    #[test]
    fn each_generation_vouches_once_and_a_second_request_is_an_alarm() {
        use LineageState::{Denied, Live, Superseded};
        let (csr, other) = (key(), key());
        // The lineage stands at generation 6; the request claims one, with a request key.
        let decided = |claimed, request_key: u8, csr_key, state, former: &CompanionRecord| {
            let claim = Claimed::Companion { lineage: hex(3), generation: claimed, serial: hex(9) };
            let proven = Proven::assumed(claim, hex(1), csr_key, hex(request_key));
            let (host, lineage) = (host(false), lineage(6, state));
            let held =
                Held { serial: hex(9), lineage: hex(3), generation: claimed, not_after: END };
            let (host, lineage, held) = (Some(&host), Some(&lineage), Some(&held));
            decide(&proven, Known { host, lineage, held, former: Some(former), id_denied: false })
        };
        let of_another = Decision::Refuse(Reason::SvidOfAnotherLineage);
        let (before, now) = (former(3, 5, &csr), former(3, 6, &csr));
        assert_eq!(decided(6, 6, other, Live, &before), Decision::Issue);
        assert_eq!(decided(6, 6, other, Live, &former(2, 6, &csr)), Decision::Issue);
        assert_eq!(decided(6, 5, csr, Live, &now), Decision::Again);
        assert_eq!(decided(5, 5, csr, Live, &before), Decision::Again, "a late retry");
        let reused = Decision::Refuse(Reason::RequestKeyReused);
        assert_eq!(decided(6, 5, other, Live, &now), reused);
        assert_eq!(decided(6, 6, other, Live, &now), Decision::Alarm);
        assert_eq!(decided(5, 6, other, Live, &before), Decision::Alarm, "of an old generation");
        assert_eq!(decided(5, 6, other, Live, &now), of_another, "a renewal was faster");
        assert_eq!(decided(6, 6, other, Superseded, &before), of_another);
        let denied = Decision::Refuse(Reason::LineageDenied);
        assert_eq!(decided(6, 5, csr, Denied, &now), denied, "not even again");
    }

    #[test]
    fn whoever_does_not_prove_the_svid_gets_no_companion_and_raises_no_alarm() {
        let csr = key();
        let claim = Claimed::Companion { lineage: hex(3), generation: 6, serial: hex(9) };
        let proven = Proven::assumed(claim, hex(1), csr, hex(6));
        let (good, denied) = (host(false), host(true));
        let (live, theirs) = (
            lineage(6, LineageState::Live),
            LineageRecord { host: hex(2), ..lineage(6, LineageState::Live) },
        );
        let held = |lineage: u8, generation| Held {
            serial: hex(9),
            lineage: hex(lineage),
            generation,
            not_after: END,
        };
        let (right, old, companion) = (held(3, 6), held(3, 5), held(4, 6));
        let vouched = former(3, 6, &csr);
        for (host, lineage, held, expected) in [
            (None, Some(&live), Some(&right), Reason::HostUnknown),
            (Some(&denied), Some(&live), Some(&right), Reason::HostDenied),
            (Some(&good), None, Some(&right), Reason::LineageUnknown),
            (Some(&good), Some(&theirs), Some(&right), Reason::LineageUnknown),
            (Some(&good), Some(&live), None, Reason::SvidOfAnotherLineage),
            (Some(&good), Some(&live), Some(&old), Reason::SvidOfAnotherLineage),
            (Some(&good), Some(&live), Some(&companion), Reason::SvidOfAnotherLineage),
        ] {
            let known = Known { host, lineage, held, former: Some(&vouched), id_denied: false };
            assert_eq!(decide(&proven, known), Decision::Refuse(expected), "{expected:?}");
        }
        let (host, lineage, held) = (Some(&good), Some(&live), Some(&right));
        let known = Known { host, lineage, held, former: None, id_denied: true };
        assert_eq!(decide(&proven, known), Decision::Refuse(Reason::IdDenied));
    }
}
