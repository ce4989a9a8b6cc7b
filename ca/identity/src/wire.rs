//! What the controller's services have in common on the wire: versions of what was said, and
//! addresses. Called by `services` and `policy`.
//! Never: a meaning of what is encoded.

// SPDX-License-Identifier: Apache-2.0

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::digest::{SHA256, digest};

/// What a version is long: enough that no two states of one thing share one by chance.
const VERSION_BYTES: usize = 16;

/// The state of something, by what was said of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Version([u8; VERSION_BYTES]);

/// A version is as long as it is, or absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a version has {bytes} bytes; expected {VERSION_BYTES}")]
pub struct NoVersion {
    bytes: usize,
}

impl Version {
    pub(crate) fn of(encoded: &[u8]) -> Self {
        let mut version = [0; VERSION_BYTES];
        version.copy_from_slice(&digest(&SHA256, encoded).as_ref()[..VERSION_BYTES]);
        Self(version)
    }

    /// Absent where there are no bytes.
    pub(crate) fn read(bytes: &[u8]) -> Result<Option<Self>, NoVersion> {
        if bytes.is_empty() {
            return Ok(None);
        }
        bytes.try_into().map(|it| Some(Self(it))).map_err(|_| NoVersion { bytes: bytes.len() })
    }

    pub(crate) fn to_vec(self) -> Vec<u8> {
        self.0.to_vec()
    }
}

/// 32 characters of hexadecimal.
impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// 4 or 16 bytes, as they are.
pub(crate) fn read_address(bytes: &[u8]) -> Option<IpAddr> {
    match (<[u8; 4]>::try_from(bytes), <[u8; 16]>::try_from(bytes)) {
        (Ok(v4), _) => Some(IpAddr::from(v4)),
        (_, Ok(v6)) => Some(IpAddr::from(v6)),
        _ => None,
    }
}

pub(crate) fn write_address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}
