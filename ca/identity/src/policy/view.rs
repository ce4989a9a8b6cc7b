//! One workload's policy as the controller declares it: what its ports demand, whom it lets in and
//! whom not. Called by the room's messages; made by the controller, read by the sidecar.
//! Never: permissive without an end, two demands of one port.

// SPDX-License-Identifier: Apache-2.0

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;
use prost::bytes::Bytes;

use super::rule::{RuleView, at_most, read_port};
use super::{MAX_POLICY_BYTES, PolicyError, proto};

/// Rules of one kind (allow, deny or audit): judged from end to end at each use, so kept few.
pub const MAX_RULES: usize = 256;

/// Ports with a demand of their own, and ports that one rule names.
pub const MAX_PORTS: usize = 256;

/// The last second that has a date of four digits of a year.
const LAST_SECOND: u64 = 253_402_300_799;

/// Everything is in a fixed order, so that equal ones are encoded equally.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PolicyView {
    /// For ports without a demand of their own; absent: the sidecar's own file decides.
    pub mode: Option<Mode>,
    pub ports: BTreeMap<u16, PortView>,
    pub allow: BTreeSet<RuleView>,
    pub deny: BTreeSet<RuleView>,
    /// They change nothing: what they match is counted and told.
    pub audit: BTreeSet<RuleView>,
}

/// Whether plaintext may enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Strict,
    /// Plaintext may enter until this second of the Unix epoch; from then on strict.
    Permissive {
        until: u64,
    },
}

/// What one port demands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortView {
    /// Absent: as for ports without a demand of their own.
    pub mode: Option<Mode>,
    /// The workload speaks first (SMTP, MySQL): matters while permissive.
    pub server_first: bool,
    /// The workload speaks TLS of its own on this port: matters while permissive.
    pub workload_tls: bool,
}

impl PolicyView {
    pub(super) fn encode(&self) -> Bytes {
        let mode = |mode: Option<Mode>| mode.map(Mode::to_proto);
        let ports = self.ports.iter().map(|(port, view)| proto::PortDemand {
            port: (*port).into(),
            mode: mode(view.mode),
            server_first: view.server_first,
            workload_tls: view.workload_tls,
        });
        let rules = |rules: &BTreeSet<RuleView>| rules.iter().map(RuleView::to_proto).collect();
        let wire = proto::Policy {
            mode: mode(self.mode),
            ports: ports.collect(),
            allow: rules(&self.allow),
            deny: rules(&self.deny),
            audit: rules(&self.audit),
        };
        Bytes::from(wire.encode_to_vec())
    }

    pub(super) fn read(encoded: Bytes) -> Result<Self, PolicyError> {
        if encoded.len() > MAX_POLICY_BYTES {
            return Err(PolicyError::TooLarge { bytes: encoded.len() });
        }
        let bytes = encoded.len();
        let wire = proto::Policy::decode(encoded)
            .map_err(|error| PolicyError::Malformed { why: error.to_string() })?;
        // A field that is not known here may narrow what the others say.
        if wire.encoded_len() != bytes {
            return Err(PolicyError::Unknown);
        }
        at_most(MAX_PORTS, "ports with a demand", wire.ports.len())?;
        let mut ports = BTreeMap::new();
        for demand in wire.ports {
            let port = read_port(demand.port)?;
            let view = PortView {
                mode: demand.mode.map(Mode::read).transpose()?,
                server_first: demand.server_first,
                workload_tls: demand.workload_tls,
            };
            if ports.insert(port, view).is_some() {
                return Err(PolicyError::PortTwice { port });
            }
        }
        Ok(Self {
            mode: wire.mode.map(Mode::read).transpose()?,
            ports,
            allow: rules("allow rules", wire.allow)?,
            deny: rules("deny rules", wire.deny)?,
            audit: rules("audit rules", wire.audit)?,
        })
    }
}

fn rules(what: &'static str, wire: Vec<proto::Rule>) -> Result<BTreeSet<RuleView>, PolicyError> {
    at_most(MAX_RULES, what, wire.len())?;
    wire.into_iter().map(RuleView::read).collect()
}

impl Mode {
    fn to_proto(self) -> proto::Mode {
        match self {
            Self::Strict => proto::Mode { permissive: false, until: 0 },
            Self::Permissive { until } => proto::Mode { permissive: true, until },
        }
    }

    fn read(wire: proto::Mode) -> Result<Self, PolicyError> {
        match (wire.permissive, wire.until) {
            (false, 0) => Ok(Self::Strict),
            (false, _) => Err(PolicyError::StrictWithEnd),
            (true, until @ 1..=LAST_SECOND) => Ok(Self::Permissive { until }),
            (true, _) => Err(PolicyError::PermissiveWithoutEnd),
        }
    }
}
