//! The keys of `[log]` about the log of issued certificates: who must have witnessed a checkpoint, and
//! who serves the logs. Called by `config::parse`.
//!
//! Never: a key that makes log proofs unnecessary; the root's certificate alone decides that.

// SPDX-License-Identifier: Apache-2.0

use std::net::SocketAddr;

use super::base::LOG_KEYS;
use super::error::ConfigError;
use super::field::Field;
use super::section::Section;
use super::{Ca, Proofs};
use crate::addr::Endpoint;
use crate::proofs::{WitnessKey, Witnesses};

/// A checkpoint carries at most 16 cosignatures beside the log's own signature.
const MAX_WITNESSES: usize = 16;

/// Replicas of the CA, each with logs of its own.
const MAX_SERVERS: usize = 16;

/// The CA's ops port, where it serves its logs.
const CA_OPS_PORT: u16 = 15_011;

pub(super) fn read(root: &Section<'_>, ca: &Ca) -> Result<Proofs, ConfigError> {
    let section = root.child("log", LOG_KEYS)?;
    let keys = section.field("witnesses").map(|field| field.list(MAX_WITNESSES)).transpose()?;
    let mut witnesses = Vec::new();
    for entry in keys.iter().flatten() {
        witnesses.push(witness(entry, &witnesses)?);
    }
    let keys = witnesses;
    let most = keys.len() as u64;
    let quorum = match section.field("witness_quorum") {
        Some(field) => {
            let why = "how many of `log.witnesses` must have cosigned, no more than there are";
            field.integer(0..=most, why, "1")?
        }
        // Whoever names witnesses means all of them.
        None => most,
    };
    let servers = section.field("servers").map(|field| field.list(MAX_SERVERS)).transpose()?;
    let servers = match servers {
        Some(named) => {
            let server = |entry: &Field<'_>| entry.endpoint().map(Endpoint);
            named.iter().map(server).collect::<Result<_, _>>()?
        }
        None => ca.addresses.iter().map(ops_port).collect(),
    };
    let quorum = usize::try_from(quorum).unwrap_or(usize::MAX);
    Ok(Proofs { witnesses: Witnesses { keys, quorum }, servers })
}

/// A witness that is named twice would count twice towards the quorum, under whatever names.
fn witness(entry: &Field<'_>, before: &[WitnessKey]) -> Result<WitnessKey, ConfigError> {
    let expected = "a witness's cosignature key, <name>+<8 hex digits>+<base64>, each key once";
    let public = |key: &WitnessKey| *key.as_note_key().public();
    let is_new = |key: &WitnessKey| before.iter().all(|known| public(known) != public(key));
    let read = |text: &str| text.parse().ok().filter(is_new);
    entry.text(expected, "witness.example+2bc3a1f0+BA...", read)
}

fn ops_port(ca: &Endpoint) -> Endpoint {
    Endpoint(SocketAddr::new(ca.ip(), CA_OPS_PORT))
}
