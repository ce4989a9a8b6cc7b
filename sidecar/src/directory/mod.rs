//! Whom to expect at a destination: the mesh's ranges, its named exceptions, services and static
//! peers, together with what the CA's directory and the controller taught. Pure decisions over an immutable value.
//! Called by `outbound` (at accept and at every `open`) and by `inbound` (is this source meshed?);
//! built by `config`, held and swapped by `app`.
//!
//! Never: resolves a name, asks anybody, reads a clock, or answers `Plain` for an address inside
//! the mesh ranges that no named exception covers.

// SPDX-License-Identifier: Apache-2.0

mod learned;
mod services;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use myelin_identity::id::SpiffeId;
use myelin_identity::verify::Expected;
use tokio::time::Instant;

use crate::addr::{CidrSet, Endpoint, OrigDst, is_link_local};

pub use self::learned::{Answer, Known, Learned, MAX_LEARNED, Place};
pub use self::services::{Found, KnownService, MAX_PLACES, Running, Services, Spot, Told};

/// Mesh ranges in one configuration; they are searched from end to end for every connection.
pub const MAX_MESH_RANGES: usize = 64;
/// Exceptions, services and static peers, each: what one workload's dependencies may need by hand.
pub const MAX_STATIC: usize = 1_024;
/// Endpoints of one service, and identities that they may have.
pub const MAX_ENDPOINTS: usize = 256;
/// An ALPN identifier: RFC 7301 carries its length in one byte.
pub const MAX_ALPN_BYTES: usize = 255;

/// What the operator wrote, already parsed.
#[derive(Clone, Debug, Default)]
pub struct Config {
    pub mesh: CidrSet,
    pub exceptions: Vec<Exception>,
    pub services: Vec<Service>,
    pub peers: Vec<StaticPeer>,
}

/// An address inside the mesh ranges that is not meshed, by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exception {
    pub name: Arc<str>,
    /// Port `None` is every port.
    pub place: Place,
}

/// A virtual address that stands for endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: Arc<str>,
    pub address: SocketAddr,
    pub endpoints: Vec<SocketAddr>,
    /// Whoever answers must be one of these, wherever it is.
    pub ids: Vec<SpiffeId>,
    pub protocol: Protocol,
    /// Uses of one mesh connection, if fewer than usual.
    pub max_uses: Option<NonZeroU32>,
}

/// A peer that the CA's directory does not know, or not under this address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPeer {
    pub place: Place,
    pub id: SpiffeId,
    pub protocol: Protocol,
    /// The address is a translated one: it is not among the certificate's addresses.
    pub nat: bool,
    /// Uses of one mesh connection, if fewer than usual.
    pub max_uses: Option<NonZeroU32>,
}

/// What a peer speaks inside mutual TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Myelin1,
    PlainMtls { alpn: Option<Vec<u8>> },
}

impl Protocol {
    /// `myelin/1` (also the empty text, in the CA's directory), `mtls`, or `mtls:` and an ALPN.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "" | "myelin/1" => Some(Self::Myelin1),
            "mtls" => Some(Self::PlainMtls { alpn: None }),
            other => {
                let alpn = other.strip_prefix("mtls:")?.as_bytes();
                let fits = (1..=MAX_ALPN_BYTES).contains(&alpn.len());
                let printable = alpn.iter().all(u8::is_ascii_graphic);
                // Somebody who declares a foreign peer must not end up speaking the mesh's own.
                let foreign = alpn != b"myelin/1";
                (fits && printable && foreign)
                    .then(|| Self::PlainMtls { alpn: Some(alpn.to_vec()) })
            }
        }
    }
}

/// Whom to dial and whom to find there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    pub endpoint: Endpoint,
    pub expected: Expected,
    pub protocol: Protocol,
    /// Our own configuration names the protocol; else the CA's directory taught it.
    pub is_declared: bool,
    /// Uses of one mesh connection, if fewer than usual.
    pub max_uses: Option<NonZeroU32>,
}

/// What to do with a workload's connection.
#[derive(Clone, Debug)]
pub enum Route {
    Mesh(Target),
    /// One endpoint of a service that the controller told of.
    Service(Target, Arc<Spot>),
    /// A service that nobody of the mesh serves.
    Unserved {
        name: Arc<str>,
        /// Endpoints without an identity of the mesh.
        unmeshed: u32,
    },
    Plain(Plain),
    /// Nothing certain is known: ask the CA's directory, then route again; without an answer, do
    /// `otherwise`.
    Ask {
        otherwise: Otherwise,
    },
}

/// Why a connection may pass without TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plain {
    /// The exception's name.
    Exception(Arc<str>),
    OutsideMesh,
    /// A service led back to this very pod, which nothing leaves.
    OwnPod(Endpoint),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Otherwise {
    Refuse,
    Plain,
}

/// The sidecar's own address lies outside the mesh: whoever dials it would not expect mTLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnAddressError {
    #[error(
        "own address {address} lies outside mesh_cidrs ({mesh}): add its range to mesh_cidrs, or \
         name this workload's mesh addresses in `addresses`"
    )]
    Outside { address: IpAddr, mesh: String },
    #[error(
        "no own address was found besides loopback and link-local ones: give the network namespace \
         an address, or name this workload's addresses in `addresses`"
    )]
    None,
}

/// The immutable part; what the CA teaches comes along as `Learned`, what the controller says as
/// `Services`.
#[derive(Clone, Debug)]
pub struct Directory {
    config: Config,
    services: HashMap<SocketAddr, ServiceTargets>,
    peers: HashMap<Place, PeerTarget>,
    exceptions: HashMap<Place, Arc<str>>,
    /// Addresses of static peers and of services' endpoints.
    meshed: HashSet<IpAddr>,
}

#[derive(Clone, Debug)]
struct ServiceTargets {
    endpoints: Vec<Endpoint>,
    expected: Expected,
    protocol: Protocol,
    max_uses: Option<NonZeroU32>,
}

#[derive(Clone, Debug)]
struct PeerTarget {
    expected: Expected,
    protocol: Protocol,
    max_uses: Option<NonZeroU32>,
}

impl Directory {
    pub fn new(config: Config) -> Self {
        let services = config.services.iter().map(|service| {
            let targets = ServiceTargets {
                endpoints: service.endpoints.iter().copied().map(Endpoint::canonical).collect(),
                expected: Expected { ids: service.ids.clone(), address: None },
                protocol: service.protocol.clone(),
                max_uses: service.max_uses,
            };
            (Endpoint::canonical(service.address).0, targets)
        });
        let peers = config.peers.iter().map(|peer| {
            let (address, port) = canonical(peer.place);
            let in_certificate = (!peer.nat).then_some(address);
            let expected = Expected { ids: vec![peer.id.clone()], address: in_certificate };
            let (protocol, max_uses) = (peer.protocol.clone(), peer.max_uses);
            ((address, port), PeerTarget { expected, protocol, max_uses })
        });
        let exceptions =
            config.exceptions.iter().map(|it| (canonical(it.place), Arc::clone(&it.name)));
        let endpoints = config.services.iter().flat_map(|service| &service.endpoints);
        let meshed = endpoints
            .map(SocketAddr::ip)
            .chain(config.peers.iter().map(|peer| peer.place.0))
            .map(|address| address.to_canonical());
        Self {
            services: services.collect(),
            peers: peers.collect(),
            exceptions: exceptions.collect(),
            meshed: meshed.collect(),
            config,
        }
    }

    /// What to do with a connection to `dst`. `spin` chooses among a service's endpoints: callers
    /// count it up, so that connections go around. The clock is read for a learned service only.
    pub fn route(
        &self,
        dst: OrigDst,
        learned: &Learned,
        services: &Services,
        spin: u32,
        now: impl FnOnce() -> Instant,
    ) -> Route {
        let dst = OrigDst::canonical(dst.0);
        if is_link_local(dst.ip()) || dst.ip().is_loopback() {
            return Route::Plain(Plain::OutsideMesh);
        }
        if let Some(target) = self.service(dst, spin).or_else(|| self.static_peer(dst)) {
            return Route::Mesh(target);
        }
        if let Found::Service(service) = services.lookup(dst.0) {
            return match services.choose(service, spin, now()) {
                Some(spot) => Route::Service(spot.target(), Arc::clone(spot)),
                // Named by the operator, and nobody of the mesh is there who would be downgraded.
                None if let Some(name) = at(&self.exceptions, dst) => {
                    Route::Plain(Plain::Exception(Arc::clone(name)))
                }
                None => {
                    Route::Unserved { name: Arc::clone(&service.name), unmeshed: service.unmeshed }
                }
            };
        }
        let known = learned.lookup(dst.ip(), dst.port());
        if let Known::Meshed { expected, protocol } = known {
            return Route::Mesh(Target {
                endpoint: Endpoint(dst.0),
                expected: expected.clone(),
                protocol: protocol.clone(),
                is_declared: false,
                max_uses: None,
            });
        }
        // Only now: an exception never covers what is named as meshed, so that nobody can
        // downgrade a peer by taking over an exception's address.
        if let Some(name) = at(&self.exceptions, dst) {
            return Route::Plain(Plain::Exception(Arc::clone(name)));
        }
        match known {
            Known::Withdrawn => Route::Ask { otherwise: Otherwise::Refuse },
            _ if self.config.mesh.contains(dst.ip()) => Route::Ask { otherwise: Otherwise::Refuse },
            Known::NotMeshed => Route::Plain(Plain::OutsideMesh),
            Known::Nothing | Known::Meshed { .. } => Route::Ask { otherwise: Otherwise::Plain },
        }
    }

    /// Whether anybody of the mesh is known to live at this address: such a source must speak TLS,
    /// even to a permissive port.
    pub fn is_known_meshed(&self, address: IpAddr, learned: &Learned) -> bool {
        self.meshed.contains(&address.to_canonical()) || learned.is_meshed(address)
    }

    /// Whether configuration binds this identity to this address: an entry for a peer behind
    /// address translation binds it to whatever address it comes from.
    pub fn binds(&self, id: &SpiffeId, address: IpAddr) -> bool {
        let of_peer = |peer: &&StaticPeer| peer.id == *id;
        let mut entries = self.config.peers.iter().filter(of_peer);
        entries.any(|peer| peer.nat || peer.place.0 == address.to_canonical())
    }

    /// Refuses to start outside the mesh. Loopback and link-local addresses do not count.
    pub fn check_own(&self, own: &[IpAddr]) -> Result<(), OwnAddressError> {
        let mut counted = own
            .iter()
            .map(IpAddr::to_canonical)
            .filter(|address| !address.is_loopback() && !is_link_local(*address))
            .peekable();
        if counted.peek().is_none() {
            return Err(OwnAddressError::None);
        }
        match counted.find(|address| !self.config.mesh.contains(*address)) {
            Some(address) => Err(OwnAddressError::Outside { address, mesh: self.mesh_words() }),
            None => Ok(()),
        }
    }

    /// What it was built from, to be shown.
    pub fn config(&self) -> &Config {
        &self.config
    }

    fn service(&self, dst: OrigDst, spin: u32) -> Option<Target> {
        let service = self.services.get(&dst.0)?;
        let turn = (spin as usize).checked_rem(service.endpoints.len())?;
        Some(Target {
            endpoint: service.endpoints[turn],
            expected: service.expected.clone(),
            protocol: service.protocol.clone(),
            is_declared: true,
            max_uses: service.max_uses,
        })
    }

    fn static_peer(&self, dst: OrigDst) -> Option<Target> {
        let PeerTarget { expected, protocol, max_uses } = at(&self.peers, dst)?;
        Some(Target {
            endpoint: Endpoint(dst.0),
            expected: expected.clone(),
            protocol: protocol.clone(),
            is_declared: true,
            max_uses: *max_uses,
        })
    }

    fn mesh_words(&self) -> String {
        let ranges: Vec<String> =
            self.config.mesh.ranges().iter().map(ToString::to_string).collect();
        ranges.join(", ")
    }
}

/// The entry for exactly this port, else the one for every port.
fn at<T>(places: &HashMap<Place, T>, dst: OrigDst) -> Option<&T> {
    places.get(&(dst.ip(), Some(dst.port()))).or_else(|| places.get(&(dst.ip(), None)))
}

fn canonical((address, port): Place) -> Place {
    (address.to_canonical(), port)
}
