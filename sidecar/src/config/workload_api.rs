//! `[workload_api]`: whether there is a socket for the workload's own SVID, and for whom. Called by
//! `config::parse`.
//!
//! Never: a socket for everybody.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::base::socket_path;
use super::error::ConfigError;
use super::field::Field;
use super::section::Section;
use crate::workload_api::{Allowed, Config};

/// Users of one workload's containers.
const MAX_ALLOWED: usize = 32;

/// A directory of its own: that of the operator's socket is not for workloads.
const DEFAULT_SOCKET: &str = "/run/myelin/workload/api.sock";

pub(super) const KEYS: &[&str] = &["socket", "allowed_uids", "allowed_gids", "sds"];

/// The section's presence turns it on.
pub(super) fn read(root: &Section<'_>) -> Result<Option<Config>, ConfigError> {
    let section = root.child("workload_api", KEYS)?;
    if root.field("workload_api").is_none() {
        return Ok(None);
    }
    let socket = match section.field("socket") {
        Some(field) => socket_path(&field, DEFAULT_SOCKET)?,
        None => PathBuf::from(DEFAULT_SOCKET),
    };
    let (uids, gids) = (numbers(&section, "allowed_uids")?, numbers(&section, "allowed_gids")?);
    if uids.is_empty() && gids.is_empty() {
        let expected = "the users or groups that may have the workload's SVID (`allowed_uids`, \
                        `allowed_gids`)";
        return Err(section.missing("allowed_uids", expected, "allowed_uids = [1000]"));
    }
    let sds = section.field("sds").map_or(Ok(false), |field| field.boolean())?;
    Ok(Some(Config { socket, allowed: Allowed { uids, gids }, sds }))
}

fn numbers(section: &Section<'_>, key: &str) -> Result<BTreeSet<u32>, ConfigError> {
    let Some(field) = section.field(key) else { return Ok(BTreeSet::new()) };
    field.list(MAX_ALLOWED)?.iter().map(Field::uid).collect()
}
