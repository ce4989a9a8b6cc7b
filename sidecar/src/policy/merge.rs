//! The file's policy and the controller's as one. Called by `policies` whenever either changes.
//!
//! Never: a rule that disappears because the other side has one too.

// SPDX-License-Identifier: Apache-2.0

use std::collections::BTreeSet;

use myelin_identity::policy::{PolicyView, RuleView};

use super::{Config, Mode, PortConfig, Rule};

impl Config {
    /// What the controller says of modes and of its ports wins; the rules of both apply. Where it says
    /// a mode, no port of the file is more open than that. How peers without `myelin/1` are served is
    /// the file's alone to say.
    #[must_use]
    pub fn with(&self, said: &PolicyView) -> Self {
        let mut ports = self.ports.clone();
        if said.mode.is_some() {
            let open = ports.values_mut().filter(|port| port.mode != Some(Mode::Strict));
            open.for_each(|port| port.mode = None);
        }
        for (port, view) in &said.ports {
            let plain_mtls = ports.remove(port).and_then(|of_file| of_file.plain_mtls);
            let of_port = PortConfig {
                mode: view.mode,
                server_first: view.server_first,
                workload_tls: view.workload_tls,
                plain_mtls,
            };
            ports.insert(*port, of_port);
        }
        Self {
            trust_domain: self.trust_domain.clone(),
            default: said.mode.unwrap_or(self.default),
            ports,
            allow: both(&self.allow, &said.allow),
            deny: both(&self.deny, &said.deny),
            audit: both(&self.audit, &said.audit),
        }
    }
}

fn both(file: &[Rule], said: &BTreeSet<RuleView>) -> Vec<Rule> {
    file.iter().cloned().chain(said.iter().map(Rule::from)).collect()
}
