//! What was denied, by whom and until when, in the form in which it rests in the store: one record
//! for each act of denial, and one for the epoch that counts them.
//!
//! Never: behaviour beyond what one record can say about itself.

// SPDX-License-Identifier: Apache-2.0

use serde::{Deserialize, Serialize};

use super::{Hex, Record};
use crate::clock::UnixSeconds;

/// The deny list's epoch. `name`: [`super::CURRENT`]. Every change of what is denied writes it, so
/// that an issue which expects it unchanged cannot pass a denial by.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct DenyRecord {
    pub epoch: u64,
    /// Of stores from before denials had records of their own; still counted until they end.
    #[serde(default)]
    pub serials: Vec<DeniedSerial>,
}

/// One act of denial. `name`: [`denial_name`] of the epoch that it brought.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DenialRecord {
    pub at: UnixSeconds,
    pub cause: Cause,
    /// The operator's words, or empty.
    pub reason: String,
    pub id: Option<DeniedId>,
    pub serials: Vec<DeniedSerial>,
    /// Whether the hosts under a denied ID have been denied too, one by one. Until then the work
    /// goes on, also after a restart.
    pub settled: bool,
}

/// Who wanted it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// One SVID was renewed twice.
    Alarm,
    Operator,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedId {
    pub spiffe_id: String,
    pub until: UnixSeconds,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeniedSerial {
    pub serial: Hex,
    pub until: UnixSeconds,
}

/// Numbers in the order in which they were given: twenty digits hold every `u64`.
pub fn denial_name(number: u64) -> String {
    format!("{number:020}")
}

impl DenialRecord {
    /// The last second at which any of it denies anything.
    pub fn until(&self) -> UnixSeconds {
        let serials = self.serials.iter().map(|denied| denied.until);
        serials.chain(self.id.iter().map(|denied| denied.until)).max().unwrap_or(0)
    }
}

impl Record for DenyRecord {
    const PREFIX: &'static str = "deny/";
}
impl Record for DenialRecord {
    const PREFIX: &'static str = "denial/";
}
