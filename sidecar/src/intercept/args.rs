//! The command line of `myelin-sidecar intercept apply | remove | show`. Flattened by `main` into
//! its own, handed to `run`.
//!
//! Never: a decision; `plan` validates what is given here.

// SPDX-License-Identifier: Apache-2.0

use clap::{Args, Subcommand};
use ipnet::IpNet;

use super::plan::{Config, parse_cidr};
use super::{InterceptError, defaults};

/// Write, remove or show the rules that bring this network namespace's TCP to the sidecar.
#[derive(Debug, Clone, Args)]
pub struct InterceptArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: InterceptCommand,
}

/// What to do with the rules.
#[derive(Debug, Clone, Subcommand)]
pub enum InterceptCommand {
    /// Write the rules, atomically; what is there already stays untouched
    ///
    /// Redirects every TCP connection of this network namespace, IPv4 and IPv6, to the sidecar:
    /// outbound ones to --outbound-port, inbound ones to --inbound-port. Applying twice changes
    /// nothing; applying other values replaces the table `inet myelin` in one transaction, and a
    /// refusal by the kernel leaves the old rules as they were. Needs CAP_NET_ADMIN and a kernel
    /// with nf_tables (5.2 or later).
    ///
    /// If the sidecar does not run, captured connections are refused, not passed. Not captured:
    /// loopback and the own addresses, UDP, outbound fe80::/10, and what is excluded here. Apply
    /// before the workload starts: older connections either go on as they were or are reset.
    ///
    /// On a machine that you reach by SSH, pass --exclude-inbound-port 22, or you lock yourself
    /// out.
    Apply(ApplyArgs),
    /// Remove the rules; traffic is then no longer protected
    ///
    /// Deletes the table `inet myelin` and nothing else. Not being there is no error. Stop the
    /// workload first: connections that were redirected break, and what the workload still sends
    /// on them leaves unprotected for the address that it dialled.
    Remove(RemoveArgs),
    /// Show the rules that are in the kernel, with their packet counters
    ///
    /// Reads the table `inet myelin` back over netlink and prints it the way `nft list table inet
    /// myelin` does. Needs CAP_NET_ADMIN.
    Show(ShowArgs),
}

/// Values of `apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// UID that the sidecar runs as; its marked connections are not captured
    #[arg(long, value_name = "UID", default_value_t = defaults::PROXY_UID)]
    pub proxy_uid: u32,

    /// Mark (SO_MARK) that the sidecar's connections carry beside its UID; 0: the UID alone exempts
    #[arg(long, value_name = "MARK", default_value = "0x6d79", value_parser = parse_mark)]
    pub mark: u32,

    /// Port of the sidecar's outbound listener
    #[arg(long, value_name = "PORT", default_value_t = defaults::OUTBOUND_PORT,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub outbound_port: u16,

    /// Port of the sidecar's inbound listener
    #[arg(long, value_name = "PORT", default_value_t = defaults::INBOUND_PORT,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub inbound_port: u16,

    /// Port of /live, /ready and /metrics, which is never captured
    #[arg(long, value_name = "PORT", default_value_t = defaults::OPS_PORT,
        value_parser = clap::value_parser!(u16).range(1..))]
    pub ops_port: u16,

    /// Port of the workload's probes, if the sidecar's file has any; then it is never captured
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    pub probe_port: Option<u16>,

    /// Destination port that the workload reaches directly, unprotected (repeat, or use commas)
    #[arg(long = "exclude-outbound-port", value_name = "PORT", value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..))]
    pub exclude_outbound_ports: Vec<u16>,

    /// Port of this pod or machine that is reached directly, unprotected (repeat, or use commas)
    #[arg(long = "exclude-inbound-port", value_name = "PORT", value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..))]
    pub exclude_inbound_ports: Vec<u16>,

    /// Destination range that the workload reaches directly, unprotected (repeat, or use commas)
    #[arg(long = "exclude-cidr", value_name = "CIDR", value_delimiter = ',',
        value_parser = parse_cidr)]
    pub exclude_cidrs: Vec<IpNet>,

    /// User whose outbound connections are not captured (repeat, or use commas)
    #[arg(long = "exclude-uid", value_name = "UID", value_delimiter = ',')]
    pub exclude_uids: Vec<u32>,

    /// Print the rules that would be written, and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Values of `remove`: none.
#[derive(Debug, Clone, Args)]
pub struct RemoveArgs {}

/// Values of `show`.
#[derive(Debug, Clone, Args)]
pub struct ShowArgs {
    /// Print JSON: {"present", "table", "sets": [..], "chains": [{"name", "hook", "rules": [..]}]}
    #[arg(long)]
    pub json: bool,
}

impl ApplyArgs {
    /// The same as this room's configuration.
    pub fn config(&self) -> Config {
        Config {
            proxy_uid: self.proxy_uid,
            mark: self.mark,
            outbound_port: self.outbound_port,
            inbound_port: self.inbound_port,
            ops_port: self.ops_port,
            probe_port: self.probe_port,
            exclude_outbound_ports: self.exclude_outbound_ports.clone(),
            exclude_inbound_ports: self.exclude_inbound_ports.clone(),
            exclude_cidrs: self.exclude_cidrs.clone(),
            exclude_uids: self.exclude_uids.clone(),
        }
    }
}

/// Marks are written in hexadecimal everywhere; decimal is taken too.
fn parse_mark(text: &str) -> Result<u32, InterceptError> {
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => text.parse(),
    };
    parsed.map_err(|_| InterceptError::NoMark(text.to_owned()))
}
