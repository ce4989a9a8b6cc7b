//! What sidecar and controller say to each other about services: the wire messages (generated from
//! `proto/services.proto`) and the domain types that they become with every bound checked. Called by
//! the sidecar's `services` and by the controller's.
//! Never: decisions. Which endpoint is dialled is the sidecar's business, what is behind a service
//! the controller's.

// SPDX-License-Identifier: Apache-2.0

#[cfg(test)]
mod tests;
mod view;

pub use view::{EndpointView, MAX_ENDPOINTS_TOLD, ServiceView};

pub use crate::wire::Version as ServiceVersion;

use std::net::SocketAddr;

use prost::Message as _;
use prost::bytes::Bytes;

use crate::id::IdError;
use crate::wire::{NoVersion, read_address, write_address};

/// Messages of package `myelin.services.v1`. Both sides map their stubs onto these with `extern_path`.
#[allow(clippy::all, clippy::use_self, clippy::or_fun_call, unreachable_pub, missing_docs)]
pub mod proto {
    include!(concat!(env!("OUT_DIR"), "/myelin.services.v1.rs"));
}

/// Addresses and ports that one stream may ask about: what a sidecar remembers, and what is on its way
/// meanwhile.
pub const MAX_ASKED: usize = 5_120;

/// A zone's name is a label's value in Kubernetes.
pub const MAX_ZONE_BYTES: usize = 63;

/// A caller asks about an address and port that its workload dials, or forgets them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceQuestion {
    pub place: SocketAddr,
    pub forget: bool,
    /// What the caller holds already.
    pub known: Option<ServiceVersion>,
}

/// What the controller says of one address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAnswer {
    pub place: SocketAddr,
    pub said: Said,
    /// Where the caller is.
    pub zone: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Said {
    NotAService,
    /// What the caller knows is still so.
    Unchanged(ServiceVersion),
    Service(ServiceVersion, ServiceView),
}

/// Why a message of the other side is refused. The other side is to blame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServicesError {
    #[error("an address has {bytes} bytes; expected 4 or 16")]
    Address { bytes: usize },
    #[error("{seen} is no port")]
    Port { seen: u32 },
    #[error(transparent)]
    Version(#[from] NoVersion),
    #[error("the service cannot be read: {why}")]
    Malformed { why: String },
    #[error("the service is not the one that its version names")]
    OtherVersion,
    #[error("a SPIFFE ID of the service cannot be read: {0}")]
    Id(#[from] IdError),
    #[error("the service has {seen} endpoints, more than {MAX_ENDPOINTS_TOLD}")]
    TooMany { seen: usize },
    #[error("a zone's name is longer than {MAX_ZONE_BYTES} bytes")]
    Zone,
}

/// One service as it goes to everybody who asks: encoded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EncodedService {
    version: ServiceVersion,
    bytes: Bytes,
}

impl EncodedService {
    pub fn new(view: &ServiceView) -> Self {
        let bytes = Bytes::from(view.to_proto().encode_to_vec());
        Self { version: ServiceVersion::of(&bytes), bytes }
    }

    pub fn version(&self) -> ServiceVersion {
        self.version
    }

    /// The answer for whoever holds `known`.
    pub fn answer(
        &self,
        place: SocketAddr,
        known: Option<ServiceVersion>,
        zone: &str,
    ) -> proto::ServiceAnswer {
        let is_known = known == Some(self.version);
        proto::ServiceAnswer {
            version: self.version.to_vec(),
            service: if is_known { Bytes::new() } else { self.bytes.clone() },
            ..no_service(place, zone)
        }
    }
}

/// The answer about an address and port that are no service's.
pub fn no_service(place: SocketAddr, zone: &str) -> proto::ServiceAnswer {
    proto::ServiceAnswer {
        address: write_address(place.ip().to_canonical()),
        port: place.port().into(),
        version: Vec::new(),
        service: Bytes::new(),
        zone: zone.to_owned(),
    }
}

impl TryFrom<proto::ServiceQuestion> for ServiceQuestion {
    type Error = ServicesError;

    fn try_from(wire: proto::ServiceQuestion) -> Result<Self, ServicesError> {
        let proto::ServiceQuestion { address, port, forget, known } = wire;
        let known = ServiceVersion::read(&known)?;
        Ok(Self { place: read_place(&address, port)?, forget, known })
    }
}

impl From<ServiceQuestion> for proto::ServiceQuestion {
    fn from(question: ServiceQuestion) -> Self {
        Self {
            address: write_address(question.place.ip().to_canonical()),
            port: question.place.port().into(),
            forget: question.forget,
            known: question.known.map(ServiceVersion::to_vec).unwrap_or_default(),
        }
    }
}

impl TryFrom<proto::ServiceAnswer> for ServiceAnswer {
    type Error = ServicesError;

    fn try_from(wire: proto::ServiceAnswer) -> Result<Self, ServicesError> {
        let proto::ServiceAnswer { address, port, version, service, zone } = wire;
        if zone.len() > MAX_ZONE_BYTES {
            return Err(ServicesError::Zone);
        }
        let said = match ServiceVersion::read(&version)? {
            None => Said::NotAService,
            Some(version) if service.is_empty() => Said::Unchanged(version),
            Some(version) if version != ServiceVersion::of(&service) => {
                return Err(ServicesError::OtherVersion);
            }
            Some(version) => Said::Service(version, ServiceView::read(service)?),
        };
        let zone = (!zone.is_empty()).then_some(zone);
        Ok(Self { place: read_place(&address, port)?, said, zone })
    }
}

/// IPv4-mapped IPv6 addresses become IPv4: one spelling of each address.
fn read_place(bytes: &[u8], port: u32) -> Result<SocketAddr, ServicesError> {
    let address = read_address(bytes).ok_or(ServicesError::Address { bytes: bytes.len() })?;
    match u16::try_from(port) {
        Ok(port) if port != 0 => Ok(SocketAddr::new(address.to_canonical(), port)),
        _ => Err(ServicesError::Port { seen: port }),
    }
}
