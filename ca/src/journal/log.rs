//! What the journal knows of the logs: their sealed keys, how far each has grown, and the whole of
//! the root's log, which is small and shared by all replicas.
//!
//! Never: the entries of an issuing log (those are files), or a key in the clear.

// SPDX-License-Identifier: Apache-2.0

use serde::{Deserialize, Serialize};

use super::{Blob, Hex, Record};

/// A log's name and key. `name`: which log. Never changes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LogKeyRecord {
    pub origin: String,
    /// Ed25519.
    pub public: Hex,
    pub sealed_seed: Blob,
}

/// How far a log has grown: no checkpoint beyond it was ever signed. `name`: which log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogHeadRecord {
    pub size: u64,
    pub root: Hex,
    /// Complete subtrees from the largest to the smallest; empty where tiles on disk say it.
    #[serde(default)]
    pub peaks: Vec<Hex>,
}

/// One entry of the root's log. `name`: its index, in 20 digits.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootLogRecord {
    pub entry: Blob,
}

/// Where an intermediate is in the root's log. `name`: SHA-256 of its certificate. Without a
/// signature: a transaction that failed was not the log, and its words stay in a store's own log.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RootLogProofRecord {
    pub index: u64,
    pub path: Vec<Hex>,
    /// Of the log up to and with this entry.
    pub root: Hex,
}

/// Where a certificate is: whose issuing log, and at which index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPlace {
    pub replica: String,
    pub index: u64,
}

impl Record for LogKeyRecord {
    const PREFIX: &'static str = "log-key/";
}
impl Record for LogHeadRecord {
    const PREFIX: &'static str = "log-head/";
}
impl Record for RootLogRecord {
    const PREFIX: &'static str = "root-log/";
}
impl Record for RootLogProofRecord {
    const PREFIX: &'static str = "root-log-proof/";
}
