//! A PeerAuthentication, read from its JSON: what ports demand of whoever connects. Called by
//! `catalog`.
//!
//! Never: permissive by mistake: whatever cannot be read is strict.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeMap;

use myelin_identity::policy::{EncodedPolicy, MAX_PORTS, Mode, PolicyView};
use serde_json::Value;

use super::date;
use super::fields::{Fields, Targets, Wrong};

const FIELDS: &[&str] = &["targetRefs", "mode", "until", "ports"];
const PORT_FIELDS: &[&str] = &["port", "mode", "until", "serverFirst", "workloadTls"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Authentication {
    pub(super) targets: Targets,
    /// Absent: it is about its ports alone.
    pub(super) mode: Option<Mode>,
    pub(super) ports: BTreeMap<u16, Demand>,
    /// It may be about any port, and demand that it be strict.
    pub(super) is_unread: bool,
    /// The first thing that could not be read.
    pub(super) wrong: Option<Wrong>,
}

/// Of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) mode: Mode,
    pub(super) server_first: bool,
    pub(super) workload_tls: bool,
}

impl Demand {
    pub(super) const STRICT: Self =
        Self { mode: Mode::Strict, server_first: false, workload_tls: false };

    /// The earlier end, and only the flags that both have.
    pub(super) fn stricter(self, other: Self) -> Self {
        Self {
            mode: stricter(self.mode, other.mode),
            server_first: self.server_first && other.server_first,
            workload_tls: self.workload_tls && other.workload_tls,
        }
    }
}

/// Strict before permissive, the earlier end before the later.
pub(super) fn stricter(one: Mode, other: Mode) -> Mode {
    match (one, other) {
        (Mode::Permissive { until }, Mode::Permissive { until: other }) => {
            Mode::Permissive { until: until.min(other) }
        }
        _ => Mode::Strict,
    }
}

impl Authentication {
    pub(super) fn read(spec: &Value) -> Self {
        let mut read = Self {
            targets: Targets::Unknown,
            mode: Some(Mode::Strict),
            ports: BTreeMap::new(),
            is_unread: false,
            wrong: None,
        };
        let fields = match Fields::of("spec", spec) {
            Ok(fields) => fields,
            Err(wrong) => return Self { is_unread: true, wrong: Some(wrong), ..read },
        };
        match fields.targets() {
            Ok(targets) => read.targets = targets,
            Err(wrong) => wrong.or_keep(&mut read.wrong),
        }
        match mode(&fields) {
            Ok(mode) => read.mode = mode,
            Err(wrong) => wrong.or_keep(&mut read.wrong),
        }
        if let Err(wrong) = read.read_ports(&fields) {
            // Which ports are meant is not known.
            (read.mode, read.is_unread) = (Some(Mode::Strict), true);
            wrong.or_keep(&mut read.wrong);
        }
        if let Err(wrong) = fields.knows(FIELDS) {
            (read.mode, read.is_unread) = (Some(Mode::Strict), true);
            read.ports.values_mut().for_each(|demand| *demand = Demand::STRICT);
            wrong.or_keep(&mut read.wrong);
        }
        if read.targets == Targets::Unknown {
            // Others than those who were meant must not become permissive by it.
            let is_permissive = |mode: Mode| mode != Mode::Strict;
            read.mode = read.mode.filter(|mode| !is_permissive(*mode));
            read.ports.retain(|_, demand| !is_permissive(demand.mode));
        } else if read.mode.is_none() && read.ports.is_empty() {
            Wrong::new("spec", "a mode, or ports with one").or_keep(&mut read.wrong);
        }
        read
    }

    fn read_ports(&mut self, fields: &Fields<'_>) -> Result<(), Wrong> {
        for (index, value) in
            fields.list("ports", MAX_PORTS)?.unwrap_or_default().iter().enumerate()
        {
            let at = format!("spec.ports[{index}]");
            let entry = Fields::of(&at, value)?;
            let port = entry.port("port")?;
            let demand = demand(&entry).unwrap_or_else(|wrong| {
                wrong.or_keep(&mut self.wrong);
                Demand::STRICT
            });
            let before = self.ports.get(&port).copied();
            self.ports.insert(port, before.map_or(demand, |before| before.stricter(demand)));
        }
        Ok(())
    }
}

fn demand(entry: &Fields<'_>) -> Result<Demand, Wrong> {
    entry.knows(PORT_FIELDS)?;
    let mode = mode(entry)?.ok_or_else(|| Wrong::new(&entry.at("mode"), "Strict or Permissive"))?;
    let (server_first, workload_tls) = (entry.flag("serverFirst")?, entry.flag("workloadTls")?);
    Ok(Demand { mode, server_first, workload_tls })
}

/// `None`: neither it nor an end is given.
fn mode(fields: &Fields<'_>) -> Result<Option<Mode>, Wrong> {
    let until = fields.text("until")?;
    match (fields.text("mode")?, until) {
        (None, None) => Ok(None),
        (Some("Strict"), None) => Ok(Some(Mode::Strict)),
        (Some("Permissive"), Some(until)) => {
            let mode = date::unix_seconds(until).map(|until| Mode::Permissive { until });
            // As a sidecar takes it: the year has four digits.
            let view = |mode: &Mode| PolicyView { mode: Some(*mode), ..PolicyView::default() };
            let mode = mode.filter(|mode| EncodedPolicy::new(&view(mode)).is_ok());
            let moment = "a moment such as 2027-03-01T00:00:00Z";
            mode.map(Some).ok_or_else(|| Wrong::new(&fields.at("until"), moment))
        }
        _ => Err(Wrong::new(&fields.at("mode"), "Strict, or Permissive with until")),
    }
}
