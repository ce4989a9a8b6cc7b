//! The command line of `issuance`, which is also its first page of documentation. Called by `mod`.
//!
//! Never: decides anything; every value is used where it is needed.

// SPDX-License-Identifier: Apache-2.0

use std::path::PathBuf;

use clap::{Parser, Subcommand};

/// Measure how a CA issues, starts, watches and takes a storm of renewals, on this machine
///
/// Starts the `myelin-ca` that lies beside this program, on loopback and in a temporary directory, and
/// asks it over TLS as sidecars do. CPU time is user and system time of the CA's process alone, so it
/// holds although callers and CA share the machine; times on the clock need an idle machine.
#[derive(Debug, Parser)]
#[command(
    name = "issuance",
    after_help = "Examples:\n  \
    issuance all                         every figure of the CA in benches/README.md\n  \
    issuance issuing --scale 0.1         a tenth of it: does it work?\n  \
    issuance restart --state DIR         keep the million log entries for the next time\n  \
    issuance storm --json                one JSON object on standard output, progress on standard error"
)]
pub(super) struct Args {
    #[command(subcommand)]
    pub(super) command: Command,

    #[command(flatten)]
    pub(super) options: Options,
}

#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum Command {
    /// SVIDs a second and a core, by join token, journal and log included; latency at half the target
    Issuing,
    /// How long a start takes, and how much memory, over 1,000,000 log entries and 100,000 live SVIDs
    Restart,
    /// Memory of the CA for each of 5,000 sidecars that watch bundle, deny list and directory
    Watches,
    /// 5,000 renewals at one moment, alone and together with 2,500 first issues
    Storm,
    /// All of them, one after the other
    All,
}

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Options {
    /// All numbers of callers and records times this
    #[arg(long, global = true, default_value_t = 1.0, value_name = "FACTOR")]
    scale: f64,

    /// Where data directories are made [default: a temporary directory]; its disk is part of what is measured
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) dir: Option<PathBuf>,

    /// For `restart`: build the state here, and use it again if it is here already
    #[arg(long, global = true, value_name = "DIR")]
    pub(super) state: Option<PathBuf>,

    /// The myelin-ca to measure [default: the one beside this program]
    #[arg(long, global = true, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,

    /// Print one JSON object and nothing else on standard output
    #[arg(long, global = true)]
    pub(super) json: bool,
}

impl Options {
    /// `many` of something, as far as it is wanted.
    pub(super) fn scaled(&self, many: usize) -> usize {
        ((many as f64 * self.scale) as usize).max(1)
    }
}
