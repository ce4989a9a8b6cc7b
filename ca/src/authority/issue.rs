//! One issue, from proof to certificate: read what the journal knows, decide, sign, check, log, write
//! down, hand out. If the journal changed in between, the whole is done again from the start.
//!
//! Never: hands out what is not yet committed, or keeps a lock: two callers meet in the
//! compare-and-swap.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::net::IpAddr;

use super::decide::{Decision, address_is_free, decide, within_rate};
use super::entries::{held_with, write_certificate, write_outside, write_token};
use super::issued::Issued;
use super::neighbours::Departed;
use super::registration::{Choice, choose};
use super::seen::{Outside, Seen};
use super::{Authority, IssueError, Reason, chain};
use crate::attest::{Caller, Claimed, Proven};
use crate::check;
use crate::clock::UnixSeconds;
use crate::journal::{
    AddressRecord, Batch, BoundRecord, Claim, Entry, Grant, Hex, HostRecord, JournalError,
    TokenRecord,
};
use crate::random;
use crate::rotation::Signing;
use crate::signer::Signer;
use crate::store::Commit;
use crate::template::{Leaf, Serial};

/// Attempts until a caller is told to come again. Each conflict means that another issue on the
/// same token, host or address succeeded, so only a storm on one of them uses these up.
pub(super) const MAX_ATTEMPTS: usize = 8;

/// Addresses that are the caller's to have.
pub(super) struct Free {
    /// With their records, as they were.
    pub(super) addresses: Vec<(IpAddr, Option<Entry<AddressRecord>>)>,
    /// Whose claims on them count no more.
    pub(super) departed: Departed,
}

impl Authority {
    /// Issues one certificate to a caller that `attest` has proven.
    pub async fn issue(&self, caller: &Caller, proven: &Proven) -> Result<Issued, IssueError> {
        let _turn = self.turns.take(proven.host()).await.map_err(IssueError::Refused)?;
        if let (Claimed::Renewal { .. }, Some(peer)) = (proven.claimed(), &caller.peer) {
            // The handshake is over for a while: the SVID may have expired or been denied since.
            self.judge(peer)?;
        }
        if let Claimed::Companion { .. } = proven.claimed() {
            return self.issue_companion(caller, proven).await;
        }
        for _ in 0..MAX_ATTEMPTS {
            let now = self.clock.seconds();
            let seen = self.look_up(caller, proven).await?;
            let done = match decide(proven, seen.known(proven, now), now) {
                Decision::Refuse(reason) => return Err(IssueError::Refused(reason)),
                Decision::Again => Some(self.whole_again(seen.again(proven)?).await?),
                Decision::Alarm => match self.alarm(proven, &seen, now).await? {
                    Commit::Committed { .. } => return Err(IssueError::Refused(Reason::Alarm)),
                    Commit::Conflict => None,
                },
                Decision::Begin { grant } => {
                    let lineage =
                        Hex(random::name(now).map_err(|_| IssueError::NoRandomness)?.to_vec());
                    self.attempt(proven, &seen, grant, lineage, 1, now).await?
                }
                Decision::Advance { grant, generation } => {
                    let lineage = proven
                        .claimed()
                        .lineage()
                        .cloned()
                        .ok_or(IssueError::Refused(Reason::LineageUnknown))?;
                    self.attempt(proven, &seen, grant, lineage, generation, now).await?
                }
            };
            if let Some(issued) = done {
                return Ok(issued);
            }
            // Whatever else has changed is read anew; what is denied is held in memory.
            self.hear_denials().await.map_err(IssueError::unheard)?;
        }
        Err(IssueError::Refused(Reason::Contended))
    }

    pub(super) async fn look_up(
        &self,
        caller: &Caller,
        proven: &Proven,
    ) -> Result<Seen, IssueError> {
        let journal = &self.journal;
        let name = proven.host().to_string();
        let (token, host) = match proven.claimed() {
            Claimed::Token { secret_hash } => {
                journal.read_both(&secret_hash.to_string(), &name).await?
            }
            _ => (None, journal.read(&name).await?),
        };
        let denied = self.denied();
        let outside = self.outside(caller, proven).await?;
        let mut seen = Seen { token, host, lineage: None, outside, denied };
        let lineage = match proven.claimed() {
            Claimed::Token { .. } => seen
                .token
                .as_ref()
                .and_then(|token: &Entry<TokenRecord>| token.record.used.as_ref())
                .map(|used| used.lineage.clone()),
            Claimed::HostAlone => seen.host.as_ref().map(|host| host.record.lineage.clone()),
            Claimed::Renewal { lineage, .. } | Claimed::Companion { lineage, .. } => {
                Some(lineage.clone())
            }
        };
        if let Some(id) = lineage {
            seen.lineage = self.lineage(&id).await?;
        }
        Ok(seen)
    }

    /// What the entries grant to this evidence.
    async fn outside(
        &self,
        caller: &Caller,
        proven: &Proven,
    ) -> Result<Option<Outside>, IssueError> {
        let Some(attested) = proven.attested() else { return Ok(None) };
        let registered = self.registered().await?;
        let bundle = self.bundle();
        let choice = Choice {
            trust_domain: bundle.trust_domain(),
            namespaces: &self.settings.kubernetes_namespaces,
            remote: caller.remote.0.ip(),
        };
        let granted = choose(&registered, attested, &choice);
        let bound = match &attested.bound_to {
            Some(to) => self.journal.read::<BoundRecord>(&to.name.to_string()).await?,
            None => None,
        };
        let other = bound.as_ref().map(|bound| &bound.record.host);
        let bearer = match other.filter(|host| *host != proven.host()) {
            Some(host) => self.journal.read::<HostRecord>(&host.to_string()).await?,
            None => None,
        };
        Ok(Some(Outside { registered, granted, bound, bearer }))
    }

    /// Signs and commits one certificate. `None`: the journal changed meanwhile, nothing was
    /// written.
    async fn attempt(
        &self,
        proven: &Proven,
        seen: &Seen,
        grant: Grant,
        lineage: Hex,
        generation: u64,
        now: UnixSeconds,
    ) -> Result<Option<Issued>, IssueError> {
        let host = seen.host.as_ref();
        let next_due = within_rate(host.map(|entry| &entry.record), self.default_life(), now)
            .map_err(IssueError::Refused)?;
        let free = match self.free_addresses(proven, seen, &grant, now).await {
            // Taken by whoever used this very token since we looked: that is the reason to give.
            Err(IssueError::Refused(Reason::AddressTaken))
                if self.token_has_changed(proven, seen).await? =>
            {
                return Ok(None);
            }
            found => found?,
        };
        let Some(signing) = self.signing(now).await? else { return Ok(None) };
        let signer = signing.signer();
        let leaf = self.leaf(proven, &grant, signer, now)?;
        let certificate = signer.sign_leaf(&leaf)?;
        check::leaf(&certificate, &leaf, signer.subject())?;
        let logged = self.log(&certificate, signer.certificate()).await?;

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
        self.write_lineage(&mut batch, proven, seen, &issued).await?;
        let record = HostRecord {
            grant: grant.clone(),
            lineage: issued.lineage.clone(),
            denied: false,
            barred_by: BTreeSet::new(),
            attested_by: proven.attested().map(|attested| attested.attestor.to_owned()),
            next_due,
            pod: proven.attested().and_then(|attested| attested.pod.clone()),
            held: held_with(host, &issued, now),
        };
        batch.put(&proven.host().to_string(), host, &record);
        write_outside(&mut batch, proven, seen, &issued);
        write_token(&mut batch, proven, seen, &issued, now);
        let claimed =
            self.write_claims(&mut batch, proven, seen, &grant, &free, &issued, now).await?;
        signing.bind(&mut batch);
        let Some(revision) = self.commit_bound(batch).await? else { return Ok(None) };
        free.departed.tell(&free.addresses);
        for (address, record) in &claimed {
            self.live.publish(*address, record, revision);
        }
        Ok(Some(issued))
    }

    /// The signer for one certificate. `None`: it has just begun to hang under the active root.
    pub(super) async fn signing(&self, now: UnixSeconds) -> Result<Option<Signing>, IssueError> {
        if let Some(signing) = self.rotation.signing() {
            return Ok(Some(signing));
        }
        match self.rotation.tick(now).await {
            // Now, or because somebody else was quicker.
            Ok(_) if self.rotation.signing().is_some() => Ok(None),
            Ok(_) => Err(IssueError::Refused(Reason::IssuerLagging)),
            Err(error) => {
                tracing::error!(%error, "no intermediate under the active root yet");
                Err(IssueError::Refused(Reason::IssuerLagging))
            }
        }
    }

    /// Commits what a [`Signing`] is bound to: the reply carries the present bundle, so no
    /// certificate leaves with an older one, or under a root that issues no longer. `None`:
    /// something has changed.
    pub(super) async fn commit_bound(&self, batch: Batch) -> Result<Option<u64>, IssueError> {
        match self.journal.commit(batch).await? {
            Commit::Committed { revision } => Ok(Some(revision)),
            Commit::Conflict => {
                if let Err(error) = self.refresh_trust().await {
                    tracing::warn!(%error, "cannot look at the trust record");
                }
                Ok(None)
            }
        }
    }

    pub(super) fn leaf(
        &self,
        proven: &Proven,
        grant: &Grant,
        signer: &Signer,
        now: UnixSeconds,
    ) -> Result<Leaf, IssueError> {
        Ok(Leaf {
            spiffe_id: grant.spiffe_id.clone(),
            addresses: grant.addresses.clone(),
            names: Vec::new(),
            serial: Serial::from_random(random::name(now).map_err(|_| IssueError::NoRandomness)?),
            validity: self.settings.lifetimes.validity(
                proven.lifetime(),
                now,
                signer.validity(),
            )?,
            public_key: proven.csr_key().as_bytes().to_vec(),
        })
    }

    async fn token_has_changed(&self, proven: &Proven, seen: &Seen) -> Result<bool, IssueError> {
        let Claimed::Token { secret_hash } = proven.claimed() else { return Ok(false) };
        let token = self.journal.read::<TokenRecord>(&secret_hash.to_string()).await?;
        let used = |token: &Entry<TokenRecord>| token.record.used.is_some();
        Ok(token.as_ref().map(used) != seen.token.as_ref().map(used))
    }

    /// The granted addresses, once none of them is somebody else's.
    async fn free_addresses(
        &self,
        proven: &Proven,
        seen: &Seen,
        grant: &Grant,
        now: UnixSeconds,
    ) -> Result<Free, IssueError> {
        let entries = self.claims_at(&grant.addresses).await?;
        let addresses: Vec<_> = grant.addresses.iter().copied().zip(entries).collect();
        let mut departed = Departed::default();
        for (address, entry) in &addresses {
            let Some(entry) = entry else { continue };
            let judged = |departed: &Departed| {
                let void = |claim: &Claim| {
                    seen.denied.holds(claim, now) || departed.holds(claim, *address)
                };
                address_is_free(&entry.record, proven, grant, void, now)
            };
            let mut verdict = judged(&departed);
            if verdict == Err(Reason::AddressTaken) {
                let taken = (*address, &entry.record);
                self.ask_about(proven, taken, &mut departed, now).await?;
                verdict = judged(&departed);
            }
            verdict.map_err(IssueError::Refused)?;
        }
        Ok(Free { addresses, departed })
    }

    /// The records of these addresses, at one instant.
    pub(super) async fn claims_at(
        &self,
        addresses: &[IpAddr],
    ) -> Result<Vec<Option<Entry<AddressRecord>>>, JournalError> {
        let names: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        self.journal.read_many(&names).await
    }
}
