//! The closed label sets, and the one label that outsiders influence (the peer) with its cap.
//! Called by `metrics` and, through its re-exports, by every room that counts.
//!
//! Never: lets a new peer create a metric series beyond the caps.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use myelin_identity::id::SpiffeId;

/// Distinct peers that get a label value of their own; the rest share `other`. A workload seldom
/// has more than a few hundred dependencies, and 512 keeps one scrape well under a megabyte.
pub const MAX_PEER_LABELS: usize = 512;

/// Distinct series of closed connections that may carry a peer of their own; beyond it a close is
/// counted under `other`. 512 peers with eight combinations of direction, outcome and security.
pub const MAX_PEER_SERIES: usize = 4_096;

const OTHER: &str = "other";
const NONE: &str = "none";

/// What is asked for on the workload API's socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WorkloadCall {
    X509Svid,
    X509Bundles,
    Jwt,
    Sds,
}

impl WorkloadCall {
    pub fn word(self) -> &'static str {
        match self {
            Self::X509Svid => "x509_svid",
            Self::X509Bundles => "x509_bundles",
            Self::Jwt => "jwt",
            Self::Sds => "sds",
        }
    }
}

/// Direction as the workload sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    pub const ALL: [Self; 2] = [Self::Inbound, Self::Outbound];

    pub fn word(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// What protected a connection, or why nothing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Security {
    /// Mutual TLS with `myelin/1` inside.
    Mesh,
    /// Mutual TLS with a declared peer that does not speak `myelin/1`.
    PlainMtls,
    /// Plaintext that a permissive port took in.
    Permissive,
    /// Plaintext to a named exception.
    Exception,
    /// Plaintext to an address outside the mesh.
    OutsideMesh,
    /// A service led back to this very pod, which nothing leaves.
    OwnPod,
    /// The connection ended before this was decided.
    Unknown,
}

impl Security {
    pub const ALL: [Self; 7] = [
        Self::Mesh,
        Self::PlainMtls,
        Self::Permissive,
        Self::Exception,
        Self::OutsideMesh,
        Self::OwnPod,
        Self::Unknown,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Mesh => "mesh",
            Self::PlainMtls => "plain_mtls",
            Self::Permissive => "permissive",
            Self::Exception => "exception",
            Self::OutsideMesh => "outside_mesh",
            Self::OwnPod => "own_pod",
            Self::Unknown => "unknown",
        }
    }
}

/// What policy answered a peer, or the directory the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Policy admits the peer.
    Allowed,
    /// It does not.
    Denied,
    /// The destination is in the mesh.
    Mesh,
    /// It is a named exception.
    Exception,
    OutsideMesh,
    /// A service led back to this very pod.
    OwnPod,
    /// Inside the mesh ranges, and nobody known lives there.
    Unbound,
    /// Inside the mesh ranges, and the CA could not be asked who lives there.
    Unavailable,
}

impl Verdict {
    pub const ALL: [Self; 8] = [
        Self::Allowed,
        Self::Denied,
        Self::Mesh,
        Self::Exception,
        Self::OutsideMesh,
        Self::OwnPod,
        Self::Unbound,
        Self::Unavailable,
    ];

    /// Policy judges who comes in, the directory where the workload goes.
    pub fn direction(self) -> Direction {
        match self {
            Self::Allowed | Self::Denied => Direction::Inbound,
            _ => Direction::Outbound,
        }
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Denied => "denied",
            Self::Mesh => "mesh",
            Self::Exception => "exception",
            Self::OutsideMesh => "outside_mesh",
            Self::OwnPod => "own_pod",
            Self::Unbound => "unbound",
            Self::Unavailable => "unavailable",
        }
    }
}

/// What became of a bundle (our own or a foreign one) or a deny list that the CA sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TrustUpdate {
    BundleTaken,
    BundleRejected,
    ForeignTaken,
    ForeignRejected,
    DenyListTaken,
    DenyListRejected,
    /// A bundle that would make the logs of a root optional: an alarm.
    DutyTakenBack,
}

impl TrustUpdate {
    pub const ALL: [Self; 7] = [
        Self::BundleTaken,
        Self::BundleRejected,
        Self::ForeignTaken,
        Self::ForeignRejected,
        Self::DenyListTaken,
        Self::DenyListRejected,
        Self::DutyTakenBack,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::BundleTaken => "bundle_taken",
            Self::BundleRejected => "bundle_rejected",
            Self::ForeignTaken => "foreign_taken",
            Self::ForeignRejected => "foreign_rejected",
            Self::DenyListTaken => "deny_list_taken",
            Self::DenyListRejected => "deny_list_rejected",
            Self::DutyTakenBack => "duty_taken_back",
        }
    }
}

/// Where the mesh connection of an outbound use came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MeshUse {
    /// It has carried uses before.
    Recycled,
    /// It was made ahead of its first use.
    Ready,
    /// It was made for this use, which waited for its handshake.
    New,
}

impl MeshUse {
    pub const ALL: [Self; 3] = [Self::Recycled, Self::Ready, Self::New];

    pub fn word(self) -> &'static str {
        match self {
            Self::Recycled => "recycled",
            Self::Ready => "ready",
            Self::New => "new",
        }
    }
}

/// Why a mesh connection in good order carries no further use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Retired {
    /// It has carried as many uses as it may.
    Uses,
    /// It has carried as many bytes as it may.
    Bytes,
    Age,
    /// Nobody used it.
    Idle,
    /// Our own credentials are not those of its handshake.
    Generation,
    /// Its peer has expired, is denied, or its root is not trusted any more.
    Trust,
    /// The peer retired or ended it.
    Peer,
    /// We are leaving.
    Drain,
    /// As many as are kept are kept already.
    Surplus,
}

impl Retired {
    pub const ALL: [Self; 9] = [
        Self::Uses,
        Self::Bytes,
        Self::Age,
        Self::Idle,
        Self::Generation,
        Self::Trust,
        Self::Peer,
        Self::Drain,
        Self::Surplus,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Uses => "uses",
            Self::Bytes => "bytes",
            Self::Age => "age",
            Self::Idle => "idle",
            Self::Generation => "generation",
            Self::Trust => "trust",
            Self::Peer => "peer",
            Self::Drain => "drain",
            Self::Surplus => "surplus",
        }
    }
}

/// A peer as a label value: its SPIFFE ID, `other` beyond the cap, `none` without a peer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PeerLabel(Arc<str>);

impl PeerLabel {
    pub(super) const NONE: &str = NONE;

    /// For connections that end without an authenticated peer.
    pub fn none() -> Self {
        Self(Arc::from(NONE))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

type ClosedSeries = (Direction, &'static str, Security, Arc<str>);

/// Who has a label of their own, and which series of theirs exist.
#[derive(Default)]
pub(super) struct Peers(Mutex<Seen>);

#[derive(Default)]
struct Seen {
    labels: HashSet<Arc<str>>,
    series: HashSet<ClosedSeries>,
}

impl Peers {
    pub(super) fn label(&self, peer: &SpiffeId) -> PeerLabel {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = seen.labels.get(peer.as_str()) {
            return PeerLabel(Arc::clone(known));
        }
        if seen.labels.len() >= MAX_PEER_LABELS {
            return PeerLabel(Arc::from(OTHER));
        }
        let label: Arc<str> = Arc::from(peer.as_str());
        seen.labels.insert(Arc::clone(&label));
        PeerLabel(label)
    }

    /// The label that a closed connection is counted under: the peer's own while its series
    /// exists or may still be made.
    pub(super) fn admit<'a>(
        &self,
        direction: Direction,
        outcome: &'static str,
        security: Security,
        peer: &'a PeerLabel,
    ) -> &'a str {
        if matches!(peer.as_str(), OTHER | NONE) {
            return peer.as_str();
        }
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let series = (direction, outcome, security, Arc::clone(&peer.0));
        if seen.series.contains(&series) {
            return peer.as_str();
        }
        if seen.series.len() >= MAX_PEER_SERIES {
            return OTHER;
        }
        seen.series.insert(series);
        peer.as_str()
    }
}
