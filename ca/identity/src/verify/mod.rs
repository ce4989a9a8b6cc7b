//! Who is at the other end: a certificate chain becomes a [`Peer`], or a [`Refusal`] with one word.
//! Called by the TLS rooms of sidecar and CA (through the rustls verifiers here) and at every later
//! use.
//! Never: a clock, revocation lists fetched from anywhere, a second try with weaker rules.

// SPDX-License-Identifier: Apache-2.0

mod ca;
mod endpoint;
mod expected;
mod first_contact;
mod handshake;
mod path;
mod refusal;
mod stranger;
mod tls;

#[cfg(test)]
mod tests;

pub use ca::CaVerifier;
pub use endpoint::EndpointVerifier;
pub use expected::Expected;
pub use first_contact::FirstContact;
pub use refusal::Refusal;
pub use stranger::Stranger;
pub use tls::{CallerVerifier, PeerVerifier};

use std::net::IpAddr;

use rustls_pki_types::{CertificateDer, UnixTime};

use crate::bundle::{DenyList, RootId, Serial, Trust, TrustBundle};
use crate::id::SpiffeId;
use crate::svid::{Leaf, MAX_CHAIN_CERTIFICATES, SvidError};

/// What the *peer* does in TLS: a `Client` needs clientAuth, a `Server` needs serverAuth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Client,
    Server,
}

/// An authenticated other end. Only [`peer`] and the verifiers of this room make one, so whoever
/// holds a `Peer` knows that its chain was good when it was made. Times are Unix seconds, both
/// included.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Peer {
    pub id: SpiffeId,
    pub ip_sans: Vec<IpAddr>,
    pub serial: Serial,
    pub not_before: u64,
    pub not_after: u64,
    /// The earliest end on the path: leaf, intermediates and root.
    pub path_not_after: u64,
    /// The root that the path ended in.
    pub root: RootId,
}

/// Verifies a chain as the peer presented it, leaf first. The order of the questions is: bounds,
/// path to a root (times, usages and path length with it), what the leaf says, trust domain. The
/// roots are those of the trust domain that the leaf's name is in, and no others; a name in a
/// domain that `trust` does not hold is refused, whatever its roots.
pub fn peer<'t>(
    chain: &[CertificateDer<'_>],
    trust: impl Into<Trust<'t>>,
    now: UnixTime,
    role: Role,
) -> Result<Peer, Refusal> {
    let Some((leaf, issuers)) = chain.split_first() else { return Err(Refusal::NoCertificate) };
    let trust = trust.into();
    let verdict = leaf_and_issuers(leaf, issuers, named_bundle(leaf, trust), now, role);
    verdict.map_err(|refusal| match refusal {
        // Whose roots they are is asked only now: a good chain is not read twice for it.
        Refusal::UntrustedRoot { .. } => unknown_domain(leaf, trust).unwrap_or(refusal),
        other => other,
    })
}

/// A chain under roots of a domain that we know nothing of has its own word.
fn unknown_domain(leaf: &CertificateDer<'_>, trust: Trust<'_>) -> Option<Refusal> {
    let said = Leaf::read(leaf).ok()?;
    match trust.of(said.id.trust_domain()) {
        Some(_) => None,
        None => Some(wrong_trust_domain(&said.id, trust.own())),
    }
}

/// A leaf that cannot be read names nobody: the path's questions come first, then it is refused.
fn named_bundle<'t>(leaf: &CertificateDer<'_>, trust: Trust<'t>) -> &'t TrustBundle {
    if !trust.is_federated() {
        return trust.own();
    }
    let said = Leaf::read(leaf).ok();
    said.and_then(|said| trust.of(said.id.trust_domain())).unwrap_or_else(|| trust.own())
}

impl Peer {
    /// The question of every later use: is this peer, whose handshake was good, still good at
    /// `now`?
    pub fn still_trusted<'t>(
        &self,
        trust: impl Into<Trust<'t>>,
        denied: &DenyList,
        now: UnixTime,
    ) -> Result<(), Refusal> {
        let (seconds, trust) = (now.as_secs(), trust.into());
        let Some(bundle) = trust.of(self.id.trust_domain()) else {
            return Err(wrong_trust_domain(&self.id, trust.own()));
        };
        if !bundle.holds_root(&self.root) {
            return Err(untrusted_root(bundle));
        }
        if seconds > self.path_not_after {
            return Err(Refusal::Expired {
                now: seconds,
                not_before: self.not_before,
                not_after: self.path_not_after,
            });
        }
        match denied.denied_until(&self.id, &self.serial, now) {
            Some(until) => Err(Refusal::Denied { until }),
            None => Ok(()),
        }
    }
}

impl DenyList {
    /// Whether this peer is denied at `now`, by its ID or by its certificate.
    pub fn denies(&self, peer: &Peer, now: UnixTime) -> bool {
        self.denied_until(&peer.id, &peer.serial, now).is_some()
    }
}

fn leaf_and_issuers(
    leaf: &CertificateDer<'_>,
    issuers: &[CertificateDer<'_>],
    bundle: &TrustBundle,
    now: UnixTime,
    role: Role,
) -> Result<Peer, Refusal> {
    // Bounds come first: nothing of a hostile chain is parsed before its size is known.
    if issuers.len() >= MAX_CHAIN_CERTIFICATES {
        return Err(Refusal::ChainTooLong { count: issuers.len() + 1 });
    }
    let path = path::verify(leaf, issuers, bundle, now, role)?;
    let said = Leaf::read(leaf).map_err(of_leaf)?;
    let suits = match role {
        Role::Client => said.client_auth,
        Role::Server => said.server_auth,
    };
    if !suits {
        return Err(Refusal::WrongUsage { why: usage_missing(role) });
    }
    if said.id.trust_domain() != bundle.trust_domain() {
        return Err(wrong_trust_domain(&said.id, bundle));
    }
    Ok(Peer {
        id: said.id,
        ip_sans: said.ip_sans,
        serial: said.serial,
        not_before: said.not_before,
        not_after: said.not_after,
        path_not_after: path.not_after.min(said.not_after),
        root: path.root,
    })
}

fn wrong_trust_domain(id: &SpiffeId, bundle: &TrustBundle) -> Refusal {
    Refusal::WrongTrustDomain { seen: id.clone(), expected: bundle.trust_domain().clone() }
}

fn untrusted_root(bundle: &TrustBundle) -> Refusal {
    let (trust_domain, generation) = (bundle.trust_domain().clone(), bundle.generation());
    Refusal::UntrustedRoot { trust_domain, generation }
}

fn usage_missing(role: Role) -> &'static str {
    match role {
        Role::Client => "its extended key usage lacks clientAuth",
        Role::Server => "its extended key usage lacks serverAuth",
    }
}

fn of_leaf(error: SvidError) -> Refusal {
    match error {
        SvidError::ChainLength { count } => Refusal::ChainTooLong { count },
        SvidError::Malformed(why) => Refusal::ChainMalformed { why: why.to_string() },
        SvidError::TooManySans { .. } => Refusal::ChainMalformed { why: error.to_string() },
        SvidError::NoUri => Refusal::NoSpiffeId,
        SvidError::ManyUris { count } => Refusal::ManyUris { count },
        SvidError::Id(why) => Refusal::MalformedId { why: why.to_string() },
        SvidError::IdNotText => Refusal::MalformedId { why: "it is no ASCII text".to_owned() },
        SvidError::Ca => Refusal::CaAsLeaf,
        SvidError::KeyUsage(_) => Refusal::WrongUsage { why: "its key usage is not a leaf's" },
        SvidError::NoExtendedKeyUsage => {
            Refusal::WrongUsage { why: "it has no extended key usage" }
        }
        SvidError::Key => Refusal::WrongKey,
    }
}
