//! Whose zone may be another one since somebody last looked. Written by `catalog`, taken by `hub`.
//!
//! Never: a zone; who asks looks for itself.

// SPDX-License-Identifier: Apache-2.0

use std::collections::HashSet;
use std::net::IpAddr;

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// Whoever has one of these addresses.
    Those(HashSet<IpAddr>),
    Anybody,
}

impl Default for Moved {
    fn default() -> Self {
        Self::Those(HashSet::new())
    }
}

impl Moved {
    pub(super) fn extend(&mut self, addresses: &[IpAddr]) {
        if let Self::Those(those) = self {
            those.extend(addresses);
        }
    }
}
