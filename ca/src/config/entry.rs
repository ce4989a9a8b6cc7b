//! The command line of `entry`.
//!
//! Never: opens a file or a socket.

// SPDX-License-Identifier: Apache-2.0

use std::net::IpAddr;

use clap::{Args, Subcommand, ValueEnum};

use super::{ConfigError, OperatorArgs};
use crate::authority::registration::EntryLine;
use crate::journal::{AddressSource, Granted};

/// Say who may become which ID: registration entries for pods and machines.
///
/// An entry holds for a caller if all its selectors are among those that attestation shows. Among
/// entries that hold, a deny entry wins; else the one with the most selectors. Everything is
/// compared whole: there are no patterns.
#[derive(Debug, Subcommand)]
pub enum EntryCommand {
    /// Make an entry.
    Create(Box<EntryArgs>),
    /// List all entries.
    List(OperatorArgs),
    /// Show one entry.
    Show(EntryNamed),
    /// Delete an entry: nothing more is issued or renewed by it; see `revoke` for what was issued.
    Delete(EntryNamed),
}

#[derive(Debug, Args)]
pub struct EntryNamed {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Name of the entry.
    pub name: String,
}

#[derive(Debug, Args)]
pub struct EntryArgs {
    #[command(flatten)]
    pub operator: OperatorArgs,
    /// Name of the entry, a-z, 0-9 and -.
    pub name: String,
    /// What must be true of the caller: k8s:ns:<namespace>, k8s:sa:<service account>,
    /// k8s:pod-name:<name>, k8s:pod-uid:<uid>, k8s:node-name:<node>, k8s:issuer:<issuer>,
    /// x509:san:dns:<name>, x509:san:ip:<address>, x509:san:uri:<uri>, x509:subject:cn:<name>,
    /// x509:issuer-hash:<SHA-256 of the issuing certificate>. May be repeated: all must hold.
    #[arg(long = "selector", required = true, value_name = "SELECTOR")]
    pub selectors: Vec<String>,
    /// SPIFFE ID that the caller gets.
    #[arg(
        long,
        value_name = "SPIFFE-ID",
        required_unless_present = "deny",
        conflicts_with = "deny"
    )]
    pub id: Option<String>,
    /// Whoever the selectors hold for gets nothing, whatever other entries say.
    #[arg(long)]
    pub deny: bool,
    /// Address at which peers dial the workload. May be repeated.
    #[arg(long, value_name = "IP", conflicts_with_all = ["deny", "address_from"])]
    pub address: Vec<IpAddr>,
    /// Take the address from the request's TCP connection, or from the machine's certificate.
    #[arg(long, value_enum, conflicts_with = "deny")]
    pub address_from: Option<AddressFrom>,
    /// With --address-from caller: range in which the address must lie. May be repeated.
    #[arg(long, value_name = "CIDR", conflicts_with = "deny")]
    pub within: Vec<String>,
    /// Ports of the workload, if several workloads share the address. Default: every port.
    #[arg(long, value_delimiter = ',', value_name = "PORT", conflicts_with = "deny")]
    pub port: Vec<u16>,
    /// What the workload's side speaks, if not myelin/1.
    #[arg(long, default_value = "", hide_default_value = true, conflicts_with = "deny")]
    pub protocol: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AddressFrom {
    Caller,
    Certificate,
}

impl EntryArgs {
    /// The entry as the flags have it.
    pub fn entry(&self) -> Result<EntryLine, ConfigError> {
        let grants = match &self.id {
            None => None,
            Some(id) => Some(Granted {
                spiffe_id: id.clone(),
                addresses: self.addresses()?,
                ports: self.port.clone(),
                protocol: self.protocol.clone(),
            }),
        };
        let (name, selectors) = (self.name.clone(), self.selectors.clone());
        Ok(EntryLine { name, selectors, grants, created: 0 })
    }

    fn addresses(&self) -> Result<AddressSource, ConfigError> {
        match (self.address_from, self.address.is_empty(), self.within.is_empty()) {
            (None, false, true) => Ok(AddressSource::Listed(self.address.clone())),
            (Some(AddressFrom::Caller), true, _) => {
                Ok(AddressSource::Caller { within: self.within.clone() })
            }
            (Some(AddressFrom::Certificate), true, true) => Ok(AddressSource::Evidence),
            _ => Err(ConfigError::EntryAddress),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::config::Cli;

    #[test]
    fn deny_entry_with_something_to_grant_is_refused() {
        let parse = |more: &[&str]| {
            let entry = ["myelin-ca", "entry", "create", "x", "--data", "d", "--deny"];
            Cli::try_parse_from(entry.iter().chain(&["--selector", "k8s:ns:shop"]).chain(more))
        };
        parse(&[]).unwrap();
        for (flag, value) in [
            ("--protocol", "mtls"),
            ("--id", "spiffe://a/b"),
            ("--address", "10.0.0.1"),
            ("--address-from", "caller"),
            ("--within", "10.0.0.0/8"),
            ("--port", "80"),
        ] {
            assert!(parse(&[flag, value]).is_err(), "{flag}");
        }
    }
}
