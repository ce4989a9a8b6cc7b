//! One small TOML file in, every room's own settings out. Called by `app` and by
//! `myelin-controller check`. docs/INJECTION.md lists every key; a test compares.
//!
//! Never: an unknown key that passes, a value outside its range, an error longer than a line, a
//! secret (only the paths of files that hold one), a clock.

// SPDX-License-Identifier: Apache-2.0

mod error;
mod load;
mod raw;
mod read;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::certificate::Place;
use crate::inject::Settings;
use crate::services;

pub use self::error::ConfigError;
pub use self::load::{MAX_FILE_BYTES, load};
pub use self::read::parse;

/// Everything that the file says, checked and with defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    /// What pods are given; its bundle and the CA's addresses are empty until they are known.
    pub settings: Settings,
    pub ca: CaAddress,
    pub bundle_file: PathBuf,
    /// The name of the ConfigMap that each meshed namespace gets. `None`: they get none.
    pub bundle_config_map: Option<String>,
    pub webhook: Webhook,
    /// Absent: nobody is told of services.
    pub services: Option<services::Config>,
    pub ops: SocketAddr,
    pub log: Log,
}

/// Where sidecars find the CA.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaAddress {
    Fixed(Vec<SocketAddr>),
    /// A Service of our own namespace, whose address is asked of the API.
    Service(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    pub listen: SocketAddr,
    pub certificate: Certificate,
}

/// By what the API server knows us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// Made, renewed and told to the API server by ourselves.
    Kept(Place),
    /// Somebody else keeps it right, and `caBundle` too.
    Files { certificate: PathBuf, key: PathBuf },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: String,
    pub json: bool,
}
