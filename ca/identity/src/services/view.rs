//! One service as the controller sees it: its endpoints, whom to find at each, and in which zone.
//! Called by the room's messages; made by the controller, read by the sidecar.
//! Never: an endpoint without an identity.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;
use std::sync::Arc;

use prost::Message as _;
use prost::bytes::Bytes;

use super::{MAX_ZONE_BYTES, ServicesError, proto, read_place};
use crate::id::SpiffeId;
use crate::wire::write_address;

/// Endpoints of one service that a sidecar is told: a client of a larger one balances over as many.
pub const MAX_ENDPOINTS_TOLD: usize = 1_024;

/// A service; its endpoints in a fixed order, so that equal ones are encoded equally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceView {
    /// Namespace and name, with a slash between.
    pub name: String,
    pub endpoints: Vec<EndpointView>,
    /// Endpoints without an identity of the mesh, which nobody is told.
    pub unmeshed: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct EndpointView {
    pub address: SocketAddr,
    /// Whom to find there.
    pub id: SpiffeId,
    pub zone: Option<Arc<str>>,
    /// It still serves, and is about to go.
    pub terminating: bool,
}

impl ServiceView {
    pub(super) fn to_proto(&self) -> proto::Service {
        let (mut ids, mut zones) = (Vec::new(), Vec::new());
        let endpoints = self.endpoints.iter().map(|endpoint| proto::ServiceEndpoint {
            address: write_address(endpoint.address.ip().to_canonical()),
            port: endpoint.address.port().into(),
            id: index(&mut ids, endpoint.id.as_str()),
            zone: endpoint.zone.as_deref().map_or(0, |zone| index(&mut zones, zone) + 1),
            terminating: endpoint.terminating,
        });
        let endpoints = endpoints.collect();
        let (name, unmeshed) = (self.name.clone(), self.unmeshed);
        proto::Service { name, spiffe_ids: ids, zones, endpoints, unmeshed }
    }

    pub(super) fn read(encoded: Bytes) -> Result<Self, ServicesError> {
        let malformed = |why: &str| ServicesError::Malformed { why: why.to_owned() };
        let wire =
            proto::Service::decode(encoded).map_err(|error| malformed(&error.to_string()))?;
        let seen = wire.endpoints.len();
        if seen.max(wire.spiffe_ids.len()).max(wire.zones.len()) > MAX_ENDPOINTS_TOLD {
            return Err(ServicesError::TooMany { seen });
        }
        if wire.zones.iter().any(|zone| zone.len() > MAX_ZONE_BYTES) {
            return Err(ServicesError::Zone);
        }
        let ids: Vec<SpiffeId> =
            wire.spiffe_ids.iter().map(|id| SpiffeId::parse(id)).collect::<Result<_, _>>()?;
        let zones: Vec<Arc<str>> = wire.zones.iter().map(|zone| zone.as_str().into()).collect();
        let endpoint = |it: proto::ServiceEndpoint| -> Result<EndpointView, ServicesError> {
            let id = ids.get(it.id as usize).ok_or_else(|| malformed("an ID is not there"))?;
            let zone = match (it.zone as usize).checked_sub(1) {
                None => None,
                Some(at) => Some(zones.get(at).ok_or_else(|| malformed("a zone is not there"))?),
            };
            Ok(EndpointView {
                address: read_place(&it.address, it.port)?,
                id: id.clone(),
                zone: zone.cloned(),
                terminating: it.terminating,
            })
        };
        Ok(Self {
            endpoints: wire.endpoints.into_iter().map(endpoint).collect::<Result<_, _>>()?,
            name: wire.name,
            unmeshed: wire.unmeshed,
        })
    }
}

/// Where the text is in the table, which it joins if it is not there yet.
fn index(table: &mut Vec<String>, text: &str) -> u32 {
    let at = table.iter().position(|known| known == text).unwrap_or_else(|| {
        table.push(text.to_owned());
        table.len() - 1
    });
    u32::try_from(at).expect("a table of at most a thousand entries")
}
