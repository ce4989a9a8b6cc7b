//! `WatchDirectory`: who lives at an address, on the wire.
//! Called by the CA's API and the sidecar's directory client.
//! Never: names of services; the CA knows addresses only.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use super::{IssuanceError, at_most, proto};
use crate::id::SpiffeId;

/// What a peer speaks that declares nothing else.
pub const MYELIN_PROTOCOL: &str = "myelin/1";

/// An ALPN name is at most 255 bytes; those in use are below ten.
pub const MAX_PROTOCOL_BYTES: usize = 32;

/// A caller asks about an address that its workload dials, or forgets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectoryQuestion {
    pub address: IpAddr,
    pub port: u16,
    pub forget: bool,
}

/// The one with a live SVID at that address, or nobody.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryAnswer {
    pub address: IpAddr,
    pub port: u16,
    pub id: Option<SpiffeId>,
    /// [`MYELIN_PROTOCOL`] unless the workload's record declares another.
    pub protocol: String,
}

impl TryFrom<proto::DirectoryQuestion> for DirectoryQuestion {
    type Error = IssuanceError;

    fn try_from(wire: proto::DirectoryQuestion) -> Result<Self, IssuanceError> {
        Ok(Self {
            address: read_address(&wire.address)?,
            port: read_port(wire.port)?,
            forget: wire.forget,
        })
    }
}

impl From<DirectoryQuestion> for proto::DirectoryQuestion {
    fn from(question: DirectoryQuestion) -> Self {
        Self {
            address: write_address(question.address),
            port: question.port.into(),
            forget: question.forget,
        }
    }
}

impl TryFrom<proto::DirectoryAnswer> for DirectoryAnswer {
    type Error = IssuanceError;

    fn try_from(wire: proto::DirectoryAnswer) -> Result<Self, IssuanceError> {
        let id = match wire.spiffe_id.as_str() {
            "" => None,
            text => Some(
                SpiffeId::parse(text)
                    .map_err(|why| IssuanceError::Id { field: "spiffe_id", why })?,
            ),
        };
        Ok(Self {
            address: read_address(&wire.address)?,
            port: read_port(wire.port)?,
            id,
            protocol: read_protocol(wire.protocol)?,
        })
    }
}

impl From<DirectoryAnswer> for proto::DirectoryAnswer {
    fn from(answer: DirectoryAnswer) -> Self {
        Self {
            address: write_address(answer.address),
            port: answer.port.into(),
            spiffe_id: answer.id.map(|id| id.to_string()).unwrap_or_default(),
            protocol: if answer.protocol == MYELIN_PROTOCOL {
                String::new()
            } else {
                answer.protocol
            },
        }
    }
}

/// IPv4-mapped IPv6 addresses become IPv4: one spelling of each address.
fn read_address(bytes: &[u8]) -> Result<IpAddr, IssuanceError> {
    if let Ok(v4) = <[u8; 4]>::try_from(bytes) {
        return Ok(IpAddr::from(v4));
    }
    super::exactly::<16>("address", bytes).map(|v6| IpAddr::from(v6).to_canonical())
}

fn write_address(address: IpAddr) -> Vec<u8> {
    match address.to_canonical() {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

fn read_port(port: u32) -> Result<u16, IssuanceError> {
    u16::try_from(port).map_err(|_| IssuanceError::OutOfRange {
        field: "port",
        seen: port.into(),
        limit: u16::MAX.into(),
    })
}

fn read_protocol(text: String) -> Result<String, IssuanceError> {
    if text.is_empty() {
        return Ok(MYELIN_PROTOCOL.to_owned());
    }
    at_most("protocol", text.as_bytes(), MAX_PROTOCOL_BYTES)?;
    match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | ':' | '/' | '-')) {
        Some(seen) => Err(IssuanceError::Protocol { seen }),
        None => Ok(text),
    }
}
