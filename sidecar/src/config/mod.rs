//! One small TOML file in, every room's own configuration out. Called by `app` at the start and at
//! each reload, and by `myelin-sidecar check`. docs/CONFIG.md lists every key; a test compares.
//!
//! Never: an unknown key that passes, a value outside its range, an error longer than a line, a
//! secret (only the paths of files that hold one), environment variables, a clock.

// SPDX-License-Identifier: Apache-2.0

mod base;
mod controllers;
mod date;
mod error;
mod field;
mod inbound;
mod interception;
mod limits;
mod load;
mod outbound;
mod probe;
mod proofs;
mod section;
mod show;
mod source;
#[cfg(test)]
mod tests;
mod workload_api;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use myelin_identity::id::{SpiffeId, TrustDomain};
use toml::de::DeTable;

use self::field::Domains;
use self::section::Section;
use self::source::Source;
use crate::addr::{Endpoint, ListenAddr};
use crate::credentials::Evidence;
use crate::probes::Probe;
use crate::proofs::Witnesses;
use crate::{controller, directory, policy, workload_api as socket};

pub use self::error::{At, ConfigError};
pub use self::interception::interception;
pub use self::limits::Limits;
pub use self::load::{MAX_FILE_BYTES, load};
pub(crate) use self::show::inbound as show_inbound;

/// Everything that the file says, checked and with defaults filled in.
#[derive(Clone, Debug)]
pub struct Config {
    pub trust_domain: TrustDomain,
    /// Foreign domains whose peers may be named here; the CA must federate with them too.
    pub federates_with: BTreeSet<TrustDomain>,
    /// Those of them whose peers need no log, if the CA accepts that too.
    pub federates_unlogged: BTreeSet<TrustDomain>,
    /// The identity that the sidecar must get; absent: whichever the CA attests.
    pub id: Option<SpiffeId>,
    /// Own addresses; empty: those of the interfaces.
    pub addresses: Vec<IpAddr>,
    pub state_dir: PathBuf,
    pub ca: Ca,
    pub listen: Listen,
    pub intercept: Intercept,
    pub policy: policy::Config,
    pub directory: directory::Config,
    /// Who says what is behind a service's address; absent: nobody.
    pub services: Option<controller::Config>,
    /// Who says, beside this file, who may enter; absent: nobody.
    pub policies: Option<controller::Config>,
    /// Absent: there is no such socket.
    pub workload_api: Option<socket::Config>,
    /// What the kubelet asks of the workload, run by us. Empty: there is no such port.
    pub probes: Vec<Probe>,
    pub limits: Limits,
    pub log: Log,
    pub proofs: Proofs,
}

/// Where the identity comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ca {
    /// Replicas, tried in turn; at least one.
    pub addresses: Vec<Endpoint>,
    pub join_token_file: Option<PathBuf>,
    /// A pod's token or a machine's certificate, in place of a join token.
    pub evidence: Evidence,
    /// PEM to pin, in place of the hash in the join token.
    pub bundle_file: Option<PathBuf>,
    /// What is asked for; absent: the CA's default.
    pub lifetime: Option<Duration>,
}

/// Where we wait for others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listen {
    pub outbound: ListenAddr,
    pub inbound: ListenAddr,
    pub ops: ListenAddr,
    /// Bound only where there are probes.
    pub probes: ListenAddr,
    pub admin: PathBuf,
    pub admin_uids: Vec<u32>,
    /// Absent: one for each core.
    pub workers: Option<NonZeroUsize>,
}

impl Listen {
    /// Whether one of our own listeners has this port.
    fn takes(&self, port: u16) -> bool {
        let own = [self.outbound, self.inbound, self.ops, self.probes];
        own.iter().any(|own| own.port() == port)
    }
}

/// What interception needs to know about us.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Intercept {
    pub proxy_uid: u32,
    /// 0: sockets carry no mark.
    pub mark: u32,
    /// `/ready` needs the rules.
    pub verify: bool,
    /// What `intercept apply` was told to leave alone, so that `/ready` expects just these rules.
    pub exclude_outbound_ports: Vec<u16>,
    pub exclude_inbound_ports: Vec<u16>,
    pub exclude_cidrs: Vec<IpNet>,
    pub exclude_uids: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub level: LogLevel,
    pub format: LogFormat,
}

/// What is demanded of log proofs beyond the log's own signature, and where logs are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proofs {
    pub witnesses: Witnesses,
    /// Who serves logs, asked in turn; by default the CA's replicas.
    pub servers: Vec<Endpoint>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

impl LogLevel {
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}

impl LogFormat {
    pub fn word(self) -> &'static str {
        match self {
            Self::Human => "human",
            Self::Json => "json",
        }
    }
}

const KEYS: &[&str] = &[
    "trust_domain",
    "federates_with",
    "federates_unlogged",
    "id",
    "mesh_cidrs",
    "addresses",
    "state_dir",
    "ca",
    "listen",
    "intercept",
    "inbound",
    "outbound",
    "services",
    "policies",
    "workload_api",
    "probe",
    "limits",
    "log",
];

/// Reads a configuration from its text; `name` is what errors call the file.
pub fn parse(name: &str, text: &str) -> Result<Config, ConfigError> {
    let source = Source { name: name.into(), text };
    let table = DeTable::parse(text).map_err(|why| syntax(&source, &why))?;
    let root = Section::root(&source, table.get_ref(), KEYS)?;
    let trust_domain = base::trust_domain(&root)?;
    let federates_with = base::federates_with(&root, &trust_domain)?;
    let named = Domains { own: &trust_domain, federated: &federates_with };
    let mesh = base::mesh(&root)?;
    let listen = base::listen(&root)?;
    let inbound = root.child("inbound", inbound::KEYS)?;
    let outbound = root.child("outbound", outbound::KEYS)?;
    let ca = base::ca(&root)?;
    Ok(Config {
        id: root.field("id").map(|id| id.spiffe_id(&trust_domain)).transpose()?,
        addresses: base::addresses(&root, &mesh)?,
        state_dir: base::state_dir(&root)?,
        intercept: base::intercept(&root)?,
        policy: inbound::read(&inbound, named, &listen)?,
        directory: outbound::read(&outbound, named, mesh)?,
        services: controllers::read(&root, "services", &trust_domain)?,
        policies: controllers::read(&root, "policies", &trust_domain)?,
        workload_api: workload_api::read(&root)?,
        probes: probe::read(&root, &listen)?,
        limits: limits::read(&root)?,
        log: base::log(&root)?,
        proofs: proofs::read(&root, &ca)?,
        ca,
        trust_domain,
        federates_unlogged: base::federates_unlogged(&root, &federates_with)?,
        federates_with,
        listen,
    })
}

fn syntax(source: &Source<'_>, why: &toml::de::Error) -> ConfigError {
    let at = source.at(why.span().map_or(0, |span| span.start));
    ConfigError::Syntax { at, why: why.message().replace('\n', ", ").into() }
}
