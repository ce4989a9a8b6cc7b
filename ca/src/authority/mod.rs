//! The issuing authority: the whole transaction from a proven caller to a certificate that is in
//! the journal, and what follows from it (who lives where, who is denied). `api` calls it for
//! callers, `app` ticks it.
//!
//! Never: sees a socket, holds a CA key (that is `signer`'s), or lets a certificate out before its
//! record is on disk.

// SPDX-License-Identifier: Apache-2.0

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use arc_swap::ArcSwap;
use myelin_identity::bundle::{ForeignBundles, TrustBundle};
use myelin_identity::id::TrustDomain;
use myelin_identity::verify::Peer;
use rustls_pki_types::CertificateDer;

use crate::attest::Attestors;
use crate::clock::{Clock, UnixSeconds};
use crate::datadir::FEDERATION_PIN;
use crate::federation::{FederationError, Roll};
use crate::journal::{Entry, Hex, Journal, JournalError, LineageRecord};
use crate::log::Logs;
use crate::replica::ReplicaId;
use crate::rotation::{Renewal, Rotation, RotationError};
use crate::signer::Vault;
use crate::template::Lifetimes;

use denied::Denied;
use registration::Registered;
use turns::Turns;

mod acks;
mod alarm;
mod companion;
mod decide;
mod denied;
mod entries;
mod follow;
mod issue;
mod issued;
mod ladder;
mod live;
mod lives;
mod logged;
mod neighbours;
mod own;
mod reason;
mod recall;
pub mod registration;
pub mod revocation;
mod seen;
mod statement;
mod sweep;
pub mod tokens;
mod turns;

pub use acks::Heard;
pub use denied::DeniedError;
pub use issued::Issued;
pub use ladder::{LadderShown, Moved, RootShown};
pub use live::Live;
pub use own::{Dress, OwnSvid};
pub use reason::{Blame, IssueError, Reason};
pub use statement::{HEARTBEAT, Statement};

/// What an authority is told at start.
#[derive(Clone, Debug)]
pub struct Settings {
    pub lifetimes: Lifetimes,
    /// Addresses and names under which sidecars reach this CA, for its own SVID.
    pub own_addresses: Vec<std::net::IpAddr>,
    pub own_names: Vec<String>,
    /// Namespaces whose service accounts need no registration entry.
    pub kubernetes_namespaces: Vec<String>,
    /// How old a root may become before it is replaced unattended; none: by hand only.
    pub rotate_root_every: Option<Duration>,
}

/// The issuing authority of one trust domain.
pub struct Authority {
    journal: Journal,
    rotation: Rotation,
    logs: Logs,
    live: Live,
    turns: Turns,
    denied: RwLock<Denied>,
    foreign: ArcSwap<ForeignBundles>,
    roll: Roll,
    registered: RwLock<Registered>,
    statements: tokio::sync::watch::Sender<Option<Arc<Statement>>>,
    settings: Settings,
    clock: Clock,
    /// The revision of the store up to which everything was read at start.
    recalled: u64,
    /// When the store last said that our deny list is the newest, in Unix seconds.
    confirmed: AtomicU64,
    acks: acks::Acks,
    /// Rung when the ladder has moved.
    trust_moved: tokio::sync::Notify,
    /// Who can be asked where a pod is.
    attestors: OnceLock<Arc<Attestors>>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Rotation(#[from] RotationError),
    #[error(transparent)]
    Issue(#[from] IssueError),
    #[error("the stored deny list cannot be used: {0}")]
    Denied(#[from] DeniedError),
    #[error(transparent)]
    Federation(#[from] FederationError),
    #[error("a revocation cannot be carried out: {0}")]
    Revocation(#[from] revocation::RevokeError),
    #[error(
        "address {address} claims serial {serial}, which the journal never issued; the store is damaged: restore a backup"
    )]
    Disagreement { address: String, serial: String },
}

impl Authority {
    /// Reads the state of the journal and sees that it agrees with itself.
    pub async fn start(
        journal: Journal,
        rotation: Rotation,
        logs: Logs,
        settings: Settings,
        clock: Clock,
    ) -> Result<Self, AuthorityError> {
        let read_at = clock.seconds();
        let denied = Denied::read(&journal, read_at).await?;
        let longest = settings.lifetimes.longest.as_secs();
        lives::state_lives(&journal, rotation.replica(), longest, read_at).await?;
        let domain = rotation.bundle().trust_domain().clone();
        let (seal_key, pin) =
            (rotation.vault().seal_key().clone(), rotation.beside_pin(FEDERATION_PIN));
        let roll = Roll::open(journal.clone(), domain, seal_key, pin)?;
        let mut authority = Self {
            journal,
            rotation,
            logs,
            live: Live::default(),
            turns: Turns::default(),
            denied: RwLock::new(denied),
            foreign: ArcSwap::default(),
            roll,
            registered: RwLock::default(),
            statements: tokio::sync::watch::Sender::new(None),
            settings,
            clock,
            recalled: 0,
            confirmed: AtomicU64::new(read_at),
            acks: acks::Acks::default(),
            trust_moved: tokio::sync::Notify::new(),
            attestors: OnceLock::new(),
        };
        authority.recalled = authority.recall().await?;
        authority.say().await?;
        Ok(authority)
    }

    /// From now on it is asked where those pods are that stand in another's way. Said once.
    pub fn asks(&self, attestors: Arc<Attestors>) {
        let _ = self.attestors.set(attestors);
    }

    pub fn trust_domain(&self) -> TrustDomain {
        self.rotation.bundle().trust_domain().clone()
    }

    pub fn bundle(&self) -> Arc<TrustBundle> {
        self.rotation.bundle()
    }

    pub fn live(&self) -> &Live {
        &self.live
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// What makes and opens the CA's keys.
    pub fn vault(&self) -> &Vault {
        self.rotation.vault()
    }

    pub fn replica(&self) -> &ReplicaId {
        self.rotation.replica()
    }

    /// The logs of what this CA issued.
    pub fn logs(&self) -> &Logs {
        &self.logs
    }

    /// The foreign domains that this CA believes to federate with.
    pub fn roll(&self) -> &Roll {
        &self.roll
    }

    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// End of the issuing intermediate, in Unix seconds.
    pub fn signer_not_after(&self) -> UnixSeconds {
        self.rotation.signer().validity().not_after
    }

    /// Whether a peer whose handshake was good is still good.
    pub fn judge(&self, peer: &Peer) -> Result<(), IssueError> {
        peer.still_trusted(&self.bundle(), &self.deny_list(), self.clock.now())
            .map_err(IssueError::Untrusted)
    }

    /// Renews the issuing intermediate when it is due; says what came of it.
    pub async fn tick_rotation(&self) -> Result<Renewal, RotationError> {
        self.rotation.tick(self.clock.seconds()).await
    }

    /// Longest that the default asks for; the yardstick of rates.
    fn default_life(&self) -> u64 {
        self.settings.lifetimes.default.min(crate::template::MAX_LIFETIME).as_secs()
    }

    async fn lineage(&self, id: &Hex) -> Result<Option<Entry<LineageRecord>>, JournalError> {
        self.journal.read(&id.to_string()).await
    }
}

/// The chain as callers get it: leaf, then its issuer.
fn chain(leaf_der: &[u8], issuer_der: &[u8]) -> Vec<CertificateDer<'static>> {
    vec![CertificateDer::from(leaf_der.to_vec()), CertificateDer::from(issuer_der.to_vec())]
}

/// How long an entry stays in the journal after the certificate or token ended.
const KEPT_AFTER_END: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests;
