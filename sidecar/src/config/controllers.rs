//! `[services]` and `[policies]`: which controllers say what is behind the address of a service, or who
//! may enter here, and who they are. Called by `config::parse`.
//!
//! Never: a controller whose whole ID is not named.

// SPDX-License-Identifier: Apache-2.0

use myelin_identity::id::TrustDomain;

use super::error::ConfigError;
use super::field::Field;
use super::section::Section;
use crate::addr::Endpoint;
use crate::controller::Config;

/// Controllers, tried in turn.
const MAX_CONTROLLERS: usize = 16;

pub(super) const KEYS: &[&str] = &["address", "id"];

/// The section's presence turns it on.
pub(super) fn read(
    root: &Section<'_>,
    name: &str,
    trust_domain: &TrustDomain,
) -> Result<Option<Config>, ConfigError> {
    let section = root.child(name, KEYS)?;
    if root.field(name).is_none() {
        return Ok(None);
    }
    let example = "\"10.96.0.6:15014\"";
    let addresses = section
        .required("address", "the controllers' addresses and ports", &format!("[{example}]"))?
        .some(MAX_CONTROLLERS, "at least one address and port", example)?;
    let example = format!("\"spiffe://{trust_domain}/ns/myelin-system/sa/myelin-controller\"");
    let id = section.required("id", "the controllers' SPIFFE ID", &example)?;
    let endpoint = |entry: &Field<'_>| entry.endpoint().map(Endpoint);
    Ok(Some(Config {
        addresses: addresses.iter().map(endpoint).collect::<Result<_, _>>()?,
        id: id.spiffe_id(trust_domain)?,
    }))
}
